"""Defines the error that a user can act on, helpers to raise it, and the notice to stop."""

import difflib
from collections.abc import Iterable
from typing import Any

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h, after a notice: the same command goes on from here.

_LONGEST_SHOWN = 80


class UserError(Exception):
    """Wrong config, data or environment. The message names the thing, the value and the way out.

    The launcher prints it without a traceback and exits with 2.
    """


class Preempted(BaseException):
    """The run was asked to stop (`parallel.preemption`), and has saved what it had.

    It arrives anywhere, as KeyboardInterrupt does, and like that passes any `except Exception`.
    """


class Lost(Preempted):
    """Another process of the run is gone; started again on all hosts, the run continues."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns the one of `names` that is spelled most like `name`; there must be one."""
    return difflib.get_close_matches(name, list(names), n=1, cutoff=0.0)[0]


def require(ok: bool, message: str) -> None:
    """Raises a `UserError` unless `ok`."""
    if not ok:
        raise UserError(message)


def brief(value: Any) -> str:
    """Returns a value for a message; of a long one, the beginning."""
    if isinstance(value, int) and abs(value) > 10**_LONGEST_SHOWN:
        return "a number of very many digits"  # Python refuses to write more than 4,300.
    text = str(value)
    if "://" in text and "@" in text:  # All of it may be a password.
        text = f"{text.partition('://')[0]}://…@{text.rpartition('@')[2]}"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
