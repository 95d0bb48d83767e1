"""Checks what the docstring of a config says of it: the command, hardware, time and score."""

import ast
import re
from pathlib import Path

DURATION = re.compile(r"\b(min|minutes|hours?)\b")
REVISION = re.compile(r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{7}\b|before the history")
NOT_KNOWN = re.compile(r"\bnot (run|measured)\b", re.IGNORECASE)


def check(path: Path, command: str) -> None:
    """Fails if a docstring lacks the command, hardware, score, duration or revision, or why."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
    assert command in text, "the docstring gives the command"
    assert re.search(r"\b(CPU|TPU|GPU)\b", text), f"{path.name}: names no hardware"
    assert re.search(r"\d%|\bscore\b", text), f"{path.name}: gives no score, nor says none is known"
    assert REVISION.search(text) or NOT_KNOWN.search(text), (
        f'{path.name}: the docstring says neither at which revision it was run nor "not run"'
    )
    assert DURATION.search(text) or NOT_KNOWN.search(text), (
        f'{path.name}: the docstring says neither how long it takes nor "not run" or "not measured"'
    )
