"""A vendor that bills more than was reserved: what can be lost by it, and what is not."""

import asyncio
import contextlib
import dataclasses
import sqlite3

import pytest
from fake_teacher import PRICES, RESERVED_USD, ask

from bridge_jax.ledger.ledger import BudgetExceeded, Ledger
from bridge_jax.teachers.annotate import annotate
from bridge_jax.teachers.protocol import Reply

# Each request reserves 0.001 US dollars, and is billed 20 times its 90 tokens: 18.1 times as much.
TIMES = 20
BILLED_USD = 100e-6 + 10 * TIMES * 90e-6
REPLY = Reply("a long story", 100, TIMES * 90)


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
        ledger.settle(ask(1), Reply("short", 100, 50))
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
        ledger.settle(ask(2), Reply("within", 100, 90))
        ledger.settle(ask(0), REPLY)
        assert ledger.spend("unknown").usd == pytest.approx(BILLED_USD)
        assert ledger.spend("reserved").usd == pytest.approx(BILLED_USD)
        assert ledger.spend().usd == pytest.approx(RESERVED_USD + BILLED_USD)


def test_more_input_than_was_estimated_is_an_overrun_too(path):
    with opened(path, usd=0.01) as ledger:
        ledger.reserve(ask(0), 100)
        ledger.settle(ask(0), Reply("", 4100, 90))  # 0.005 instead of 0.001
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


def test_a_ledger_from_before_overruns_were_kept(path):
    with opened(path) as ledger:
        ledger.reserve(ask(0), 100)
        ledger.settle(ask(0), Reply("within", 100, 90))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TABLE overruns")
    with opened(path) as ledger:
        ledger.reserve(ask(1), 100)
        ledger.settle(ask(1), REPLY)
        ledger.reserve(ask(2), 100)
        assert ledger.spend("reserved").usd == pytest.approx(BILLED_USD)
