"""Measures the time of a stage: named spans, and the compilations that JAX reports."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"


class Spans:
    """Sums seconds by name until the next `take`; `pipeline.execution` passes one to each stage."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._compilations = 0

    @contextlib.contextmanager
    def compilations(self) -> Iterator[None]:
        """Counts JAX's compilations in the block, and adds their seconds to the span "compile"."""
        jax.monitoring.register_event_duration_secs_listener(self._count)
        try:
            yield
        finally:
            jax.monitoring.unregister_event_duration_listener(self._count)

    @contextlib.contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Adds the block's seconds to `name`. Blocks must be in one thread, and not nested.

        The seconds of compilations in the block count only as "compile".
        """
        began, compiled = time.perf_counter(), self._seconds.get("compile", 0.0)
        try:
            yield
        finally:
            compiled = self._seconds.get("compile", 0.0) - compiled
            self._seconds[name] += max(0.0, time.perf_counter() - began - compiled)

    def take(self) -> dict[str, Any]:
        """Returns {"compilations": n, "spans": {name: seconds}} since the last call."""
        taken = {"compilations": self._compilations, "spans": dict(self._seconds)}
        self._seconds.clear()
        self._compilations = 0
        return taken

    def _count(self, event: str, duration_secs: float, **_: Any) -> None:
        if event == _COMPILED:
            self._seconds["compile"] += duration_secs
            self._compilations += 1
