"""Whatever the order of events, the caps hold and the totals match a plain model."""

import math
import tempfile
from pathlib import Path

import pytest
from fake_teacher import ask
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bridge_jax.ledger.ledger import Ledger, RequestInFlight
from bridge_jax.ledger.prices import BudgetExceeded, Prices
from bridge_jax.ledger.requests import TeacherReply

QUERIES_CAP, USD_CAP, USD_CAP_NANO = 6, 0.000006, 6000
PRICES = Prices(0.003, 0.007)  # 3 and 7 nanodollars a token
NUMBERS = st.integers(0, 6)
# 90 are reserved; now and then a vendor bills more.
OUTPUT = st.integers(0, 90) | st.integers(0, 90) | st.integers(0, 90) | st.integers(91, 300)


def half(nanodollars: int) -> int:
    """What a request costs in a batch job."""
    return (nanodollars + 1) // 2


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger.sqlite"
        self.settled: dict[int, int] = {}  # request -> nanodollars
        self.held: dict[int, int] = {}  # request -> input tokens estimated
        self.unknown: list[tuple[int, bool]] = []  # input tokens estimated, whether in a job
        self.permille = 1000  # of its reservation that a request has cost at most
        self.batch: dict[int, int] = {}  # reserved for a job: request -> input tokens estimated
        self.jobs: dict[str, dict[int, int]] = {}
        self.names: list[str] = []
        self.open()

    def open(self):
        self.ledger = Ledger(self.path, QUERIES_CAP, USD_CAP, PRICES)

    def teardown(self):
        self.ledger.close()
        self.folder.cleanup()

    def counted(self) -> list[int]:
        """Nanodollars of all that counts towards the caps."""
        held = [(tokens, False) for tokens in self.held.values()]
        batch = [(tokens, True) for tokens in self.in_batches().values()]
        most = [self.most(*tokens) for tokens in (*held, *batch, *self.unknown)]
        return [*self.settled.values(), *most]

    def most(self, tokens: int, batch: bool) -> int:
        """Returns the nanodollars that a request reserves."""
        cost = 3 * tokens + 7 * 90
        return math.ceil((half(cost) if batch else cost) * self.permille / 1000)

    def pay(self, number: int, tokens: int, output_tokens: int, batch: bool):
        """Settles a request, which may cost more than it reserved."""
        self.ledger.settle(ask(number), TeacherReply("r", tokens, output_tokens))
        cost, most = 3 * tokens + 7 * output_tokens, 3 * tokens + 7 * 90
        cost, most = (half(cost), half(most)) if batch else (cost, most)
        self.settled[number] = cost
        self.permille = max(self.permille, math.ceil(1000 * cost / most))

    def in_batches(self) -> dict[int, int]:
        return {
            number: n for part in (self.batch, *self.jobs.values()) for number, n in part.items()
        }

    @rule(number=NUMBERS, tokens=st.integers(0, 300), batch=st.booleans())
    def reserve(self, number, tokens, batch):
        cost = self.most(tokens, batch)
        if number in self.held | self.in_batches():
            with pytest.raises(RequestInFlight):
                self.ledger.reserve(ask(number), tokens, batch)
        elif number in self.settled:
            assert self.ledger.reserve(ask(number), tokens, batch) is not None
        elif len(self.counted()) + 1 > QUERIES_CAP or sum(self.counted()) + cost > USD_CAP_NANO:
            with pytest.raises(BudgetExceeded):
                self.ledger.reserve(ask(number), tokens, batch)
        else:
            assert self.ledger.reserve(ask(number), tokens, batch) is None
            (self.batch if batch else self.held)[number] = tokens

    @rule()
    def begin_job(self):
        if self.batch:
            name = f"job-{len(self.names)}"
            self.names.append(name)
            self.ledger.begin_job(name, "vendor", [ask(number).key for number in self.batch])
            self.jobs[name], self.batch = self.batch, {}

    @rule(data=st.data(), output_tokens=OUTPUT, how=st.sampled_from(["settle", "release"]))
    def collect_one(self, data, output_tokens, how):
        numbers = sorted(number for job in self.jobs.values() for number in job)
        if not numbers:
            return
        number = data.draw(st.sampled_from(numbers))
        (job,) = [job for job in self.jobs.values() if number in job]
        tokens = job.pop(number)
        if how == "release":
            self.ledger.release(ask(number))
        else:
            self.pay(number, tokens, output_tokens, True)

    @rule()
    def close_oldest_job(self):
        if self.jobs:
            name = next(iter(self.jobs))
            left = self.jobs.pop(name)
            assert self.ledger.close_job(name) == len(left)
            self.unknown += [(tokens, True) for tokens in left.values()]

    @rule(data=st.data(), output_tokens=OUTPUT)
    def settle(self, data, output_tokens):
        if self.held:
            number = data.draw(st.sampled_from(sorted(self.held)))
            tokens = self.held.pop(number)
            self.pay(number, tokens, output_tokens, False)

    @rule(number=NUMBERS)
    def release(self, number):
        self.ledger.release(ask(number))
        self.forget(number)

    @rule(number=NUMBERS)
    def abandon(self, number):
        if number in self.held:
            self.cut_off([number])
        elif number in self.in_batches() and number not in self.batch:
            self.unknown.append((self.in_batches()[number], True))
        self.forget(number)
        self.ledger.abandon(ask(number))

    @rule()
    def crash_and_reopen(self):
        self.ledger.close()
        self.cut_off(list(self.held))
        self.batch = {}  # never sent
        self.open()
        assert [
            (job.name, {request.example_id for request in job.waiting})
            for job in self.ledger.open_jobs()
        ] == [(name, {f"e{number}" for number in job}) for name, job in self.jobs.items()]

    def forget(self, number):
        for part in (self.held, self.batch, *self.jobs.values()):
            part.pop(number, None)

    def cut_off(self, numbers):
        self.unknown += [(self.held.pop(number), False) for number in numbers]

    @invariant()
    def caps_hold_and_totals_are_those_of_the_rows(self):
        ledger = self.ledger
        totals = [ledger.spend(), ledger.spend("reserved"), ledger.spend("unknown")]
        assert sum(total.queries for total in totals) <= QUERIES_CAP
        assert sum(round(1e9 * total.usd) for total in totals) == sum(self.counted())
        # Beyond a cap goes only what was in flight when a request first cost more than reserved.
        assert sum(self.counted()) <= USD_CAP_NANO or self.permille > 1000
        assert round(1e9 * totals[0].usd) == sum(self.settled.values())
        assert round(1e9 * totals[2].usd) == sum(self.most(*tokens) for tokens in self.unknown)
        for state, total in zip(("settled", "reserved", "unknown"), totals):
            rows = ledger._database.connection.execute(
                "SELECT count(*), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0)"
                " FROM requests WHERE state = ?",
                (state,),
            )
            assert rows.fetchone() == (total.queries, total.input_tokens, total.output_tokens)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
