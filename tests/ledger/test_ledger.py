import dataclasses
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fake_teacher import PRICES, RESERVED_USD, ask

from bridge_jax.errors import UserError
from bridge_jax.ledger import database
from bridge_jax.ledger.ledger import Ledger, RequestInFlight
from bridge_jax.ledger.prices import BudgetExceeded, Spend
from bridge_jax.ledger.requests import Message, TeacherReply, TeacherRequest

REPLY = TeacherReply("yes \ud800\x00 ✓", 100, 50)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "ledger.sqlite"


def open_ledger(path, queries=100, usd=1.0):
    return Ledger(path, queries, usd, PRICES)


def test_reserve_then_settle(path):
    with open_ledger(path) as ledger:
        assert ledger.reserve(ask(1), 100) is None
        assert ledger.spend("reserved") == Spend(1, 100, 90, 1_000_000)
        assert ledger.spend() == Spend(0, 0, 0, 0)
        ledger.settle(ask(1), REPLY)
        assert ledger.spend("reserved") == Spend(0, 0, 0, 0)
        assert ledger.spend() == Spend(1, 100, 50, 600_000)


def test_a_settled_request_is_free_for_ever(path):
    with open_ledger(path, queries=1) as ledger:
        ledger.reserve(ask(1), 100)
        ledger.settle(ask(1), REPLY)
    with open_ledger(path, queries=1) as ledger:
        assert ledger.reserve(dataclasses.replace(ask(1), example_id="other"), 100) == REPLY
        assert ledger.spend().queries == 1


def test_it_is_kept_in_wal_mode_and_nothing_lies_around(path):
    with open_ledger(path) as ledger:
        ledger.reserve(ask(1), 100)
        assert ledger._database.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert ledger._database.connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert [file.name for file in path.parent.iterdir()] == ["ledger.sqlite"]


def test_released_requests_leave_their_room(path):
    with open_ledger(path, queries=1) as ledger:
        ledger.reserve(ask(1), 100)
        ledger.release(ask(1))
        assert ledger.reserve(ask(2), 100) is None


def test_queries_cap(path):
    with open_ledger(path, queries=2) as ledger:
        ledger.reserve(ask(1), 100)
        ledger.settle(ask(1), REPLY)
        ledger.reserve(ask(2), 100)
        message = (
            r"budget\.queries=2 is reached: spent 0\.000600 US dollars on 1 answers, "
            r"reserved 0\.001000 for 1 requests; raise budget\.queries"
        )
        with pytest.raises(BudgetExceeded, match=message):
            ledger.reserve(ask(3), 100)


def test_usd_cap_is_met_to_the_last_nanodollar(path):
    with open_ledger(path, usd=0.003) as ledger:
        for number in range(3):
            assert ledger.reserve(ask(number), 100) is None
        with pytest.raises(BudgetExceeded, match=r"may cost up to 0\.001000 .*budget\.usd=0\.003"):
            ledger.reserve(ask(3), 100)
        for number in range(3):
            ledger.settle(ask(number), REPLY)  # 0.0018 in all: room for one more of 0.001
        assert ledger.reserve(ask(3), 100) is None
    # 0.0018 spent, and up to 0.001 for the one that was cut off here.
    with open_ledger(path, usd=0.0038 - 1e-9) as ledger, pytest.raises(BudgetExceeded):
        ledger.reserve(ask(3), 100)
    with open_ledger(path, usd=0.0038) as ledger:
        assert ledger.reserve(ask(3), 100) is None


def test_a_larger_cap_goes_on(path):
    with open_ledger(path, queries=1) as ledger:
        ledger.reserve(ask(1), 100)
        ledger.settle(ask(1), REPLY)
        with pytest.raises(BudgetExceeded):
            ledger.reserve(ask(2), 100)
    with open_ledger(path, queries=2) as ledger:
        assert ledger.reserve(ask(2), 100) is None


def test_a_cost_above_the_estimate_is_recorded_and_seen(path):
    with open_ledger(path, usd=0.0025) as ledger:
        ledger.reserve(ask(1), 100)
        ledger.settle(ask(1), TeacherReply("long", 100, 150))  # 0.0016 instead of at most 0.001
        assert ledger.spend().usd == 0.0016
        with pytest.raises(BudgetExceeded, match=r"spent 0\.001600"):
            ledger.reserve(ask(2), 100)


def test_a_request_in_flight_is_not_made_again(path):
    with open_ledger(path) as one, open_ledger(path) as two:
        one.reserve(ask(1), 100)
        for ledger in (one, two):
            with pytest.raises(RequestInFlight, match=r"example 'e1'"):
                ledger.reserve(ask(1), 100)
        with pytest.raises(ValueError, match="without a reservation"):
            two.settle(ask(1), REPLY)
        two.release(ask(1))  # not its own: no effect
        one.settle(ask(1), REPLY)
        assert two.reserve(ask(1), 100) == REPLY


