"""Handling of SIGTERM, which Slurm, GKE and TPU VMs send before they take the machine away.

During training the signal takes effect at the end of the step, so that the state can be saved.
While parameters are being saved, it takes effect after the save. Everywhere else it stops the run
at once, since finished work is already on disk. With several processes, no process may leave a
collective in which others wait, so all of them stop together, at a point that all reach.

The state is global because a process has one handler per signal.
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

from bridge_jax.errors import EXIT_CODE as EXIT_CODE
from bridge_jax.errors import Preempted as Preempted

_notices: list[int] = []  # Signals received in a run of several processes.
_stops_alone: list[bool] = []
_deferred: list[list[int]] = []  # One entry per open `deferred` block; all are the same list.


def stop_at_notice() -> None:
    """Makes SIGTERM raise `Preempted` in the main thread, as Ctrl-C raises KeyboardInterrupt.

    With several processes the signal is only recorded, except inside `alone`. Call this again after
    `jax.distributed.initialize`, which installs a handler of its own.
    """
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, _: Any) -> None:
    if _stops_alone or not jax.distributed.is_initialized() or jax.process_count() == 1:
        raise Preempted
    _notices.append(number)


@contextlib.contextmanager
def immediately() -> Iterator[None]:
    """Lets SIGTERM stop this process at once within the block, which must run no collective.

    The other processes, which wait for this one, are ended by the heartbeat (`hosts.together`).
    """
    _stops_alone.append(True)
    try:
        if _notices:
            raise Preempted
        yield
    finally:
        _stops_alone.pop()


def stop_together() -> None:
    """Raises `Preempted` on all processes if any received SIGTERM; every process must call it."""
    if jax.process_count() == 1:
        return
    if multihost_utils.process_allgather(np.int32(len(_notices))).any():
        raise Preempted


def _late_votes() -> Callable[[], bool]:
    """Returns `asked()`, which starts a vote of all processes and returns the previous result.

    The devices compute a vote after the step that was dispatched before it. Reading the previous
    vote therefore waits only for the previous step, while the devices compute the current one. All
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
    """Delays SIGTERM until the end of the outermost `deferred` block.

    Yields:
      `asked()`: whether to save and stop after this step. With several processes, all must call it
        after every step; it returns the same on all of them, one step after the signal.

    Raises:
      Preempted: a signal arrived in the block. With several processes nothing is raised here; the
        caller acts on `asked()`.
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
