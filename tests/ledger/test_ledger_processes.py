"""Several processes on one ledger, and processes that are killed."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from fake_teacher import PRICES, RESERVED_USD, USED_USD, FakeTeacher, ask

import bridge_jax
from bridge_jax.ledger.database import Owner, clear_owners, is_alive
from bridge_jax.ledger.ledger import Ledger, RequestInFlight
from bridge_jax.ledger.prices import BudgetExceeded
from bridge_jax.ledger.requests import TeacherReply
from bridge_jax.teachers.annotate import annotate


def start(*arguments: object) -> subprocess.Popen:
    root = Path(bridge_jax.__file__).parents[1]
    program = root / "tests" / "teachers" / "fake_teacher.py"
    return subprocess.Popen(
        [sys.executable, program, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(root)},
    )


def wait_until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("queries", "usd"),
    # In dollars, the last answers are reserved when 600 microdollars each are left of the others.
    [(30, 1.0), (1000, 30 * USED_USD)],
)
def test_caps_hold_under_several_processes(tmp_path, queries, usd):
    path, calls = tmp_path / "ledger.sqlite", tmp_path / "calls"
    # The third shares half of its requests with the first.
    ranges = [(0, 20), (20, 40), (10, 60)]
    processes = [start(path, calls, *numbers, queries, usd, -1) for numbers in ranges]
    codes = [process.wait(60) for process in processes]
    assert 3 in codes and set(codes) <= {0, 3}
    asked = FakeTeacher(calls).asked()
    assert len(asked) == len(set(asked)), "a request was paid twice"
    with Ledger(path, queries, usd, PRICES) as ledger:
        spend = ledger.spend()
        assert spend.queries == len(asked) <= queries
        assert spend.usd == pytest.approx(len(asked) * USED_USD) and spend.usd <= usd
        assert ledger.spend("reserved").queries == 0
        if queries == 30:
            assert spend.queries == 30
        else:
            # Somebody stopped when one more did not fit beside up to 12 in flight.
            assert spend.usd + 12 * RESERVED_USD > usd


def test_all_the_same_requests_in_several_processes_are_paid_once(tmp_path):
    path, calls = tmp_path / "ledger.sqlite", tmp_path / "calls"
    processes = [start(path, calls, 0, 15, 15, 1.0, -1) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert sorted(FakeTeacher(calls).asked()) == sorted(f"e{number}" for number in range(15))


def test_two_runs_at_once_on_one_ledger_pay_each_for_itself_and_nothing_twice(tmp_path):
    path, calls = tmp_path / "ledger.sqlite", tmp_path / "calls"
    processes = [
        start(path, calls, 0, 60, 25, 1.0, -1, "a"),
        start(path, calls, 0, 60, 60, 1.0, -1, "b"),
    ]
    codes = [process.wait(60) for process in processes]
    assert codes[1] == 0 and codes[0] in (0, 3)
    assert sorted(FakeTeacher(calls).asked()) == sorted(f"e{number}" for number in range(60))
    paid = {}
    for run in ("a", "b"):
        with Ledger(path, 1, 1.0, PRICES, run) as ledger:
            paid[run] = ledger.spend().queries
            assert ledger.spend("unknown").queries == ledger.spend("reserved").queries == 0
    assert paid["a"] + paid["b"] == 60
    assert paid["a"] <= 25


def test_killed_in_mid_ask(tmp_path):
    path, calls = tmp_path / "ledger.sqlite", tmp_path / "calls"
    teacher = FakeTeacher(calls)
    process = start(path, calls, 0, 20, 24, 1.0, 6)
    with Ledger(path, 24, 1.0, PRICES) as ledger:
        # Four are in flight and will never come back; while their process lives, nobody else asks.
        wait_until(lambda: len(teacher.asked()) == 10 and ledger.spend().queries == 6)
        hanging = set(teacher.asked()) - {f"e{number}" for number in _settled(ledger)}
        (first, *_) = sorted(int(name[1:]) for name in hanging)
        with pytest.raises(RequestInFlight, match=f"process {process.pid}"):
            ledger.reserve(ask(first), 100)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

        assert ledger.spend("reserved").queries == 4  # maybe billed: they go on counting
        replies = annotate(teacher, ledger, [ask(number) for number in range(20)], 4)
        assert [reply.text for reply in replies] == [
            f"reply to question {number}" for number in range(20)
        ]
        assert (ledger.spend().queries, ledger.spend("reserved").queries) == (20, 0)
        assert ledger.spend("unknown").queries == 4
        with pytest.raises(BudgetExceeded, match=r"for 4 that were cut off"):
            ledger.reserve(ask(20), 100)
    times = Counter(teacher.asked())
    assert len(times) == 20
    assert {name for name, count in times.items() if count > 1} == hanging
    assert not list(tmp_path.glob("*-owner-*"))


def _settled(ledger: Ledger) -> list[int]:
    rows = ledger._database.connection.execute(
        "SELECT example_id FROM requests WHERE state = 'settled'"
    )
    return [int(name[1:]) for (name,) in rows]


def test_an_owner_is_alive_under_every_name_of_the_ledger(tmp_path):
    path, link = tmp_path / "ledger.sqlite", tmp_path / "elsewhere" / "link.sqlite"
    with Ledger(path, 9, 1.0, PRICES) as ledger:
        ledger.reserve(ask(1), 100)
        link.parent.mkdir()
        link.symlink_to(path)
        with (
            Ledger(link, 9, 1.0, PRICES) as other,
            pytest.raises(RequestInFlight, match=f"process {os.getpid()}"),
        ):
            other.reserve(ask(1), 100)
        ledger.settle(ask(1), TeacherReply("yes", 100, 50))


def test_a_forked_child_neither_keeps_the_lock_nor_uses_the_ledger(tmp_path):
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path, 9, 1.0, PRICES)
    owner = Owner(path)
    ledger.reserve(ask(1), 100)
    release, hold = os.pipe()
    ready, is_ready = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            ledger.settle(ask(1), TeacherReply("stolen", 1, 1))
        except RuntimeError as error:
            code = 0 if "before a fork" in str(error) else 1
        ledger.close()  # not its own: no effect
        os.close(hold)
        os.write(is_ready, b"!")
        os.read(release, 1)
        os._exit(code)
    os.read(ready, 1)
    assert is_alive(path, owner.token)
    owner._file.close()  # as the kernel does when the parent is killed
    assert not is_alive(path, owner.token)
    os.close(hold)
    assert os.waitpid(child, 0)[1] == 0
    ledger.settle(ask(1), TeacherReply("mine", 1, 1))
    ledger.close()


def test_an_owner_whose_file_is_taken_away_before_it_is_locked_makes_another(tmp_path, monkeypatch):
    path, locks = tmp_path / "ledger.sqlite", []
    flock = fcntl.flock

    def meddled(file, how):
        if how == fcntl.LOCK_EX and not locks:
            clear_owners(path)  # by another process, which finds the file and nobody who holds it
            assert not list(tmp_path.iterdir())
        locks.append(how)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", meddled)
    owner = Owner(path)
    assert is_alive(path, owner.token)
    clear_owners(path)
    assert is_alive(path, owner.token)
    owner.close()
    assert not list(tmp_path.iterdir())
