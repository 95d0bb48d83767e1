import pytest

from bridge_jax.config import RunConfig
from bridge_jax.config.io import override
from bridge_jax.errors import UserError
from bridge_jax.ledger.prices import Prices, cap_in_nanodollars, in_usd
from bridge_jax.methods.checks import validate


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


API = ("teacher.kind=openai", "teacher.model=m")
FREE = ("teacher.usd_per_million_input=0", "teacher.usd_per_million_output=0")


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (FREE, r"usd_per_million_input=0\.0, .*_output=0\.0: nothing would count .*free=true"),
        (FREE[1:], r"^teacher\.usd_per_million_output=0\.0: nothing would count"),
        (FREE[:1], r"^teacher\.usd_per_million_input=0\.0: nothing would count"),
        (
            ("teacher.batch=true", "teacher.batch_share=0"),
            r"^teacher\.batch_share=0\.0: nothing would count",
        ),
        (("teacher.free=true",), r"free=true, but .*_input=1\.25, .*_output=10\.0; set the prices"),
        (("teacher.free=true", FREE[0]), r"free=true, but teacher\.usd_per_million_output=10"),
    ],
)
@pytest.mark.parametrize("kind", ["openai", "gemini"])
def test_an_api_costs_nothing_only_if_that_is_said(assignments, message, kind):
    config = override(RunConfig(), [*API, f"teacher.kind={kind}", *assignments])
    with pytest.raises(UserError, match=message):
        validate(config)


@pytest.mark.parametrize(
    "assignments",
    [
        (*API, *FREE, "teacher.free=true"),
        (*API, "teacher.usd_per_million_input=0.001"),
        FREE,  # the program behind practice tasks
        (*API, "teacher.batch_share=0"),  # not in batch mode
        (*API, *FREE, f"teacher.replay_from={__file__}"),  # nobody is paid
    ],
)
def test_prices_that_are_meant(assignments):
    validate(override(RunConfig(), list(assignments)))
