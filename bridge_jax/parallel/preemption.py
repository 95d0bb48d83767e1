"""The notice that a machine is about to be taken away: SIGTERM, from Slurm, GKE or a TPU VM.

While a model is trained the notice waits for the end of the step, so that the state can be saved;
everywhere else it stops the run at once, since what is done is on the disk already.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command goes on from here.


class Preempted(Exception):  # noqa: N818 - a notice, no error
    """The run was asked to stop, and has saved what it had."""


def stop_at_notice() -> None:
    """Makes SIGTERM raise `Preempted` in the main thread, as Ctrl-C raises KeyboardInterrupt."""
    signal.signal(signal.SIGTERM, _stop)


def _stop(*_: Any) -> None:
    raise Preempted


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[int], bool]]:
    """Lets SIGTERM wait while the block runs.

    Yields:
      `asked(step)`: whether to save and stop after this step. With several processes they all
        hear of it at the same step.
    """
    if jax.process_count() > 1:  # JAX's coordination service listens to the signal.
        yield multihost_utils.reached_preemption_sync_point
    elif threading.current_thread() is not threading.main_thread():
        yield lambda step: False
    else:
        notices: list[int] = []
        before = signal.signal(signal.SIGTERM, lambda number, _: notices.append(number))
        try:
            yield lambda step: bool(notices)
        finally:
            signal.signal(signal.SIGTERM, before)
