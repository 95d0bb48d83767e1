"""The ledger as coroutines use it: they wait for the disk and for room, and the loop goes on."""

import asyncio
import contextlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest
from fake_teacher import PRICES, ask

from bridge_jax.ledger.ledger import Ledger, RequestInBatchJob
from bridge_jax.ledger.prices import BudgetExceeded
from bridge_jax.ledger.requests import TeacherReply
from bridge_jax.ledger.reservations import Reservations, Stopped

REPLY = TeacherReply("yes", 100, 50)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


def opened(path, queries=9, run=""):
    return Ledger(path, queries, 1.0, PRICES, run)


@pytest.fixture
def reservations():
    """Returns what makes `Reservations` of a ledger."""
    with ThreadPoolExecutor(1) as thread:
        yield lambda ledger, stop: Reservations(ledger, thread, stop)


async def for_a_while(waiting):
    """Lets the loop work while `waiting` waits."""
    for _ in range(20):
        await asyncio.sleep(0.01)
    assert not waiting.done()


def test_what_was_awaited_is_on_disk(path, reservations):
    async def asking():
        ours = reservations(ledger, asyncio.Event())
        assert await asyncio.gather(*[ours.reserve(ask(n), 100) for n in range(4)]) == [None] * 4
        await asyncio.gather(
            ours.settle(ask(0), REPLY),
            ours.release(ask(1)),
            ours.abandon(ask(2)),
        )
        with contextlib.closing(sqlite3.connect(path)) as other:
            rows = other.execute("SELECT example_id, state FROM requests ORDER BY example_id")
            assert rows.fetchall() == [("e0", "settled"), ("e2", "unknown"), ("e3", "reserved")]
        return await ours.reserve(ask(0), 100)

    with opened(path) as ledger:
        assert asyncio.run(asking()) == REPLY


def test_what_is_called_first_is_written_first(path, reservations):
    async def asking():
        ours = reservations(ledger, asyncio.Event())
        await ours.reserve(ask(0), 100)
        # 18.1 times what was reserved.
        settled = asyncio.ensure_future(ours.settle(ask(0), TeacherReply("long", 100, 1800)))
        with pytest.raises(BudgetExceeded, match=r"18\.10 times"):
            await ours.reserve(ask(1), 100)
        await settled

    with Ledger(path, 9, 0.0362 - 1e-9, PRICES) as ledger:
        asyncio.run(asking())
        assert ledger.spend().usd == pytest.approx(0.0181)


def test_while_another_process_writes_the_loop_goes_on(path, reservations):
    async def asking():
        ours = reservations(ledger, asyncio.Event())
        waiting = asyncio.gather(*[ours.reserve(ask(n), 100) for n in range(2)])
        await for_a_while(waiting)
        other.execute("COMMIT")
        return await waiting

    with opened(path) as ledger, contextlib.closing(sqlite3.connect(path)) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        assert asyncio.run(asking()) == [None, None]
        assert ledger.spend("reserved").queries == 2


def test_a_blocking_call_from_the_loop_itself_waits_for_no_coroutine(path, reservations):
    async def asking():
        ours = reservations(ledger, asyncio.Event())
        waiting = asyncio.gather(*[ours.reserve(ask(n), 100) for n in range(8)])
        await asyncio.sleep(0)  # Now the first one's commit may be under way.
        assert ledger.reserve(ask(8), 100) is None
        return await waiting

    with opened(path) as ledger:
        assert asyncio.run(asking()) == [None] * 8


def test_one_waits_while_another_may_leave_room(path, reservations):
    async def asking():
        ours = reservations(ledger, asyncio.Event())
        await ours.reserve(ask(1), 100)
        waiting = asyncio.create_task(ours.reserve(ask(2), 100))
        await for_a_while(waiting)
        await ours.release(ask(1))
        assert await waiting is None
        await ours.settle(ask(2), REPLY)
        with pytest.raises(BudgetExceeded, match=r"budget\.queries=1 is reached"):
            await ours.reserve(ask(3), 100)

    with opened(path, queries=1) as ledger:
        asyncio.run(asking())


def test_one_waits_for_the_same_request_of_another_process(path, reservations):
    async def asking():
        waiting = asyncio.create_task(reservations(one, asyncio.Event()).reserve(ask(1), 100))
        await for_a_while(waiting)
        two.settle(ask(1), REPLY)
        return await waiting

    with opened(path) as one, opened(path) as two:
        two.reserve(ask(1), 100)
        assert asyncio.run(asking()) == REPLY


def test_a_batch_job_is_not_waited_for(path, reservations):
    with opened(path) as ledger:
        ledger.reserve(ask(1), 100, batch=True)
        ledger.begin_job("job", "vendor", [ask(1).key])
        with pytest.raises(RequestInBatchJob, match="vendor's batch job 'job' of this run"):
            asyncio.run(reservations(ledger, asyncio.Event()).reserve(ask(1), 100))


def test_a_run_that_stops_waits_for_nothing(path, reservations):
    async def asking():
        stop = asyncio.Event()
        ours = reservations(ledger, stop)
        await ours.reserve(ask(1), 100)
        waiting = asyncio.create_task(ours.reserve(ask(2), 100))
        await for_a_while(waiting)
        stop.set()
        with pytest.raises(Stopped):
            await waiting
        with pytest.raises(Stopped):
            await ours.reserve(ask(3), 100)

    with opened(path, queries=1) as ledger:
        asyncio.run(asking())
        assert ledger.spend("reserved").queries == 1
