"""How many requests a second the ledger reserves and settles, every change on disk.

python -m benchmarks.ledger --json        (about a minute)

Beside it, in the same run: the same changes with a commit for each, behind a lock, which is what
one would write first. Both keep SQLite's WAL with synchronous=FULL.
"""

import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.result import Say, result, run, spread
from bridge_jax.ledger.ledger import Ledger
from bridge_jax.ledger.ledger_writer import Operation, Writer
from bridge_jax.ledger.prices import Prices
from bridge_jax.teachers.protocol import Message, Reply, Request

QUESTION, ANSWER = "Why is the sky blue? " * 20, "Because of Rayleigh scattering. " * 30


class _CommitEach(Writer):
    """What the ledger would be without a shared commit."""

    def __init__(self, connection):
        self._connection = connection
        self._one_at_a_time = threading.Lock()

    def run(self, operation: Operation):
        with self._one_at_a_time:
            ((value, error),) = self._transact([operation])
        if error:
            raise error
        return value

    def close(self) -> None:
        pass


def pairs_a_second(folder: Path, threads: int, pairs: int, commit_each: bool) -> float:
    """Returns how many requests a second `threads` reserve and settle together."""
    folder.mkdir()
    with Ledger(folder / "ledger.sqlite", pairs, 1e6, Prices(1.0, 10.0)) as ledger:
        if commit_each:
            ledger._writer.close()
            ledger._writer = _CommitEach(ledger._connection)

        def pair(number: int) -> None:
            message = Message("user", f"{number}: {QUESTION}")
            request = Request(f"e{number}", "model", (message,), 500)
            assert ledger.reserve(request, 100) is None
            ledger.settle(request, Reply(ANSWER, 100, 200))

        with ThreadPoolExecutor(threads) as pool:
            began = time.perf_counter()
            list(pool.map(pair, range(pairs)))
            seconds = time.perf_counter() - began
        assert ledger.spend().queries == pairs
    return pairs / seconds


def fsyncs_a_second(folder: Path, count: int = 200) -> float:
    """Returns how often a second a block can be written to this disk and waited for."""
    with (folder / "fsync").open("wb", buffering=0) as file:
        began = time.perf_counter()
        for _ in range(count):
            file.write(bytes(4096))
            os.fsync(file.fileno())
    return count / (time.perf_counter() - began)


def measure(folder: Path, pairs: int, repeats: int, say: Say) -> dict:
    """Returns the result as every benchmark prints it."""
    absolute: dict[str, Any] = {"fsyncs_per_second": round(fsyncs_a_second(folder), 1)}
    ratios = {}
    for threads in (1, 64):
        rates: dict[bool, list[float]] = {False: [], True: []}
        for repeat in range(repeats):
            for commit_each in (False, True):
                place = folder / f"{threads}-{repeat}-{commit_each}"
                rates[commit_each].append(pairs_a_second(place, threads, pairs, commit_each))
        for commit_each, name in ((False, "ledger"), (True, "a commit each")):
            key = f"{name}, {threads} threads" if threads > 1 else f"{name}, 1 thread"
            absolute[f"{key}: pairs_per_second"] = spread(rates[commit_each])
            say(f"{key}: {spread(rates[commit_each])} reserve-settle pairs a second")
        ratios[f"ledger / a commit each, {threads} threads"] = spread(
            [ours / theirs for ours, theirs in zip(rates[False], rates[True])]
        )
    return result("ledger", ratios, absolute)


def main() -> None:
    """Measures and prints."""

    def all_of_it(options: Any, say: Say) -> dict:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            return measure(Path(folder), options.pairs, options.repeats, say)

    run(__doc__ or "", all_of_it, pairs=4000, repeats=5, folder=None)


if __name__ == "__main__":
    main()
