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

QUERIES_CAP, USD_CAP, USD_CAP_NANO = 6, 0.000006, 6000
PRICES = Prices(0.003, 0.007)  # 3 and 7 nanodollars a token
NUMBERS = st.integers(0, 6)


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger.sqlite"
        self.settled: dict[int, int] = {}  # request -> nanodollars
        self.held: dict[int, int] = {}  # request -> input tokens estimated
        self.unknown: list[int] = []  # nanodollars at most
        self.open()

    def open(self):
        self.ledger = Ledger(self.path, QUERIES_CAP, USD_CAP, PRICES)

    def teardown(self):
        self.ledger.close()
        self.folder.cleanup()

    def counted(self) -> list[int]:
        """Nanodollars of all that counts towards the caps."""
        held = [3 * tokens + 7 * 90 for tokens in self.held.values()]
        return [*self.settled.values(), *held, *self.unknown]

    @rule(number=NUMBERS, tokens=st.integers(0, 300))
    def reserve(self, number, tokens):
        if number in self.held:
            with pytest.raises(RequestInFlight):
                self.ledger.reserve(ask(number), tokens)
        elif number in self.settled:
            assert self.ledger.reserve(ask(number), tokens) is not None
        elif (
            len(self.counted()) + 1 > QUERIES_CAP
            or sum(self.counted()) + 3 * tokens + 7 * 90 > USD_CAP_NANO
        ):
            with pytest.raises(BudgetExceeded):
                self.ledger.reserve(ask(number), tokens)
        else:
            assert self.ledger.reserve(ask(number), tokens) is None
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
        self.cut_off([number] if number in self.held else [])

    @rule()
    def crash_and_reopen(self):
        self.ledger.close()
        self.cut_off(list(self.held))
        self.open()

    def cut_off(self, numbers):
        self.unknown += [3 * self.held.pop(number) + 7 * 90 for number in numbers]

    @invariant()
    def caps_hold_and_totals_are_those_of_the_rows(self):
        ledger = self.ledger
        totals = [ledger.spend(), ledger.reserved(), ledger.unknown()]
        assert sum(total.queries for total in totals) <= QUERIES_CAP
        assert sum(round(1e9 * total.usd) for total in totals) == sum(self.counted())
        assert sum(self.counted()) <= USD_CAP_NANO
        assert round(1e9 * totals[0].usd) == sum(self.settled.values())
        assert round(1e9 * totals[2].usd) == sum(self.unknown)
        for state, total in zip(("settled", "reserved", "unknown"), totals):
            rows = ledger._connection.execute(
                "SELECT count(*), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0)"
                " FROM requests WHERE state = ?",
                (state,),
            )
            assert rows.fetchone() == (total.queries, total.input_tokens, total.output_tokens)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
