import pytest

from bridge_jax.errors import UserError
from bridge_jax.teachers.prices import Prices, cap_in_nanodollars, in_usd


@pytest.mark.parametrize(
    ("prices", "tokens", "nanodollars"),
    [
        ((1.25, 10.0), (1000, 200), 3_250_000),  # $0.00125 + $0.002
        ((0.075, 0.3), (7, 3), 1425),  # 7 * 75 + 3 * 300
        ((0.1, 0.2), (3, 0), 300),  # 0.1 * 3 is 0.30000000000000004 in floats
        ((0.0001, 0.0), (1, 0), 1),  # a tenth of a nanodollar, rounded up
        ((0.0, 0.0), (10**6, 10**6), 0),
    ],
)
def test_cost_is_exact_and_rounded_up(prices, tokens, nanodollars):
    assert Prices(*prices).cost(*tokens) == nanodollars


def test_batch_mode_costs_half():
    assert Prices(1.25, 10.0).cost(1000, 200, batch=True) == 1_625_000
    assert Prices(0.003, 0.007).cost(1, 0, batch=True) == 2  # 1.5 nanodollars, rounded up
    assert Prices(1.0, 1.0, batch_share=0.3).cost(10, 0, batch=True) == 3000


def test_cap_is_rounded_down():
    assert cap_in_nanodollars(0.3) == 300_000_000
    assert cap_in_nanodollars(1e-9 * 2.5) == 2
    assert in_usd(1_500_000) == 0.0015


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf")])
def test_a_price_that_is_none_is_named(price):
    with pytest.raises(UserError, match=r"teacher\.usd_per_million_output=.*0 US dollars or more"):
        Prices(1.0, price)
