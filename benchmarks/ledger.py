"""Measures how many requests a second the ledger reserves and settles, every change on disk.

python -m benchmarks.ledger --json        (about a minute)

Beside it, in the same run: a bare SQLite table behind a lock, which is what one would write first,
with the same two commits a request and no caps. Both use SQLite's WAL with synchronous=FULL.
"""

import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.result import Say, result, run, spread
from bridge_jax.ledger.ledger import Ledger
from bridge_jax.ledger.prices import Prices
from bridge_jax.ledger.requests import Message, TeacherReply, TeacherRequest

QUESTION, ANSWER = "Why is the sky blue? " * 20, "Because of Rayleigh scattering. " * 30


def with_ledger(path: Path, threads: int, pairs: int) -> float:
    """Returns how many requests a second `threads` reserve and settle together."""

    def pair(number: int) -> None:
        message = Message("user", f"{number}: {QUESTION}")
        request = TeacherRequest(f"e{number}", "model", (message,), 500)
        assert ledger.reserve(request, 100) is None
        ledger.settle(request, TeacherReply(ANSWER, 100, 200))

    with Ledger(path, pairs, 1e6, Prices(1.0, 10.0)) as ledger:
        rate = _rate(pair, threads, pairs)
        assert ledger.spend().queries == pairs
    return rate


def with_bare_sqlite(path: Path, threads: int, pairs: int) -> float:
    """Returns the same for a table of questions and answers."""
    lock = threading.Lock()

    def pair(number: int) -> None:
        with lock:
            connection.execute(
                "INSERT INTO requests VALUES (?, ?, NULL)", (number, f"{number}: {QUESTION}")
            )
        with lock:
            connection.execute("UPDATE requests SET reply = ? WHERE key = ?", (ANSWER, number))

    with closing(
        sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    ) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE requests (key INTEGER PRIMARY KEY, words, reply)")
        return _rate(pair, threads, pairs)


def _rate(pair: Callable[[int], None], threads: int, pairs: int) -> float:
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        list(pool.map(pair, range(pairs)))
        return pairs / (time.perf_counter() - began)


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
        rates: dict[str, list[float]] = {"ledger": [], "bare SQLite": []}
        for repeat in range(repeats):
            ours, theirs = (folder / f"{name}-{threads}-{repeat}" for name in ("ours", "bare"))
            rates["ledger"].append(with_ledger(ours, threads, pairs))
            rates["bare SQLite"].append(with_bare_sqlite(theirs, threads, pairs))
        for name, found in rates.items():
            key = f"{name}, {threads} threads" if threads > 1 else f"{name}, 1 thread"
            absolute[f"{key}: pairs_per_second"] = spread(found)
            say(f"{key}: {spread(found)} reserve-settle pairs a second")
        ratios[f"ledger / bare SQLite, {threads} threads"] = spread(
            [ours / theirs for ours, theirs in zip(*rates.values())]
        )
    return result("ledger", ratios, absolute)


def main() -> None:
    """Measures and prints."""

    def all_of_it(options: Any, say: Say) -> dict:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            return measure(Path(folder), options.pairs, options.repeats, say)

    run(__doc__ or "", all_of_it, pairs=1000, repeats=3, folder=None)


if __name__ == "__main__":
    main()
