"""One commit for many callers, and what one failure does to the others."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fake_teacher import PRICES, ask

from bridge_jax.errors import UserError
from bridge_jax.ledger.ledger import BudgetExceeded, Ledger
from bridge_jax.ledger.ledger_writer import Writer
from bridge_jax.teachers.protocol import Reply


@pytest.fixture
def connection(tmp_path):
    connection = sqlite3.connect(
        tmp_path / "numbers.sqlite", isolation_level=None, check_same_thread=False
    )
    connection.execute("CREATE TABLE numbers (n INTEGER UNIQUE, word TEXT)")
    yield connection
    connection.close()


@pytest.fixture
def commits(connection):
    done = []
    connection.set_trace_callback(lambda sql: done.append(sql) if sql == "COMMIT" else None)
    return done


def insert(number, word=""):
    return lambda c: c.execute("INSERT INTO numbers VALUES (?, ?)", (number, word)).rowcount


def together(writer, operations):
    """Queues the operations while the writer is busy, so that they share a transaction."""
    busy, go_on = threading.Event(), threading.Event()

    def hold(_):
        busy.set()
        go_on.wait(10)

    def outcome(operation):
        try:
            return writer.run(operation)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(operations) + 1) as pool:
        holding = pool.submit(writer.run, hold)
        busy.wait(10)
        futures = [pool.submit(outcome, operation) for operation in operations]
        while writer._queue.qsize() < len(operations):
            threading.Event().wait(0.001)
        go_on.set()
        holding.result()
        return [future.result() for future in futures]


def numbers(connection):
    return {n for (n,) in connection.execute("SELECT n FROM numbers")}


def test_what_is_queued_together_is_one_commit(connection, commits):
    writer = Writer(connection)
    assert together(writer, [insert(n) for n in range(20)]) == [1] * 20
    assert len(commits) == 2  # that of `hold`, and one for all
    writer.close()
    assert numbers(connection) == set(range(20))


def test_an_operation_that_raises_leaves_the_others_alone(connection, commits):
    def refuse(_):
        raise BudgetExceeded("no")

    writer = Writer(connection)
    first, refused, last = together(writer, [insert(1), refuse, insert(2)])
    assert (first, last) == (1, 1) and isinstance(refused, BudgetExceeded)
    assert len(commits) == 2
    writer.close()
    assert numbers(connection) == {1, 2}


def test_what_the_database_refuses_fails_alone(connection):
    writer = Writer(connection)
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    too_long = "word " * 100_000
    outcomes = together(writer, [insert(1), insert(2, too_long), insert(1), insert(3)])
    assert sorted(map(str, outcomes)) == sorted(
        ["1", "1", "UNIQUE constraint failed: numbers.n", "database or disk is full"]
    )
    connection.execute("PRAGMA max_page_count = 100000")
    assert writer.run(insert(2, too_long)) == 1
    writer.close()
    assert numbers(connection) == {1, 2, 3}


def test_what_is_queued_is_written_before_it_closes(connection):
    writer = Writer(connection)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(writer.run, insert(n)) for n in range(50)]
        futures[-1].result()
        writer.close()
    assert numbers(connection) == set(range(50))
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        writer.run(insert(50))


def test_64_threads_share_commits_and_a_full_ledger_stops_none_of_them(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, 400, 1.0, PRICES) as ledger:
        commits, transact = [], ledger._writer._transact
        ledger._writer._transact = lambda operations: (
            commits.append(len(operations)) or transact(operations)
        )

        def pair(number):
            try:
                ledger.reserve(ask(number), 100)
            except BudgetExceeded:
                return 0
            ledger.settle(ask(number), Reply("yes", 100, 50))
            return 1

        with ThreadPoolExecutor(64) as pool:
            assert sum(pool.map(pair, range(500))) == 400
        assert sum(commits) == 900
        assert len(commits) < 900 / 4
        assert ledger.spend().queries == 400


def test_a_locked_ledger_is_named_with_the_way_out(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, 9, 1.0, PRICES) as ledger:
        ledger._connection.execute("PRAGMA busy_timeout = 50")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(ledger.reserve, ask(n), 100) for n in range(4)]
        for future in futures:
            with pytest.raises(UserError, match=r"ledger\.sqlite: .*locked: another process"):
                future.result()
        other.execute("ROLLBACK")
        other.close()
        assert ledger.reserve(ask(0), 100) is None
        assert ledger.spend("reserved").queries == 1
