"""How many requests a second the ledger reserves and settles, every change on disk.

python -m benchmarks.ledger --json        (about a minute)

Beside it, in the same run: the same changes with a commit for each, behind a lock, which is what
one would write first. Both keep SQLite's WAL with synchronous=FULL.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bridge_jax.teachers.ledger import Ledger
from bridge_jax.teachers.ledger_writer import Operation, Writer
from bridge_jax.teachers.prices import Prices
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


def _spread(values: list[float]) -> dict[str, float]:
    rounded = [round(value, 2) for value in (statistics.median(values), min(values), max(values))]
    return dict(zip(("median", "low", "high"), rounded))


def measure(folder: Path, pairs: int, repeats: int, say: Callable[[str], None]) -> dict:
    """Returns the result as every benchmark prints it."""
    absolute = {"fsyncs_per_second": round(fsyncs_a_second(folder), 1)}
    ratios = {}
    for threads in (1, 64):
        rates: dict[bool, list[float]] = {False: [], True: []}
        for repeat in range(repeats):
            for commit_each in (False, True):
                place = folder / f"{threads}-{repeat}-{commit_each}"
                rates[commit_each].append(pairs_a_second(place, threads, pairs, commit_each))
        for commit_each, name in ((False, "ledger"), (True, "a commit each")):
            key = f"{name}, {threads} threads" if threads > 1 else f"{name}, 1 thread"
            absolute[f"{key}: pairs_per_second"] = _spread(rates[commit_each])
            say(f"{key}: {_spread(rates[commit_each])} reserve-settle pairs a second")
        ratios[f"ledger / a commit each, {threads} threads"] = _spread(
            [ours / theirs for ours, theirs in zip(rates[False], rates[True])]
        )
    return {
        "name": "ledger",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs",
        "ratios": ratios,
        "absolute": absolute,
        "peak": {"rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024},
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object and nothing else"
    )
    parser.add_argument("--pairs", type=int, default=4000, help="requests per measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", help="on which disk; by default that of temporary files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        say = (lambda _: None) if options.json else print
        result = measure(Path(folder), options.pairs, options.repeats, say)
    print(json.dumps(result, indent=2) if options.json else result["ratios"])


if __name__ == "__main__":
    main()
