"""Prices of requests, the caps of a run, and vendors that bill more than was reserved.

Money is whole numbers of nanodollars (10^-9 US dollars): sums are exact. A price of 0.001
dollars per 10^6 tokens is one nanodollar a token, so vendors' prices, which have two or three
decimals, need no rounding at all. Where it is needed, costs go up and caps go down.

**Overruns.** A vendor that bills more than `max_output_tokens`, or more input than was estimated,
breaks what the caps rest on: that a request costs its reservation at most. From the first such
request on, every reservation for the model is as many times larger as the worst of them was, those
of this run that are in flight or were cut off included. So only what was in flight when the first
of them was settled can be spent beyond a cap. The ledger keeps this for later runs. (To stop at the
first one would make a vendor unusable that bills a few tokens more than it was asked for, and would
protect the caps no better.)
"""

import dataclasses
import functools
import logging
import math
import sqlite3
from fractions import Fraction
from pathlib import Path

from bridge_jax.errors import UserError

NANO = 10**9
ONE = 1000  # Overruns are in permille of the reservation: whole numbers, rounded up.
_MOST = 10**12  # permille; above any price list, and SQLite's integers hold it.

_log = logging.getLogger(__name__)


class BudgetExceeded(UserError):  # noqa: N818
    """The next request could exceed a cap. Nothing was sent."""


@dataclasses.dataclass(frozen=True)
class Spend:
    """Totals. `usd` is for reading; the ledger adds up whole nanodollars."""

    queries: int
    input_tokens: int
    output_tokens: int
    usd: float


