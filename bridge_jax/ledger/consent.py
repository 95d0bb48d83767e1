"""Remembers what a user has agreed to pay a teacher, so that a run that goes on does not ask again.

`consent.json` lies in the workdir of a run, or of a study, which is asked about once as a whole. It
has a line for each key of what is asked: the deep key of the stage. Another selection, another
teacher or another setting of it has another key; prices and caps have not, so the figures are
compared.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bridge_jax import atomic
from bridge_jax.ledger.prices import NANO

FILE = "consent.json"


class Quote(NamedTuple):
    """Holds the highest cost of a teacher that is asked.

    Attributes:
      model: the teacher's name.
      queries: requests.
      nanodollars: their price.
    """

    model: str
    queries: int
    nanodollars: int


def missing(workdir: Path, quotes: Mapping[str, Quote]) -> dict[str, Quote]:
    """Returns those of `quotes`, by key, that the user has not agreed to, nor to higher ones.

    A file that is damaged says nothing: the user is asked again.
    """
    agreed = _read(workdir)
    return {key: quote for key, quote in quotes.items() if not _covers(agreed.get(key), quote)}


def record(workdir: Path, quotes: Mapping[str, Quote]) -> None:
    """Remembers that the user agrees to `quotes`."""
    workdir.mkdir(parents=True, exist_ok=True)
    told = {key: quote._asdict() for key, quote in quotes.items()}
    atomic.write_json(workdir / FILE, _read(workdir) | told)


def total(quotes: Mapping[str, Quote]) -> tuple[str, int, str]:
    """Returns the names of the teachers, the requests, and US dollars in words, rounded up."""
    names = " and ".join(dict.fromkeys(quote.model for quote in quotes.values()))
    nanodollars = sum(quote.nanodollars for quote in quotes.values())
    decimals = 2 if nanodollars >= NANO // 10 else 4
    step = NANO // 10**decimals
    usd = math.ceil(nanodollars / step) / 10**decimals
    return names, sum(quote.queries for quote in quotes.values()), f"${usd:,.{decimals}f}"


def _read(workdir: Path) -> dict[str, dict[str, object]]:
    try:
        found = json.loads((workdir / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _covers(agreed: object, quote: Quote) -> bool:
    if not isinstance(agreed, dict) or agreed.get("model") != quote.model:
        return False
    figures = [(agreed.get(name), getattr(quote, name)) for name in ("queries", "nanodollars")]
    return all(isinstance(most, int) and most >= wanted for most, wanted in figures)
