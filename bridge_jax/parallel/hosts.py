"""Multi-process runs: which process writes, barriers, exchanged values, and lost processes.

Every process runs the same stages over its own devices. Only the first process writes rows and
reports and calls the teacher. All processes see the workdir, which is on a shared disk.

When a process is lost, JAX ends the others from native code and prints a stack trace. To tell the
user what happened, every process also writes a counter to its own file in the workdir and reads the
files of the others. When another process stops counting, `together` ends this one with a message.
"""

import contextlib
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from bridge_jax import atomic, display
from bridge_jax.parallel import preemption

FAILED, DONE, STOPPED = "failed", "done", "stopped"
GRACE = 30.0  # Seconds that processes stopped together have to end by themselves.
_LONGEST = 7 * 24 * 3600  # Timeout of a barrier, in seconds.
_barriers = itertools.count()  # Makes the name of each barrier unique.


def is_first() -> bool:
    """Returns whether this process is the one that writes."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits for all processes, so that each can read what any of them wrote before the barrier.

    The wait is on the host. The first process may call the teacher for a day; meanwhile the chips
    of the others run no computation that could time out. A lost process still ends the wait.
    """
    everyone = set(range(jax.process_count()))
    ocp.multihost.sync_global_processes(
        f"{name} {next(_barriers)}", timeout=_LONGEST, processes=everyone
    )


def broadcast(value: Any) -> Any:
    """Returns the first process's `value` (JSON) on all processes."""
    return all_gather(value)[0]


def fetch(tree: Any) -> Any:
    """Returns a tree of sharded arrays as whole NumPy arrays on every process.

    An array that is replicated, or that this process holds completely, needs no communication.
    """

    def whole(array: jax.Array) -> np.ndarray:
        if array.is_fully_addressable or array.is_fully_replicated:
            return np.asarray(array)
        return multihost_utils.process_allgather(array, tiled=True)

    return jax.tree.map(whole, tree)


def all_gather(value: Any) -> list[Any]:
    """Returns the `value` (JSON) of every process, in process order, on all processes."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.int32(len(data)))).reshape(-1)
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(data)] = data
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(sizes), -1)
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes)]


@contextlib.contextmanager
def together(folder: Path, lost_timeout: float) -> Iterator[None]:
    """Runs the block, and ends this process if another process of the run is lost meanwhile.

    Args:
      folder: where the heartbeat files go, on the disk that all processes share.
      lost_timeout: seconds without a heartbeat after which a process counts as lost.
    """
    if jax.process_count() == 1:
        yield
        return
    run = str(broadcast(time.time_ns()))
    heart = Heartbeat(folder, run, jax.process_index(), jax.process_count(), lost_timeout, _end)
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(min(2.0, lost_timeout / 5)):
            heart.beat()
            heart.check()

    thread = threading.Thread(target=watch, name="heartbeat", daemon=True)
    thread.start()
    state = FAILED
    try:
        yield
        state = DONE
    except preemption.Preempted:
        state = STOPPED
        raise
    finally:
        stopped.set()
        thread.join()
        heart.say(state)


def _end(message: str, code: int = 2) -> None:
    display.print_error(f"{'' if code == preemption.EXIT_CODE else 'error: '}{message}")
    os._exit(code)  # The main thread may be blocked in a collective: nothing else ends it.


class Heartbeat:
    """The heartbeat of one process, which writes its own file and reads those of the others.

    Args:
      folder: folder of the heartbeat files.
      run: identifies this run; files of an earlier run are ignored.
      index, count: index of this process, and number of processes.
      lost_timeout: seconds without a heartbeat after which a process counts as lost.
      end: ends this process; called with a message and, if it is not 2, an exit code.
    """

    def __init__(
        self,
        folder: Path,
        run: str,
        index: int,
        count: int,
        lost_timeout: float,
        end: Callable[..., None],
    ):
        self._folder, self._run, self._index, self._count = folder, run, index, count
        self._timeout, self._end = lost_timeout, end
        self._beats = 0
        self._seen = {i: ("", time.monotonic()) for i in range(count) if i != index}

    def beat(self) -> None:
        """Writes the next count."""
        self._beats += 1
        self.say(str(self._beats))

    def say(self, word: str) -> None:
        """Writes the state of this process: a count while it runs, or how it ended."""
        with contextlib.suppress(OSError):  # The stages report a full disk.
            self._folder.mkdir(parents=True, exist_ok=True)
            atomic.replace(self._folder / str(self._index), f"{self._run} {word}")

    def check(self) -> None:
        """Ends this process if another one failed, stopped `GRACE` ago, or is silent too long."""
        now = time.monotonic()
        for index, (before, since) in list(self._seen.items()):
            word = self._read(index)
            if word == DONE or word != before:
                since = now
            self._seen[index] = (word, since)
            if word == FAILED:
                self._end(f"process {index} of {self._count} has failed; its output says why")
            elif word == STOPPED and now - since > GRACE:
                self._end(
                    f"process {index} of {self._count} was asked to stop and has stopped; run the "
                    "same command again to resume",
                    preemption.EXIT_CODE,
                )
            elif word != STOPPED and now - since > self._timeout:
                self._end(
                    f"process {index} of {self._count} sent no heartbeat for "
                    f"{self._timeout:.0f} s (--lost_timeout): its host is down, or it was killed. "
                    "Run the same command again on all hosts to resume",
                    preemption.EXIT_CODE,
                )

    def _read(self, index: int) -> str:
        """Returns the last state that a process wrote in this run; "" if there is none yet."""
        try:
            run, _, word = (self._folder / str(index)).read_text().partition(" ")
        except OSError:
            return ""
        return word if run == self._run else ""
