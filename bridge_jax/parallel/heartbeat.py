"""Ends this process, with a message, when another one of the run is lost.

JAX notices as well, but ends the process from below, with a stack trace for a message. Here every
process counts in a file of its own, in the workdir that all of them see, and reads the others'.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from bridge_jax import atomic, shown
from bridge_jax.parallel import hosts, preemption

FAILED, DONE, STOPPED = "failed", "done", "stopped"
GRACE = 30.0  # Seconds in which those who were stopped together all end.


@contextlib.contextmanager
def together(folder: Path, lost_timeout: float) -> Iterator[None]:
    """Runs the block while the other processes live; with one process, just runs it.

    Args:
      folder: where the files are, on the disk that all processes share.
      lost_timeout: seconds without a sign of life after which a process counts as lost.
    """
    if jax.process_count() == 1:
        yield
        return
    run = hosts.agree(time.time_ns())
    watch = _Watch(folder, str(run), jax.process_index(), jax.process_count(), lost_timeout, _end)
    thread = threading.Thread(target=watch.forever, name="heartbeat", daemon=True)
    thread.start()
    state = FAILED
    try:
        yield
        state = DONE
    except preemption.Preempted:
        state = STOPPED
        raise
    finally:
        watch.stop()
        thread.join()
        watch.say(state)


def _end(message: str, code: int = 2) -> None:
    shown.complain(f"{'' if code == preemption.EXIT_CODE else 'error: '}{message}")
    os._exit(code)  # The main thread waits for the others in a collective: there is no other way.


class _Watch:
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
        self._stopped = threading.Event()
        self._beats = 0
        self._seen = {i: ("", time.monotonic()) for i in range(count) if i != index}

    def forever(self) -> None:
        """Beats and looks, until `stop`."""
        while not self._stopped.wait(min(2.0, self._timeout / 5)):
            self.beat()
            self.look()

    def beat(self) -> None:
        """Counts on."""
        self._beats += 1
        self.say(str(self._beats))

    def stop(self) -> None:
        """Ends `forever`."""
        self._stopped.set()

    def say(self, word: str) -> None:
        """Tells the others that this process lives, or how it has ended."""
        with contextlib.suppress(OSError):  # A full disk is the stages' to report.
            self._folder.mkdir(parents=True, exist_ok=True)
            atomic.replace(self._folder / str(self._index), f"{self._run} {word}")

    def look(self) -> None:
        """Ends this process if another one has failed or is silent for too long."""
        now = time.monotonic()
        for index, (before, since) in list(self._seen.items()):
            said = self._read(index)
            if said == DONE or said != before:
                since = now
            self._seen[index] = (said, since)
            if said == FAILED:
                self._end(f"process {index} of {self._count} has failed; its output says why")
            elif said == STOPPED and now - since > GRACE:
                self._end(
                    f"process {index} of {self._count} was told to stop, and has; the same "
                    "command goes on from here",
                    preemption.EXIT_CODE,
                )
            elif said != STOPPED and now - since > self._timeout:
                self._end(
                    f"process {index} of {self._count} gave no sign of life for "
                    f"{self._timeout:.0f} s (--lost_timeout): its host is gone, or it was killed. "
                    "Run the same command again on all hosts: it goes on from here"
                )

    def _read(self, index: int) -> str:
        """Returns the last word of a process in this run; "" if there is none yet."""
        try:
            run, _, word = (self._folder / str(index)).read_text().partition(" ")
        except OSError:
            return ""
        return word if run == self._run else ""
