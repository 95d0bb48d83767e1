"""Where the time of a stage goes: named spans, and what JAX says of its compilations."""

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"
_seconds: defaultdict[str, float] = defaultdict(float)
_counts: Counter[str] = Counter()


def _listen(event: str, duration_secs: float, **_: Any) -> None:
    if event == _COMPILED:
        _seconds["compile"] += duration_secs
        _counts["compilations"] += 1


jax.monitoring.register_event_duration_secs_listener(_listen)


@contextlib.contextmanager
def span(name: str) -> Iterator[None]:
    """Adds the block's seconds to `name`; blocks of one thread, not nested."""
    began = time.perf_counter()
    try:
        yield
    finally:
        _seconds[name] += time.perf_counter() - began


def take() -> dict[str, Any]:
    """Returns what was gathered since the last call: {"compilations": n, "spans": {name: s}}."""
    taken = {"compilations": _counts["compilations"], "spans": dict(_seconds)}
    _seconds.clear()
    _counts.clear()
    return taken
