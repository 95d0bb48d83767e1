"""Requests that cost more than was reserved for them, and what is reserved from then on.

A vendor that bills more than `max_output_tokens`, or more input than was estimated, breaks what the
caps rest on: that a request costs its reservation at most. From the first such request on, every
reservation for the model is as many times larger as the worst of them was, those of this run that
are in flight or were cut off included. So what can be spent beyond a cap is what was in flight when
the first of them was settled. The ledger keeps this: a run that goes on later knows it, too.

(To stop at the first one would make a vendor unusable that bills a few tokens more than it was
asked for, and would protect the caps no better.)
"""

import logging
import sqlite3

from bridge_jax.ledger.prices import Prices, in_usd

ONE = 1000  # Permille: whole numbers, rounded up.
_MOST = 10**12  # Above any price list, and SQLite's integers hold it.

_log = logging.getLogger(__name__)


def times(connection: sqlite3.Connection, model: str) -> int:
    """Returns what a request to `model` has cost at most, in permille of its reservation."""
    row = connection.execute("SELECT permille FROM overruns WHERE model = ?", (model,)).fetchone()
    return row[0] if row else ONE


def all_of(connection: sqlite3.Connection) -> dict[str, int]:
    """Returns `times` of the models that have cost more than was reserved."""
    # A ledger that is only read may be from before they were kept.
    there = "SELECT 1 FROM sqlite_master WHERE name = 'overruns'"
    if not connection.execute(there).fetchone():
        return {}
    return dict(connection.execute("SELECT model, permille FROM overruns"))


def worst_case(cost: int, permille: int) -> int:
    """Returns what a request may cost that should cost `cost` nanodollars at most."""
    return -(-cost * permille // ONE)


def in_words(model: str, permille: int) -> str:
    """Returns why more is reserved than the price list says; "" where it is not."""
    if permille <= ONE:
        return ""
    return (
        f"; {model} has billed up to {permille / ONE:,.2f} times what was reserved for a request, "
        "so that much is reserved for each now"
    )


def note(
    connection: sqlite3.Connection,
    run: str,
    model: str,
    prices: Prices,
    reserved: tuple[int, int, bool],
    billed: tuple[int, int],
) -> None:
    """Writes down a settlement above its reservation, and raises what is reserved for the model.

    Args:
      connection: to the ledger, in a transaction.
      run: who pays.
      model: that was asked.
      prices: what requests cost.
      reserved: input tokens, output tokens, and whether in a batch job.
      billed: input and output tokens.
    """
    in_batch = reserved[2]
    most, cost = prices.cost(*reserved), prices.cost(*billed, in_batch)
    permille = min(-(-cost * ONE // max(1, most)), _MOST)
    if cost <= most or permille <= times(connection, model):
        return
    connection.execute(
        "INSERT INTO overruns VALUES (?, ?) ON CONFLICT DO UPDATE SET permille = excluded.permille",
        (model, permille),
    )
    rows = connection.execute(
        "SELECT id, input_tokens, output_tokens, batch FROM requests"
        " WHERE run = ? AND model = ? AND state != 'settled'",
        (run, model),
    ).fetchall()
    connection.executemany(
        "UPDATE requests SET nanodollars = max(nanodollars, ?) WHERE id = ?",
        [
            (worst_case(prices.cost(inputs, outputs, bool(batch)), permille), row)
            for row, inputs, outputs, batch in rows
        ],
    )
    _log.warning(
        "%s billed %.6f US dollars for a request that reserved %.6f (%d input and %d output "
        "tokens, where %d and %d were expected at most): from now on %.2f times as much is "
        "reserved for each, and the run stops where a cap does not allow that",
        *(model, in_usd(cost), in_usd(most), *billed, *reserved[:2], permille / ONE),
    )
