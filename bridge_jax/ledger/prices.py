"""Money as whole numbers of nanodollars (10^-9 US dollars): sums are exact.

A price of 0.001 dollars per 10^6 tokens is one nanodollar a token, so vendors' prices, which have
two or three decimals, need no rounding at all. Where it is needed, costs go up and caps go down.
"""

import dataclasses
import functools
import math
from fractions import Fraction

from bridge_jax.errors import UserError

NANO = 10**9


@dataclasses.dataclass(frozen=True)
class Prices:
    """A price list, US dollars per 10^6 tokens.

    Attributes:
      batch_share: what a request costs in the vendor's batch mode, as a share of the list price;
        half of it at OpenAI and at Gemini.
    """

    usd_per_million_input: float
    usd_per_million_output: float
    batch_share: float = 0.5

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _exact(getattr(self, field.name), f"teacher.{field.name}")

    def cost(self, input_tokens: int, output_tokens: int, batch: bool = False) -> int:
        """Returns the nanodollars of one request, rounded up."""
        per_input, per_output, unit = _per_token(self)[batch]
        return -(-(input_tokens * per_input + output_tokens * per_output) // unit)


@functools.cache
def _per_token(prices: Prices) -> list[tuple[int, int, int]]:
    """Returns what a token costs at the list price and in batch mode: input, output, and the unit.

    The unit is how many of it are a nanodollar, so that all three are whole numbers.
    """
    listed = (prices.usd_per_million_input, prices.usd_per_million_output)
    result = []
    for share in (Fraction(1), _exact(prices.batch_share)):
        costs = [share * _exact(usd) * NANO / 10**6 for usd in listed]
        unit = math.lcm(*(cost.denominator for cost in costs))
        result.append((int(costs[0] * unit), int(costs[1] * unit), unit))
    return result


def cap_in_nanodollars(usd: float) -> int:
    """Returns the largest whole number of nanodollars within `usd`."""
    return math.floor(NANO * _exact(usd, "budget.usd"))


def in_usd(nanodollars: int) -> float:
    """Returns US dollars, for reports; never add these up."""
    return nanodollars / NANO


def _exact(usd: float, name: str = "price") -> Fraction:
    """Returns the decimal number that was written, not the nearest binary one."""
    if not (math.isfinite(usd) and usd >= 0):
        raise UserError(f"{name}={usd}: must be 0 US dollars or more")
    return Fraction(str(usd))
