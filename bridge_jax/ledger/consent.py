"""Records what a user has agreed to pay a teacher, so that a resumed run does not ask again.

`consent.json` is in the workdir of a run, or of a study (the user is asked once for all its runs).
Its keys are the joined deep keys of a run's stages that ask a teacher. Another selection, teacher
or teacher setting changes the key. Prices and caps do not, so the recorded figures are compared.
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
    """The highest possible cost of asking a teacher.

    Attributes:
      model: the teacher's name.
      queries: the largest number of requests.
      nanodollars: their highest total cost.
    """

    model: str
    queries: int
    nanodollars: int


def missing(workdir: Path, quotes: Mapping[str, Quote]) -> dict[str, Quote]:
    """Returns the quotes, by key, that no recorded consent covers.

    Consent covers the same model at the same or lower figures. If the file is damaged, it covers
    nothing, and the user is asked again.
    """
    agreed = _read(workdir)
    return {key: quote for key, quote in quotes.items() if not _covers(agreed.get(key), quote)}


def record(workdir: Path, quotes: Mapping[str, Quote]) -> None:
    """Records that the user agrees to `quotes`."""
    workdir.mkdir(parents=True, exist_ok=True)
    told = {key: quote._asdict() for key, quote in quotes.items()}
    atomic.write_json(workdir / FILE, _read(workdir) | told)


def total(quotes: Mapping[str, Quote]) -> tuple[str, int, str]:
    """Returns the teachers' names, the number of requests, and US dollars as text, rounded up."""
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
