"""The caps of one run: what counts towards them, and the refusal when they are reached."""

import dataclasses
import functools
import sqlite3
from typing import Any

from bridge_jax.errors import UserError
from bridge_jax.ledger.prices import cap_in_nanodollars, in_usd


class BudgetExceeded(UserError):  # noqa: N818
    """The next request could exceed a cap. Nothing was sent."""


@dataclasses.dataclass(frozen=True)
class Spend:
    """Totals. `usd` is for reading; the ledger adds up whole nanodollars."""

    queries: int
    input_tokens: int
    output_tokens: int
    usd: float


def total(connection: sqlite3.Connection, run: str, state: str) -> Spend:
    """Returns the sums over a run's requests that are `settled`, `reserved` or `unknown`."""
    row = connection.execute(
        "SELECT queries, input_tokens, output_tokens, nanodollars FROM totals"
        " WHERE run = ? AND state = ?",
        (run, state),
    ).fetchone()
    queries, inputs, outputs, nano = row or (0, 0, 0, 0)
    return Spend(queries, inputs, outputs, in_usd(nano))


def bill(connection: sqlite3.Connection, run: str, of_others: Spend) -> dict[str, Any]:
    """Returns what `Ledger.bill` does."""
    no_answer = connection.execute(
        "SELECT finish, count(*) FROM requests"
        " WHERE run = ? AND state = 'settled' AND finish != 'stop' GROUP BY finish",
        (run,),
    ).fetchall()
    unknown = total(connection, run, "unknown")
    parts = {
        "no_answer": dict(no_answer),
        "unknown": {"queries": unknown.queries, "usd": unknown.usd},
        "of_others": dataclasses.asdict(of_others),
    }
    there = {name: part for name, part in parts.items() if any(part.values())}
    return dataclasses.asdict(total(connection, run, "settled")) | there


@dataclasses.dataclass(frozen=True)
class Caps:
    """What a run may spend.

    Answers count at their cost. Requests in flight, and those that were cut off, of which nobody
    knows whether they were billed, count at their highest possible cost.

    Attributes:
      queries: requests at most.
      usd: US dollars at most.
    """

    queries: int
    usd: float

    @functools.cached_property
    def nanodollars(self) -> int:
        """The cap as the ledger counts."""
        return cap_in_nanodollars(self.usd)

    def check(self, connection: sqlite3.Connection, run: str, cost: int) -> None:
        """Raises `BudgetExceeded` if one more request of `cost` nanodollars does not fit."""
        totals = "FROM totals WHERE run = ?"
        queries, nano = connection.execute(
            f"SELECT ifnull(sum(queries), 0), ifnull(sum(nanodollars), 0) {totals}", (run,)
        ).fetchone()
        if queries + 1 > self.queries:
            name, exceeded = "budget.queries", f"budget.queries={self.queries} is reached"
        elif nano + cost > self.nanodollars:
            name = "budget.usd"
            exceeded = (
                f"the next request may cost up to {in_usd(cost):.6f} US dollars, which "
                f"budget.usd={self.usd} no longer covers"
            )
        else:
            return
        rows = connection.execute(f"SELECT state, queries, nanodollars {totals}", (run,))
        by_state = {state: (queries, nano) for state, queries, nano in rows}
        (settled, spent), (reserved, held), (unknown, feared) = (
            by_state.get(state, (0, 0)) for state in ("settled", "reserved", "unknown")
        )
        cut_off = (
            f", {in_usd(feared):.6f} for {unknown} that were cut off and may have been billed"
            if unknown
            else ""
        )
        raise BudgetExceeded(
            f"{exceeded}: spent {in_usd(spent):.6f} US dollars on {settled} answers, reserved "
            f"{in_usd(held):.6f} for {reserved} requests{cut_off}; raise {name} to go on: what is "
            f"answered is not paid twice"
        )
