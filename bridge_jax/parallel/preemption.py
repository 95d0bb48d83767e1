"""Handles SIGTERM, which Slurm, GKE and TPU VMs send before they take the machine away.

During training the signal is handled at the end of the step, so that the state can be saved; while
parameters are saved, at the end of that. Everywhere else it stops the run at once: finished work is
on the disk already. With several processes, none may leave a computation that the others wait in:
they stop together, at a point that all of them reach.

The state is global because a process has one handler of a signal.
"""

import collections
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command goes on from here.
_notices: list[int] = []  # Signals that arrived while several processes run.
_stops_alone: list[bool] = []
_deferred: list[list[int]] = []  # Signals in each `deferred` block, the outer ones first.


class Preempted(Exception):  # noqa: N818 - a notice, no error
    """The run was asked to stop, and has saved what it had."""


class Lost(Preempted):
    """Another process of the run is gone; started again on all hosts, the run goes on."""


def stop_at_notice() -> None:
    """Makes SIGTERM raise `Preempted` in the main thread, as Ctrl-C raises KeyboardInterrupt.

    To be called again after `jax.distributed.initialize`, which takes the signal for itself.
    """
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, _: Any) -> None:
    if _stops_alone or not jax.distributed.is_initialized() or jax.process_count() == 1:
        raise Preempted
    _notices.append(number)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Lets SIGTERM stop this process at once in the block, which no computation is in.

    The other processes, which wait for this one, are ended by the heartbeat.
    """
    _stops_alone.append(True)
    try:
        if _notices:
            raise Preempted
        yield
    finally:
        _stops_alone.pop()


def stop_together() -> None:
    """Raises `Preempted` on all processes if one of them got SIGTERM; all must call it."""
    if jax.process_count() == 1:
        return
    if multihost_utils.process_allgather(np.int32(len(_notices))).any():
        raise Preempted


def _late_votes() -> Callable[[], bool]:
    """Returns `asked()`, which starts a vote of all processes and returns what the last one found.

    The devices compute a vote after the step that was sent before it. So whoever asks waits for
    the step before that one alone, and the devices have the next one to compute meanwhile. All
    processes read the same vote at the same step.
    """
    mesh = Mesh(np.asarray(jax.devices()), ("all",))
    split, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["all"], []))
    most = jax.jit(jnp.max, out_shardings=everywhere)
    votes: collections.deque[Any] = collections.deque([0])

    def asked() -> bool:
        mine = np.full(jax.local_device_count(), len(_notices), np.int32)
        with jax.set_mesh(mesh):
            votes.append(most(jax.make_array_from_process_local_data(split, mine)))
        return bool(votes.popleft())

    return asked


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Delays SIGTERM until the end of the block, and of the block around it, if there is one.

    Yields:
      `asked()`: whether to save and stop after this step. Of several processes all must call it
        after every step; it returns the same on all, one step after the notice.

    Raises:
      Preempted: the notice came, and the block has ended.
    """
    if jax.process_count() > 1:
        yield _late_votes()
    elif threading.current_thread() is not threading.main_thread():
        yield lambda: False
    else:
        notices = _deferred[-1] if _deferred else []
        before = signal.signal(signal.SIGTERM, lambda number, _: notices.append(number))
        _deferred.append(notices)
        try:
            yield lambda: bool(notices)
        finally:
            _deferred.pop()
            signal.signal(signal.SIGTERM, before)
        if notices and not _deferred:
            raise Preempted
