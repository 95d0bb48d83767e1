r"""Reads mathematical answers, and compares them: `\frac{1}{2}` is 0.5, and {1, 2} is {2, 1}.

The library math-verify (the extra `math`) does both, with SymPy. Texts from models are untrusted,
and a short one such as 9^{9^{9^9}} would take forever. So the library runs in another process
(`data.math_worker`), which the operating system ends after a second of CPU time; the text then has
no answer. The limit depends neither on the load of the machine nor on the thread that asks.
"""

import contextlib
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from bridge_jax.data import markup
from bridge_jax.errors import UserError

LONGEST = 500  # characters of an answer
_MOST_WORDS = 2  # in an expression, such as a unit; a sentence has more
_KEPT = 50_000  # calls whose results are cached

_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")
_OPENING = re.compile(r"(?:\$|\\\(|\\\[|\*\*| )+")
_CLOSING = ("$", "\\)", "\\]", "**", " ", ".")


def canonical(text: str) -> str | None:
    r"""Returns an expression without `\boxed{}`, dollar signs and period; None if it is not one.

    A text of over 500 characters, or with more than two words besides TeX commands, is not an
    expression.

    Raises:
      UserError: math-verify is not installed, or does not start.
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
    """Returns whether two canonical expressions have the same value.

    Raises:
      UserError: math-verify is not installed, or does not start.
    """
    return gold == answer or _ask(gold, answer)


def check_installed() -> None:
    """Raises a `UserError` if math-verify is not installed."""
    if importlib.util.find_spec("math_verify") is None:
        raise UserError(
            "data.kind=math needs the math-verify package: pip install 'bridge-jax[math]'"
        )


class _Worker:
    """Runs the worker process, which is started when it is first needed."""

    def __init__(self):
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, *texts: str) -> bool:
        """Returns the answer of the process; False if the operating system ended it."""
        with self._lock:
            if self._process is None:
                self._process = _start()
            process = self._process
            assert process.stdin and process.stdout
            said = ""
            try:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(json.dumps(texts) + "\n")
                    process.stdin.flush()
                    said = process.stdout.readline()
            finally:
                # After Ctrl-C too, or the next question would get the answer to this one.
                if not said.endswith("\n"):
                    self._process = None
                    process.kill()
                    process.communicate()
            return said.strip() == "true"


def _start() -> subprocess.Popen[str]:
    """Starts the worker process, and waits until it can answer.

    Raises:
      UserError: math-verify is not installed, or cannot be imported.
    """
    check_installed()
    # The worker does not import our package, which would load JAX. -P keeps this folder out of the
    # search for modules, since it has a module `numbers`.
    process = subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("math_worker.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ.get("PATH", "")},  # It reads untrusted text, so it gets no keys.
        text=True,
    )
    assert process.stdout
    if process.stdout.readline().strip() != "ready":
        process.kill()
        process.communicate()
        raise UserError(
            "data.kind=math: math-verify does not start; python -c 'import math_verify' may say why"
        )
    return process


_ask: Callable[..., bool] = functools.lru_cache(maxsize=_KEPT)(_Worker().ask)
