"""Computes costs of requests, and larger reservations where a vendor bills more than reserved.

Amounts are whole numbers of nanodollars (10^-9 US dollars), so sums are exact. A price of 0.001
dollars per 10^6 tokens is one nanodollar per token, so vendors' prices, which have two or three
decimals, need no rounding at all. Where rounding is needed, costs are rounded up and caps down.

**Overruns.** The caps hold because no request costs more than its reservation. A vendor may still
bill more: more output than `max_output_tokens`, or more input than was estimated. After the first
such request, all reservations for the model are multiplied by the largest ratio seen so far of cost
to reservation (at list prices), and so are those of the run's requests that are in flight or were
interrupted. A cap can therefore be exceeded only by requests that are in flight when an overrun
larger than any before it is settled. The ledger keeps the ratio for later runs. (Stopping at the
first overrun would rule out vendors that bill a few tokens more than requested, and would protect
the caps no better.)
"""

import dataclasses
import functools
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

from bridge_jax.errors import UserError

NANO = 10**9
PERMILLE = 1000  # Overruns are in permille of the reservation, as whole numbers rounded up.
MAX_PERMILLE = 10**12  # An upper limit that no price list reaches and SQLite's integers hold.


class BudgetExceeded(UserError):  # noqa: N818
    """The next request could exceed a cap. Nothing was sent."""


class Spend(NamedTuple):
    """Number of requests, and the sums of their tokens and costs."""

    queries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    nanodollars: int = 0

    @property
    def usd(self) -> float:
        """US dollars, for display; only nanodollars are added up."""
        return in_usd(self.nanodollars)

    def to_json(self) -> dict[str, float]:
        """Returns the queries, tokens and US dollars."""
        found: dict[str, float] = self._asdict()
        del found["nanodollars"]
        return found | {"usd": self.usd}

    @classmethod
    def of(cls, spends: Iterable["Spend"]) -> "Spend":
        """Returns the sum of several `Spend`s."""
        return cls(*map(sum, zip(*spends)))


@dataclasses.dataclass(frozen=True)
class Prices:
    """A price list, in US dollars per 10^6 tokens.

    Attributes:
      batch_share: the price in the vendor's batch mode, as a fraction of the list price; 0.5 at
        OpenAI and at Gemini.
    """

    usd_per_million_input: float
    usd_per_million_output: float
    batch_share: float = 0.5

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _exact(getattr(self, field.name), f"teacher.{field.name}")

    def cost(self, input_tokens: int, output_tokens: int, batch: bool = False) -> int:
        """Returns the cost of one request in nanodollars, rounded up."""
        per_million = input_tokens * _exact(self.usd_per_million_input)
        per_million += output_tokens * _exact(self.usd_per_million_output)
        share = _exact(self.batch_share) if batch else 1
        return math.ceil(NANO // 10**6 * share * per_million)


def cap_in_nanodollars(usd: float) -> int:
    """Returns the largest whole number of nanodollars within `usd`."""
    return math.floor(NANO * _exact(usd, "budget.usd"))


def in_usd(nanodollars: int) -> float:
    """Converts nanodollars to US dollars, for reports; never add these up."""
    return nanodollars / NANO


@functools.cache
def _exact(usd: float, name: str = "price") -> Fraction:
    """Returns the decimal number as the user wrote it, not the nearest binary float."""
    if not (math.isfinite(usd) and usd >= 0):
        raise UserError(f"{name}={usd}: must be 0 US dollars or more")
    return Fraction(str(usd))


def worst_case(cost: int, permille: int) -> int:
    """Returns the nanodollars to reserve for a request that costs at most `cost` at list prices."""
    return -(-cost * permille // PERMILLE)


def overrun_in_words(model: str, permille: int) -> str:
    """Explains why reservations exceed the price list; returns "" if they do not."""
    if permille <= PERMILLE:
        return ""
    return (
        f"; {model} has billed up to {permille / PERMILLE:,.2f} times what was reserved for a "
        "request, so that much is now reserved for each"
    )