@pytest.mark.parametrize("how", ["closed", "abandoned"])
def test_what_was_cut_off_counts_for_ever_beside_its_repetition(path, how):
    with open_ledger(path) as ledger:
        ledger.reserve(ask(1), 100)
        if how == "abandoned":
            ledger.abandon(ask(1))
            ledger.abandon(ask(1))  # there is nothing to abandon now: no effect
            assert (ledger.spend("reserved").queries, ledger.spend("unknown").queries) == (0, 1)
    with open_ledger(path, queries=3) as ledger:
        assert ledger.spend("unknown") == Spend(1, 100, 90, 1_000_000)
        assert ledger.reserve(ask(1), 100) is None
        ledger.settle(ask(1), REPLY)
        ledger.reserve(ask(2), 100)
        message = (
            r"spent 0\.000600 US dollars on 1 answers, reserved 0\.001000 for 1 requests, "
            r"0\.001000 for 1 that were cut off and may have been billed; raise budget\.queries"
        )
        with pytest.raises(BudgetExceeded, match=message):
            ledger.reserve(ask(3), 100)
        assert ledger.spend("unknown") == Spend(1, 100, 90, 1_000_000)
    with open_ledger(path) as ledger:
        assert ledger.reserve(ask(1), 100) == REPLY
        assert (ledger.spend().queries, ledger.spend("unknown").queries) == (1, 2)


def test_what_a_dead_process_left_is_said_once(path, caplog):
    ledger = open_ledger(path)
    for number in (1, 2):
        ledger.reserve(ask(number), 100)
    assert caplog.messages == []
    ledger._owner.close()  # as the kernel does when the process is killed
    for _ in range(2):
        open_ledger(path).close()
    (message,) = caplog.messages
    assert "ledger.sqlite: 2 requests were cut off when a process died" in message
    ledger.close()


def test_a_local_teacher_bills_nothing_for_what_was_cut_off(path):
    with Ledger(path, 2, 1.0, PRICES, local=True) as ledger:
        ledger.reserve(ask(1), 100)
        ledger.reserve(ask(2), 100)
        ledger.abandon(ask(2))
        assert (ledger.spend("reserved").queries, ledger.spend("unknown").queries) == (1, 0)
    with Ledger(path, 1, 1.0, PRICES) as ledger:
        assert (ledger.spend("reserved").queries, ledger.spend("unknown").queries) == (0, 0)
        assert ledger.reserve(ask(1), 100) is None


@pytest.mark.parametrize("finish", ["length", "refused", "empty", "malformed"])
def test_what_is_no_answer_is_paid_once_and_kept_as_such(path, finish):
    reply = TeacherReply("", 100, 50, finish)
    with open_ledger(path) as ledger:
        ledger.reserve(ask(1), 100)
        ledger.settle(ask(1), reply)
        assert ledger.reserve(ask(1), 100) == reply
        assert ledger.spend() == Spend(1, 100, 50, 600_000)


def test_a_closed_ledger_says_so(path):
    ledger = open_ledger(path)
    ledger.close()
    ledger.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        ledger.reserve(ask(1), 100)


@pytest.mark.parametrize(("queries", "usd"), [(20, 1.0), (1000, 20 * RESERVED_USD)])
def test_caps_hold_under_16_threads(path, queries, usd):
    with open_ledger(path, queries, usd) as one, open_ledger(path, queries, usd) as two:
        start = threading.Barrier(16)

        def hammer(thread: int) -> int:
            ledger = (one, two)[thread % 2]
            start.wait()
            won = 0
            for number in range(4 * thread, 4 * thread + 4):
                try:
                    ledger.reserve(ask(number), 100)
                    won += 1
                except BudgetExceeded:
                    pass
            return won

        with ThreadPoolExecutor(16) as pool:
            assert sum(pool.map(hammer, range(16))) == 20
        assert one.spend("reserved").queries == 20
        assert one.spend("reserved").usd == pytest.approx(20 * RESERVED_USD)


def test_one_of_16_threads_gets_the_request(path):
    with open_ledger(path) as ledger:
        start = threading.Barrier(16)

        def reserve(_) -> bool:
            start.wait()
            try:
                return ledger.reserve(ask(1), 100) is None
            except RequestInFlight:
                return False

        with ThreadPoolExecutor(16) as pool:
            assert sum(pool.map(reserve, range(16))) == 1


def test_a_full_ledger_stops_none_of_64_threads(path):
    def pair(number):
        try:
            ledger.reserve(ask(number), 100)
        except BudgetExceeded:
            return 0
        ledger.settle(ask(number), REPLY)
        return 1

    with open_ledger(path, queries=400) as ledger:
        with ThreadPoolExecutor(64) as pool:
            assert sum(pool.map(pair, range(500))) == 400
        assert ledger.spend().queries == 400


def test_threads_that_find_the_ledger_locked_fail_together_with_the_way_out(path, monkeypatch):
    with open_ledger(path) as ledger, ThreadPoolExecutor(8) as pool:
        monkeypatch.setattr(database, "BUSY_SECONDS", 1.0)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        futures = [pool.submit(ledger.reserve, ask(n), 100) for n in range(8)]
        for future in futures:
            with pytest.raises(UserError, match=r"ledger\.sqlite: .*locked: another process"):
                future.result()
        assert 1.0 <= time.monotonic() - began < 4.0
        other.execute("ROLLBACK")
        other.close()
        assert ledger.reserve(ask(0), 100) is None
        assert ledger.spend("reserved").queries == 1


