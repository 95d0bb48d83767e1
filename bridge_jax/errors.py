"""Defines the error that a user can act on, helpers to raise it, and the signal to stop."""

import difflib
from collections.abc import Iterable
from typing import Any

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h, after SIGTERM: the same command resumes.

_LONGEST_SHOWN = 80


class UserError(Exception):
    """Wrong config, data or environment. The message names the thing, its value and what to do.

    The launcher prints it without a traceback and exits with 2.
    """


class Preempted(BaseException):
    """The run was asked to stop (`parallel.preemption`), and has saved its state.

    It can be raised anywhere, like KeyboardInterrupt, and is likewise not caught by
    `except Exception`.
    """


class Lost(Preempted):
    """Another process of the run is gone; the run resumes when started again on all hosts."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns the name in `names`, which is not empty, that is spelled most like `name`."""
    return difflib.get_close_matches(name, list(names), n=1, cutoff=0.0)[0]


def require(ok: bool, message: str) -> None:
    """Raises a `UserError` unless `ok`."""
    if not ok:
        raise UserError(message)


def brief(value: Any) -> str:
    """Returns a value as text for a message; a long one is cut off."""
    if isinstance(value, int) and abs(value) > 10**_LONGEST_SHOWN:
        return "a number of very many digits"  # Python refuses to convert more than 4,300 digits.
    text = str(value)
    if "://" in text and "@" in text:  # Everything between them may be a password.
        text = f"{text.partition('://')[0]}://…@{text.rpartition('@')[2]}"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
