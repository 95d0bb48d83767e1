r"""Reads mathematical answers, and compares them: `\frac{1}{2}` is 0.5, and {1, 2} is {2, 1}.

The library math-verify does both, by SymPy (the extra `math`). Texts of models are untrusted, and a
short one such as 9^{9^{9^9}} would never end. So it works in another process
(`data.math_worker`), which the operating system ends after a second of processor time: that text
then has no answer. The bound does not depend on the load of the machine, nor on the thread
that asks.
"""

import contextlib
import functools
import importlib.util
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from bridge_jax.data import markup
from bridge_jax.errors import UserError

LONGEST = 500  # characters of an answer
_MOST_WORDS = 2
_KEPT = 50_000  # comparisons that are remembered

_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")
_OPENING = re.compile(r"(?:\$|\\\(|\\\[|\*\*| )+")
_CLOSING = ("$", "\\)", "\\]", "**", " ", ".")


def canonical(text: str) -> str | None:
    r"""Returns an expression without `\boxed{}`, dollars and a full stop; None if it is none.

    A text of over 500 characters, or with more than two words that are no TeX, is none.

    Raises:
      UserError: math-verify is not installed.
    """
    if len(text) > LONGEST:
        return None
    text, before = " ".join(text.split()), ""
    while text != before:
        before = text
        if found := markup.boxes(text):
            _, begin, end = found[-1]
            text = text[begin:end]
        text = text[m.end() :] if (m := _OPENING.match(text)) else text
        for mark in _CLOSING:
            text = text.removesuffix(mark)
    if not text or len(_WORD.findall(text)) > _MOST_WORDS:
        return None
    return text if _ask(text) else None


def equal(gold: str, answer: str) -> bool:
    """Returns whether two canonical expressions have one value.

    Raises:
      UserError: math-verify is not installed.
    """
    return gold == answer or _ask(gold, answer)


def check_installed() -> None:
    """Raises a `UserError` if math-verify is not installed."""
    if importlib.util.find_spec("math_verify") is None:
        raise UserError(
            "data.kind=math needs the math-verify package: pip install 'bridge-jax[math]'"
        )


class _Worker:
    """The process that reads and compares; it is started when it is first needed."""

    def __init__(self):
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, *texts: str) -> bool:
        """Returns what the process says; False if it had to be ended."""
        with self._lock:
            if self._process is None:
                check_installed()
                # Without our package, which would load JAX. With -P this folder is not searched for
                # modules: it has a `numbers`.
                self._process = subprocess.Popen(
                    [sys.executable, "-P", str(Path(__file__).with_name("math_worker.py"))],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            process = self._process
            assert process.stdin and process.stdout
            said = ""
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(texts) + "\n")
                process.stdin.flush()
                said = process.stdout.readline()
            if not said:
                self._process = None
                process.kill()
                process.communicate()
            return said.strip() == "true"


_ask: Callable[..., bool] = functools.lru_cache(maxsize=_KEPT)(_Worker().ask)
