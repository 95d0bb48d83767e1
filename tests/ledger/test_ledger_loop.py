"""One commit for many coroutines, and what they do when somebody else writes."""

import asyncio
import contextlib
import sqlite3
import threading

import pytest

from bridge_jax.ledger.ledger_file import connect_at_once
from bridge_jax.ledger.ledger_loop import LoopWriter
from bridge_jax.ledger.ledger_writer import Writer


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "numbers.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE numbers (n INTEGER UNIQUE)")
    return path


@pytest.fixture
def commits():
    return []


@pytest.fixture
def writer(path, commits):
    """A writer for a loop, and behind it one that waits for five seconds."""
    waits = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
    at_once = connect_at_once(path)
    for name, connection in (("waits", waits), ("at once", at_once)):
        connection.set_trace_callback(
            lambda sql, name=name: commits.append(name) if sql == "COMMIT" else None
        )
    other = Writer(waits)
    writer = LoopWriter(at_once, other)
    yield writer
    other.close()
    writer.close()
    waits.close()


def insert(number):
    return lambda c: c.execute("INSERT INTO numbers VALUES (?)", (number,)).rowcount


def refuse(_):
    raise KeyError("no")


def numbers(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {n for (n,) in connection.execute("SELECT n FROM numbers")}


async def all_of(writer, *operations):
    return await asyncio.gather(*map(writer.soon, operations), return_exceptions=True)


def test_what_is_asked_together_is_one_commit(path, writer, commits):
    outcomes = asyncio.run(all_of(writer, insert(1), refuse, insert(2)))
    assert (outcomes[0], str(outcomes[1]), outcomes[2]) == (1, "'no'", 1)
    assert commits == ["at once"]
    assert numbers(path) == {1, 2}


def test_they_are_carried_out_in_order_and_on_disk_when_they_are_awaited(path, writer):
    async def one_after_the_other():
        for n in range(3):
            first, second = writer.soon(insert(n)), writer.soon(lambda c: numbers_of(c))
            assert await first == 1
            assert numbers(path) == set(range(n + 1))
            assert await second == set(range(n + 1))

    def numbers_of(connection):
        return {n for (n,) in connection.execute("SELECT n FROM numbers")}

    asyncio.run(one_after_the_other())


def test_what_the_database_refuses_fails_alone(path, writer, commits):
    outcomes = asyncio.run(all_of(writer, insert(1), insert(2), insert(1), insert(3)))
    assert outcomes[:2] + outcomes[3:] == [1, 1, 1]
    assert isinstance(outcomes[2], sqlite3.IntegrityError)
    assert "at once" not in commits
    assert asyncio.run(all_of(writer, insert(4))) == [1]
    assert commits[-1] == "at once"
    assert numbers(path) == {1, 2, 3, 4}


def test_while_somebody_else_writes_the_loop_goes_on(path, writer, commits):
    async def asking():
        answers = asyncio.create_task(all_of(writer, insert(1), insert(2)))
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert not answers.done()
        other.execute("COMMIT")
        return await answers

    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert asyncio.run(asking()) == [1, 1]
    assert commits == ["waits"]  # one, for both
    other.close()
    assert numbers(path) == {1, 2}


def test_a_blocking_call_from_the_loop_itself_waits_for_no_coroutine(path, writer):
    async def asking():
        before = writer.soon(insert(1))
        await asyncio.sleep(0)  # Now the first one's commit may be under way.
        after = writer.soon(insert(2))
        assert writer._other.run(insert(3)) == 1
        return await before, await after

    assert asyncio.run(asking()) == (1, 1)
    assert numbers(path) == {1, 2, 3}


def test_one_loop_after_the_other_and_none_keeps_another_waiting(path, writer):
    async def leaves():
        writer.soon(insert(1))
        await asyncio.sleep(0)

    asyncio.run(leaves())
    thread = threading.Thread(target=lambda: asyncio.run(all_of(writer, insert(2))))
    thread.start()
    thread.join(10)
    assert numbers(path) >= {2}
