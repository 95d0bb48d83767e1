"""Whatever the order of events, the caps hold and the totals match a plain model."""

import tempfile
from pathlib import Path

import pytest
from fake_teacher import ask
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bridge_jax.teachers.ledger import BudgetExceeded, Ledger, RequestInFlight
from bridge_jax.teachers.prices import Prices
from bridge_jax.teachers.protocol import Reply

QUERIES_CAP, USD_CAP = 4, 0.0000035
PRICES = Prices(0.003, 0.007)  # 3 and 7 nanodollars a token
NUMBERS = st.integers(0, 6)


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger.sqlite"
        self.settled: dict[int, int] = {}  # request -> nanodollars
        self.held: dict[int, int] = {}  # request -> input tokens estimated
        self.orphans: dict[int, int] = {}
        self.open()

    def open(self):
        self.ledger = Ledger(self.path, QUERIES_CAP, USD_CAP, PRICES)

    def teardown(self):
        self.ledger.close()
        self.folder.cleanup()

    def reserved_nanodollars(self, leave_out: int | None = None) -> int:
        return sum(
            3 * tokens + 7 * 90
            for number, tokens in (self.held | self.orphans).items()
            if number != leave_out
        )

    @rule(number=NUMBERS, tokens=st.integers(0, 300))
    def reserve(self, number, tokens):
        if number in self.held:
            with pytest.raises(RequestInFlight):
                self.ledger.reserve(ask(number), tokens)
        elif number in self.settled:
            assert self.ledger.reserve(ask(number), tokens) is not None
        else:
            total = sum(self.settled.values()) + self.reserved_nanodollars(number)
            count = len(self.settled | self.held | self.orphans | {number: 0})
            if count > QUERIES_CAP or total + 3 * tokens + 7 * 90 > 3500:
                with pytest.raises(BudgetExceeded):
                    self.ledger.reserve(ask(number), tokens)
            else:
                assert self.ledger.reserve(ask(number), tokens) is None
                self.orphans.pop(number, None)
                self.held[number] = tokens

    @rule(data=st.data(), output_tokens=st.integers(0, 90))
    def settle(self, data, output_tokens):
        if self.held:
            number = data.draw(st.sampled_from(sorted(self.held)))
            tokens = self.held.pop(number)
            self.ledger.settle(ask(number), Reply("r", tokens, output_tokens))
            self.settled[number] = 3 * tokens + 7 * output_tokens

    @rule(number=NUMBERS)
    def release(self, number):
        self.ledger.release(ask(number))
        self.held.pop(number, None)

    @rule(number=NUMBERS)
    def abandon(self, number):
        self.ledger.abandon(ask(number))
        if number in self.held:
            self.orphans[number] = self.held.pop(number)

    @rule()
    def crash_and_reopen(self):
        self.ledger.close()
        self.orphans |= self.held
        self.held = {}
        self.open()

    @invariant()
    def caps_hold(self):
        spent, reserved = self.ledger.spend(), self.ledger.reserved()
        assert spent.queries + reserved.queries <= QUERIES_CAP
        assert round(1e9 * spent.usd) + round(1e9 * reserved.usd) <= 3500
        assert round(1e9 * spent.usd) == sum(self.settled.values())
        assert round(1e9 * reserved.usd) == self.reserved_nanodollars()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
