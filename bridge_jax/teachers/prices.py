"""Money as whole numbers of nanodollars (10^-9 US dollars): sums are exact.

A price of 0.001 dollars per 10^6 tokens is one nanodollar a token, so vendors' prices, which have
two or three decimals, need no rounding at all. Where it is needed, costs go up and caps go down.
"""

import dataclasses
import math
from fractions import Fraction

from bridge_jax.errors import UserError

NANO = 10**9


@dataclasses.dataclass(frozen=True)
class Prices:
    """A price list, US dollars per 10^6 tokens."""

    usd_per_million_input: float
    usd_per_million_output: float

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _exact(getattr(self, field.name), f"teacher.{field.name}")

    def cost(self, input_tokens: int, output_tokens: int) -> int:
        """Returns the nanodollars of one request, rounded up."""
        per_token = NANO // 10**6
        return math.ceil(
            per_token * input_tokens * _exact(self.usd_per_million_input)
            + per_token * output_tokens * _exact(self.usd_per_million_output)
        )


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
