"""Processes items in batches on threads; errors are raised in item order.

Tokenizing leaves Python's lock, so while one thread tokenizes, another fills in the chat template.
The tokenizers library could use threads of its own, but those do not outlive a fork, and Grain
forks. These end with the work.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bridge_jax import progress
from bridge_jax.errors import UserError

_BATCH = 1024
_LONG = 5_000  # Items from which on progress is shown.

Item = TypeVar("Item")
Made = TypeVar("Made")
Kept = TypeVar("Kept")


def in_batches(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], Made],
    finish: Callable[[Sequence[Item], Made | None], Kept],
    what: str,
) -> list[Kept]:
    """Returns what `finish` makes of each batch, in order.

    Args:
      items: what is worked on.
      work: called in threads, several at a time.
      finish: called here, in order, with a batch and what `work` made of it, or None where that
        raised a `UserError`.
      what: is made, in a few words, for progress.
    """
    batches = [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
    if len(batches) < 2:
        return [finish(batch, _tried(work, batch)) for batch in batches]
    threads = min(len(batches), os.cpu_count() or 1, 16)
    pool = ThreadPoolExecutor(threads)
    bar = progress.track(what, len(items), "texts") if len(items) >= _LONG else _silent()
    try:
        with bar as advance:
            kept = []
            for batch, made in zip(batches, pool.map(lambda batch: _tried(work, batch), batches)):
                kept.append(finish(batch, made))
                advance(len(batch))
            return kept
    finally:
        pool.shutdown(cancel_futures=True)


def _tried(work: Callable[[Sequence[Item]], Made], batch: Sequence[Item]) -> Made | None:
    try:
        return work(batch)
    except UserError:
        return None


@contextlib.contextmanager
def _silent():
    yield lambda count: None
