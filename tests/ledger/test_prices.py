"""Prices, and a vendor that bills more than was reserved."""

import asyncio
import dataclasses

import pytest
from fake_teacher import PRICES, RESERVED_USD, ask

from bridge_jax.config import RunConfig
from bridge_jax.config.io import override
from bridge_jax.errors import UserError
from bridge_jax.ledger.ledger import Ledger
from bridge_jax.ledger.prices import BudgetExceeded, Prices, cap_in_nanodollars, in_usd
from bridge_jax.ledger.requests import TeacherReply
from bridge_jax.methods.checks import validate
from bridge_jax.teachers.annotate import annotate


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


# Each request reserves 0.001 US dollars, and is billed 20 times its 90 tokens: 18.1 times as much.
TIMES = 20
BILLED_USD = 100e-6 + 10 * TIMES * 90e-6
REPLY = TeacherReply("a long story", 100, TIMES * 90)


class Overbilling:
    """Answers when `together` requests are in flight, and bills 20 times `max_output_tokens`."""

    name = "overbilling"

    def __init__(self, together: int):
        self.together, self.calls, self.in_flight = together, 0, 0
        self.all_here = asyncio.Event()

    def estimate_input_tokens(self, request):
        return 100

    async def ask(self, request):
        self.calls += 1
        if self.calls >= self.together:
            self.all_here.set()
        await self.all_here.wait()
        return REPLY

    async def aclose(self):
        pass


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


def opened(path, usd=1.0, queries=1000, run=""):
    return Ledger(path, queries, usd, PRICES, run)


def test_beyond_the_cap_goes_what_was_in_flight_and_nothing_more(path):
    teacher, requests = Overbilling(8), [ask(n) for n in range(100)]
    assert 8 * BILLED_USD > 0.10 > 8 * RESERVED_USD
    with opened(path, usd=0.10) as ledger:
        with pytest.raises(BudgetExceeded, match=r"18\.10 times what was reserved for a request"):
            annotate(teacher, ledger, requests, concurrency=8)
        assert teacher.calls == 8
        assert ledger.spend().usd == pytest.approx(8 * BILLED_USD)  # $0.1448
        assert ledger.spend("reserved").queries == ledger.spend("unknown").queries == 0


def test_a_cap_that_holds_those_in_flight_is_kept(path):
    teacher, requests = Overbilling(8), [ask(n) for n in range(100)]
    with opened(path, usd=0.30) as ledger:
        with pytest.raises(BudgetExceeded, match=r"may cost up to 0\.018100"):
            annotate(teacher, ledger, requests, concurrency=8)
        # As many as fit, each at what the worst has cost: 16 * $0.0181 = $0.2896.
        assert teacher.calls == 16
        assert 0.30 - BILLED_USD < ledger.spend().usd <= 0.30


def test_a_run_that_goes_on_later_knows_it(path, caplog):
    with opened(path) as ledger:
        ledger.reserve(ask(0), 100)
        ledger.settle(ask(0), REPLY)
        (message,) = caplog.messages
        assert "fake-1 billed 0.018100 US dollars for a request that reserved 0.001000" in message
        assert "18.10 times as much is reserved" in message
    room = 2 * BILLED_USD
    with (
        opened(path, usd=room - 1e-9) as ledger,
        pytest.raises(BudgetExceeded, match=r"18\.10 times"),
    ):
        ledger.reserve(ask(1), 100)
    with opened(path, usd=room) as ledger:
        assert ledger.reserve(ask(1), 100) is None
        assert ledger.spend("reserved").usd == pytest.approx(BILLED_USD)
        ledger.settle(ask(1), TeacherReply("short", 100, 50))
        # A smaller bill does not make the next one safe.
        assert ledger.spend().usd == pytest.approx(BILLED_USD + 600e-6)
        with pytest.raises(BudgetExceeded):
            ledger.reserve(ask(2), 100)
    assert len(caplog.messages) == 1


def test_another_run_on_the_ledger_knows_it_and_another_model_is_not_blamed(path):
    with opened(path, run="a") as ledger:
        ledger.reserve(ask(0), 100)
        ledger.settle(ask(0), REPLY)
    with opened(path, usd=BILLED_USD - 1e-9, run="b") as ledger:
        with pytest.raises(BudgetExceeded, match=r"18\.10 times"):
            ledger.reserve(ask(1), 100)
        assert ledger.reserve(dataclasses.replace(ask(1), model="fake-2"), 100) is None
        assert ledger.spend("reserved").usd == pytest.approx(RESERVED_USD)


def test_what_is_in_flight_or_was_cut_off_counts_at_what_was_seen(path):
    with opened(path) as ledger:
        for number in range(4):
            ledger.reserve(ask(number), 100)
        ledger.abandon(ask(1))
        ledger.settle(ask(2), TeacherReply("within", 100, 90))
        ledger.settle(ask(0), REPLY)
        assert ledger.spend("unknown").usd == pytest.approx(BILLED_USD)
        assert ledger.spend("reserved").usd == pytest.approx(BILLED_USD)
        assert ledger.spend().usd == pytest.approx(RESERVED_USD + BILLED_USD)


def test_more_input_than_was_estimated_is_an_overrun_too(path):
    with opened(path, usd=0.01) as ledger:
        ledger.reserve(ask(0), 100)
        ledger.settle(ask(0), TeacherReply("", 4100, 90))  # 0.005 instead of 0.001
        with pytest.raises(BudgetExceeded, match=r"may cost up to 0\.006000 .*5\.00 times"):
            ledger.reserve(ask(1), 300)  # 0.0012 at the list price


def test_in_a_batch_job(path):
    requests = [ask(n) for n in range(5)]
    with opened(path) as ledger:
        for request in requests:
            ledger.reserve(request, 100, batch=True)
        ledger.begin_job("job", "vendor", [request.key for request in requests])
        ledger.settle(requests[0], REPLY)
        assert ledger.spend().usd == pytest.approx(BILLED_USD / 2)
        assert ledger.spend("reserved").usd == pytest.approx(4 * BILLED_USD / 2)
        assert ledger.close_job("job") == 4
        assert ledger.spend("unknown").usd == pytest.approx(4 * BILLED_USD / 2)
