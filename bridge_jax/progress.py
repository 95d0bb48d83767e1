"""Shows the progress of long loops: a bar in a terminal, a plain line every 10 s elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from bridge_jax import display
from bridge_jax.parallel import hosts

SECONDS_BETWEEN_LINES = 10.0

Advance = Callable[..., None]


@contextlib.contextmanager
def track(description: str, total: int, unit: str) -> Iterator[Advance]:
    """Shows progress on stderr while the block runs.

    >>> with track("assistant", total=120, unit="steps") as advance:  # doctest: +SKIP
    ...     for batch in batches:
    ...         advance(loss=train(batch))

    Args:
      description: a word or two.
      total: the number of units.
      unit: the plural of the unit.

    Yields:
      `advance(n=1, **info)`: reports that n more units are done; the latest value of each `info`
        entry is shown with them. Only one block may be active at a time.
    """
    if not hosts.is_first():
        yield lambda n=1, **info: None
    elif sys.stderr.isatty():
        yield from _bar(description, total, unit)
    else:
        yield from _lines(description, total, unit)


def duration(seconds: float) -> str:
    """Returns a length of time in words, such as "0.4 s", "38 s", "4 min 05 s", "2 h 10 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _bar(description: str, total: int, unit: str) -> Iterator[Advance]:
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[info]}", markup=False),
        console=Console(stderr=True),
    )
    with progress:
        task = progress.add_task(display.line(description), total=total, unit=unit, info="")
        last: dict[str, Any] = {}

        def advance(n: int = 1, **info: Any) -> None:
            last.update(info)
            progress.update(task, advance=n, info=display.line(_words(last)))

        yield advance


class _RateColumn(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{_number(speed)} {task.fields['unit']}/s" if speed else "")


def _lines(description: str, total: int, unit: str) -> Iterator[Advance]:
    start = printed = time.monotonic()
    done = 0
    last: dict[str, Any] = {}

    def say(*parts: str) -> None:
        display.print_error(display.line("  ".join(part for part in parts if part)))

    def advance(n: int = 1, **info: Any) -> None:
        nonlocal done, printed
        done += n
        last.update(info)
        now = time.monotonic()
        if now - printed < SECONDS_BETWEEN_LINES:
            return
        printed = now
        rate = done / (now - start)
        left = f"{duration((total - done) / rate)} left" if 0 < done < total else ""
        say(
            f"{description} {done}/{total} {unit}",
            f"{_number(rate)} {unit}/s",
            left,
            _words(last),
        )

    finished = False
    try:
        yield advance
        finished = True
    finally:
        seconds = time.monotonic() - start
        rate = f"{_number(done / seconds)} {unit}/s" if done and seconds > 0 else ""
        state = "in" if finished else "stopped after"
        say(f"{description} {done}/{total} {unit} {state} {duration(seconds)}", rate, _words(last))


def _words(info: dict[str, Any]) -> str:
    return " ".join(
        f"{key}={_number(value) if isinstance(value, float) else value}"
        for key, value in info.items()
    )


def _number(value: float) -> str:
    # Three significant digits; from 1,000 on all digits, not scientific notation.
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