def test_a_full_disk_loses_nothing_that_was_settled(path):
    long = TeacherReply("word " * 100_000, 100, 50)
    with open_ledger(path) as ledger:
        for number in (1, 2):
            ledger.reserve(ask(number), 100)
        ledger.settle(ask(1), REPLY)
        (pages,) = ledger._database.connection.execute("PRAGMA page_count").fetchone()
        ledger._database.connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(UserError, match=r"ledger\.sqlite: .*full.*free disk space"):
            ledger.settle(ask(2), long)
        assert ledger.reserve(ask(1), 100) == REPLY
        assert ledger.spend("reserved").queries == 1
        ledger._database.connection.execute("PRAGMA max_page_count = 100000")
        ledger.settle(ask(2), long)
        assert ledger.reserve(ask(2), 100) == long


def test_a_file_that_is_no_database(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a ledger, and not to be overwritten" * 100)
    with pytest.raises(UserError, match=r"notes\.txt: .*it is not a ledger"):
        open_ledger(path)
    assert path.read_text().startswith("not a ledger")


def test_somebody_elses_database_is_left_alone(tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE requests (id)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(UserError, match="not a ledger of this program"):
        open_ledger(path)
    assert path.read_bytes() == before


def test_a_damaged_ledger_is_not_gone_on_with(path):
    with open_ledger(path) as ledger:
        for number in range(100):
            ledger.reserve(ask(number), 100)
    content = path.read_bytes()
    path.write_bytes(content[:6000] + b"\xff" * 8000 + content[14000:])
    with pytest.raises(UserError, match=r"ledger\.sqlite: .*it is damaged"):
        open_ledger(path)


@pytest.mark.parametrize("left", [50, 4096, 0.5])
def test_a_ledger_that_was_cut_short_is_not_gone_on_with(path, left):
    with open_ledger(path) as ledger:
        for number in range(100):
            ledger.reserve(ask(number), 100)
            ledger.settle(ask(number), REPLY)
    content = path.read_bytes()
    short = content[: left if isinstance(left, int) else int(left * len(content))]
    path.write_bytes(short)
    with pytest.raises(UserError, match=r"ledger\.sqlite: .*(it is damaged|it is not a ledger)"):
        open_ledger(path)
    assert path.read_bytes() == short


def test_a_ledger_that_is_locked_when_it_is_opened(path, monkeypatch):
    open_ledger(path).close()
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UserError, match=r"ledger\.sqlite: .*locked: another process has held it"):
        open_ledger(path)
    other.execute("ROLLBACK")
    other.close()
    open_ledger(path).close()


def test_a_folder_in_the_way(tmp_path):
    with pytest.raises(UserError, match="unable to open"):
        open_ledger(tmp_path)


def test_only_the_words_are_stored(path):
    with open_ledger(path) as ledger:
        ledger.reserve(TeacherRequest("e", "m", (Message("user", "hi"),), 9), 100)
        ledger.settle(
            TeacherRequest("e", "m", (Message("user", "hi"),), 9), TeacherReply("ho", 1, 2)
        )
        connection = sqlite3.connect(path)
        connection.row_factory = sqlite3.Row
        row = dict(connection.execute("SELECT * FROM requests").fetchone())
        connection.close()
    assert (row["model"], row["example_id"], row["state"]) == ("m", "e", "settled")
    assert row["request"] == (
        '{"max_output_tokens":9,"messages":[{"content":"hi","role":"user"}],"model":"m",'
        '"temperature":0.0}'
    )
    assert (row["reply"], row["input_tokens"], row["output_tokens"]) == ('"ho"', 1, 2)
    assert row["nanodollars"] == 21_000
    assert row["reserved_at"] <= row["settled_at"]


def test_no_step_of_a_request_reads_the_others(tmp_path):
    """Or a job of ten thousand requests would take hours to settle."""
    steps = []
    with Ledger(tmp_path / "ledger.sqlite", 9, 1.0, PRICES, run="a") as ledger:
        ledger._database.connection.set_trace_callback(steps.append)
        for end in (
            ledger.release,
            ledger.abandon,
            lambda r: ledger.settle(r, TeacherReply("a", 1, 2)),
        ):
            ledger.reserve(ask(1), 100)
            end(ask(1))
        with pytest.raises(ValueError, match="without a reservation"):
            ledger.settle(ask(2), TeacherReply("a", 1, 2))
        ledger._database.connection.set_trace_callback(None)
        steps = [sql for sql in steps if "requests" in sql and not sql.startswith("--")]
        assert len(steps) >= 10
        for sql in steps:
            plan = ledger._database.connection.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()
            ways = [row[3] for row in plan if "requests" in row[3]]
            assert all(
                way.startswith("SEARCH requests USING INDEX requests_by_key") for way in ways
            )
