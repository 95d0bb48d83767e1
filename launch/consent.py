"""Asks the user before a teacher is paid: by a question on a terminal, elsewhere by `--yes`."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from absl import flags
from rich.console import Console

from bridge_jax import display
from bridge_jax.errors import UserError
from bridge_jax.ledger import consent
from bridge_jax.ledger.consent import Quote

_YES = flags.DEFINE_bool("yes", False, "Pay the teacher, within the budget, without asking first.")

Confirm = Callable[[Mapping[str, Quote]], None]


def make_confirm(workdir: Path, console: Console) -> Confirm:
    """Returns the function that asks the user to agree to quotes, unless they agreed before.

    It raises a `UserError` if the user does not agree. The agreement is recorded in `workdir`.
    """

    def confirm(quotes: Mapping[str, Quote]) -> None:
        if not consent.missing(workdir, quotes):
            return
        names, queries, usd = consent.total(quotes)
        times = "once" if queries == 1 else f"{queries:,} times"
        what = f"{names} {times}, for at most {usd}"
        if _YES.value:
            display.say(console, f"asking {what} (--yes)")
        elif not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise UserError(
                f"this would ask {what}, but there is no terminal to confirm on; pass --yes, or "
                "see --dry_run"
            )
        elif not _agrees(what):
            raise UserError(
                "no request was sent and nothing was paid; lower budget.queries or budget.usd to "
                "send fewer requests"
            )
        consent.record(workdir, quotes)

    return confirm


def _agrees(what: str) -> bool:
    try:
        answer = input(f"Ask {display.line(what)}? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")