@dataclasses.dataclass(frozen=True)
class Prices:
    """A price list, US dollars per 10^6 tokens.

    Attributes:
      batch_share: the price in the vendor's batch mode, as a share of the list price; half of it
        at OpenAI and at Gemini.
    """

    usd_per_million_input: float
    usd_per_million_output: float
    batch_share: float = 0.5

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _exact(getattr(self, field.name), f"teacher.{field.name}")

    def cost(self, input_tokens: int, output_tokens: int, batch: bool = False) -> int:
        """Returns the nanodollars of one request, rounded up."""
        per_million = input_tokens * _exact(self.usd_per_million_input)
        per_million += output_tokens * _exact(self.usd_per_million_output)
        share = _exact(self.batch_share) if batch else 1
        return math.ceil(NANO // 10**6 * share * per_million)


def cap_in_nanodollars(usd: float) -> int:
    """Returns the largest whole number of nanodollars within `usd`."""
    return math.floor(NANO * _exact(usd, "budget.usd"))


def in_usd(nanodollars: int) -> float:
    """Returns US dollars, for reports; never add these up."""
    return nanodollars / NANO


@functools.cache
def _exact(usd: float, name: str = "price") -> Fraction:
    """Returns the decimal number that was written, not the nearest binary one."""
    if not (math.isfinite(usd) and usd >= 0):
        raise UserError(f"{name}={usd}: must be 0 US dollars or more")
    return Fraction(str(usd))


def total(connection: sqlite3.Connection, run: str, state: str) -> Spend:
    """Returns the sums over a run's requests that are `settled`, `reserved` or `unknown`."""
    row = connection.execute(
        "SELECT queries, input_tokens, output_tokens, nanodollars FROM totals"
        " WHERE run = ? AND state = ?",
        (run, state),
    ).fetchone()
    queries, inputs, outputs, nanodollars = row or (0, 0, 0, 0)
    return Spend(queries, inputs, outputs, in_usd(nanodollars))


def _permille(connection: sqlite3.Connection, model: str) -> int:
    """Returns what a request to `model` has cost at most, in permille of its reservation."""
    row = connection.execute("SELECT permille FROM overruns WHERE model = ?", (model,)).fetchone()
    return row[0] if row else ONE


def worst_case(cost: int, permille: int) -> int:
    """Returns what a request may cost that should cost `cost` nanodollars at most."""
    return -(-cost * permille // ONE)


def overrun_in_words(model: str, permille: int) -> str:
    """Returns why more is reserved than the price list says; "" where it is not."""
    if permille <= ONE:
        return ""
    return (
        f"; {model} has billed up to {permille / ONE:,.2f} times what was reserved for a request, "
        "so that much is reserved for each now"
    )


@dataclasses.dataclass(frozen=True)
class Caps:
    """The most that a run may spend.

    Answers count at their cost. Requests in flight, and those that were cut off, of which nobody
    knows whether they were billed, count at their highest possible cost.

    Attributes:
      ledger: its path, for messages.
      queries: requests at most.
      usd: US dollars at most.
    """

    ledger: Path
    queries: int
    usd: float

    def cost_to_reserve(
        self, connection: sqlite3.Connection, run: str, model: str, listed: int
    ) -> int:
        """Returns the nanodollars to reserve for one more request.

        Args:
          connection: to the ledger.
          run: that pays.
          model: that is asked.
          listed: nanodollars that it costs at most, unless the model has billed more than that.

        Raises:
          BudgetExceeded: that does not fit the caps.
        """
        permille = _permille(connection, model)
        cost = worst_case(listed, permille)
        rows = connection.execute(
            "SELECT queries, nanodollars FROM totals WHERE run = ?", (run,)
        ).fetchall()
        if sum(queries for queries, _ in rows) + 1 > self.queries:
            name, exceeded = "budget.queries", f"budget.queries={self.queries} is reached"
        elif sum(nano for _, nano in rows) + cost > cap_in_nanodollars(self.usd):
            name = "budget.usd"
            exceeded = (
                f"the next request may cost up to {in_usd(cost):.6f} US dollars, which "
                f"budget.usd={self.usd} no longer covers"
            )
        else:
            return cost
        settled, reserved, unknown = (
            total(connection, run, state) for state in ("settled", "reserved", "unknown")
        )
        cut_off = (
            f", {unknown.usd:.6f} for {unknown.queries} that were cut off and may have been billed"
            if unknown.queries
            else ""
        )
        raise BudgetExceeded(
            f"{self.ledger}: {exceeded}: spent {settled.usd:.6f} US dollars on {settled.queries} "
            f"answers, reserved {reserved.usd:.6f} for {reserved.queries} requests{cut_off}; raise "
            f"{name} to go on: what is answered is not paid twice"
            f"{overrun_in_words(model, permille)}"
        )


def note_overrun(
    connection: sqlite3.Connection,
    run: str,
    model: str,
    prices: Prices,
    reserved: tuple[int, int, bool],
    billed: tuple[int, int],
) -> None:
    """Records a settlement above its reservation, and raises what is reserved for the model.

    Args:
      connection: to the ledger, in a transaction.
      run: that pays.
      model: that was asked.
      prices: of requests.
      reserved: input tokens, output tokens, and whether in a batch job.
      billed: input and output tokens.
    """
    most, cost = prices.cost(*reserved), prices.cost(*billed, reserved[2])
    permille = min(-(-cost * ONE // max(1, most)), _MOST)
    if cost <= most or permille <= _permille(connection, model):
        return
    connection.execute("INSERT OR REPLACE INTO overruns VALUES (?, ?)", (model, permille))
    for row, inputs, outputs, batch in connection.execute(
        "SELECT id, input_tokens, output_tokens, batch FROM requests"
        " WHERE run = ? AND model = ? AND state != 'settled'",
        (run, model),
    ).fetchall():
        connection.execute(
            "UPDATE requests SET nanodollars = max(nanodollars, ?) WHERE id = ?",
            (worst_case(prices.cost(inputs, outputs, bool(batch)), permille), row),
        )
    _log.warning(
        "%s billed %.6f US dollars for a request that reserved %.6f (%d input and %d output "
        "tokens, where %d and %d were expected at most): from now on %.2f times as much is "
        "reserved for each, and the run stops where a cap does not allow that",
        model, in_usd(cost), in_usd(most), *billed, *reserved[:2], permille / ONE,
    )  # fmt: skip
