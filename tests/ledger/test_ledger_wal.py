"""A ledger that was copied without its write-ahead log is found, and no whole one is blamed."""

import contextlib
import os
import shutil
import signal
import sqlite3

import pytest
from fake_teacher import PRICES, FakeTeacher, ask

from bridge_jax.errors import UserError
from bridge_jax.ledger import ledger_file, ledger_wal, statement
from bridge_jax.ledger.ledger import Ledger
from bridge_jax.ledger.ledger_wal import log_of
from bridge_jax.teachers import recorded
from bridge_jax.teachers.annotate import annotate
from bridge_jax.teachers.protocol import Reply

LOST = r"ledger\.sqlite: copied without ledger\.sqlite-wal, .*copy that file too.* run 'touch "


@pytest.fixture
def path(tmp_path):
    return tmp_path / "here" / "ledger.sqlite"


def opened(path):
    return Ledger(path, 1000, 1.0, PRICES)


def pay(ledger, *numbers):
    for number in numbers:
        ledger.reserve(ask(number), 100)
        ledger.settle(ask(number), Reply(f"answer {number}", 100, 50))


def copied(path, name, with_log):
    """Copies a ledger as it is on the disk now; returns the copy's path."""
    folder = path.parents[1] / name
    folder.mkdir()
    shutil.copy(path, folder)
    if with_log:
        shutil.copy(log_of(path), folder)
    return folder / path.name


def killed_while(path, work):
    """Opens the ledger in a child, which does its work and is killed."""
    child = os.fork()
    if child == 0:
        work(opened(path))
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_copy_without_the_log_is_not_gone_on_with(path):
    with opened(path) as ledger:
        pay(ledger, 1, 2)
        alone, both = copied(path, "alone", False), copied(path, "both", True)
        pay(ledger, 3)
    before = alone.read_bytes()
    for read in (opened, statement.read, recorded.digest, lambda p: recorded.open_replay(p, len)):
        with pytest.raises(UserError, match=LOST):
            read(alone)
    assert alone.read_bytes() == before
    assert [file.name for file in alone.parent.iterdir()] == ["ledger.sqlite"]
    with opened(both) as ledger:
        assert ledger.spend().queries == 2
        assert ledger.reserve(ask(2), 100).text == "answer 2"
    with opened(path) as ledger:
        assert ledger.spend().queries == 3


def test_what_is_lost_for_good_can_be_given_up(path):
    with opened(path) as ledger:
        pay(ledger, 1)
        alone = copied(path, "alone", False)
    log_of(alone).touch()
    with opened(alone) as ledger:
        assert ledger.reserve(ask(1), 100) is None
    opened(alone).close()  # and it is a ledger like any other from now on


def test_a_copy_of_a_ledger_that_was_closed_needs_no_log(path):
    with opened(path) as ledger:
        pay(ledger, 1)
    assert not log_of(path).exists()
    with opened(copied(path, "alone", False)) as ledger:
        assert ledger.spend().queries == 1


def test_while_another_process_uses_it_the_log_is_needed(path):
    with opened(path) as one:
        with opened(path) as two:
            pay(two, 1)
        pay(one, 2)
        with pytest.raises(UserError, match=LOST):
            opened(copied(path, "alone", False))


def test_of_a_killed_process_the_log_is_needed_until_somebody_has_read_it(path):
    killed_while(path, lambda ledger: pay(ledger, 1, 2))
    with pytest.raises(UserError, match=LOST):
        opened(copied(path, "alone", False))
    # Whoever closes it last moves the log into the file, and removes it: ours, or any program.
    assert len(statement.read(path).entries) == 2
    assert not log_of(path).exists()
    with opened(path) as ledger:
        assert ledger.spend().queries == 2
    killed_while(path, lambda ledger: pay(ledger, 3))
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM requests").fetchone() == (3,)
    assert not log_of(path).exists()
    with opened(path) as ledger:
        assert ledger.spend().queries == 3


def test_killed_in_the_middle_of_a_checkpoint(path):
    def die_half_way(ledger):
        pay(ledger, 1)
        ledger._connection.execute(f"PRAGMA user_version = {-ledger_wal.VERSION}")

    killed_while(path, die_half_way)
    with opened(path) as ledger:
        assert ledger.spend().queries == 1
    opened(path).close()


@pytest.mark.parametrize("loop", [False, True], ids=["threads", "event loop"])
def test_a_log_that_has_grown_is_moved_and_still_needed(path, tmp_path, monkeypatch, loop):
    monkeypatch.setattr(ledger_wal, "_BYTES", 100_000)
    monkeypatch.setattr(ledger_wal, "_COMMITS", 5)
    sizes = []
    with opened(path) as ledger:
        for start in range(0, 200, 20):
            if loop:
                requests = [ask(number) for number in range(start, start + 20)]
                annotate(FakeTeacher(tmp_path / "calls"), ledger, requests, 2)
            else:
                pay(ledger, *range(start, start + 20))
            sizes.append(log_of(path).stat().st_size)
        assert max(sizes) < 400_000
        assert sorted(sizes) != sizes, "it was never begun anew"
        assert path.stat().st_size > 50_000  # what was moved
        alone, both = copied(path, "alone", False), copied(path, "both", True)
        assert ledger.spend().queries == 200
    with pytest.raises(UserError, match=LOST):
        opened(alone)
    with opened(both) as ledger:
        assert ledger.spend().queries == 200


def test_a_reader_holds_nobody_up(path, monkeypatch):
    monkeypatch.setattr(ledger_wal, "_BYTES", 10_000)
    monkeypatch.setattr(ledger_wal, "_COMMITS", 2)
    with opened(path) as ledger:
        pay(ledger, 1)
        with contextlib.closing(ledger_file.connect_to_read(path)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM requests").fetchone() == (1,)
            pay(ledger, *range(2, 20))
            assert reader.execute("SELECT count(*) FROM requests").fetchone() == (1,)
        pay(ledger, 20)
        assert ledger.spend().queries == 20
    with opened(path) as ledger:
        assert ledger.spend().queries == 20


def test_on_a_network_disk_there_is_no_log(path, monkeypatch):
    monkeypatch.setattr(ledger_file, "on_network", lambda _: True)
    with opened(path) as ledger:
        pay(ledger, 1)
        with opened(copied(path, "alone", False)) as copy:
            assert copy.spend().queries == 1
    # One that comes from a local disk without its log is found there, too.
    monkeypatch.undo()
    with opened(path) as ledger:
        pay(ledger, 2)
        alone = copied(path, "moved", False)
    monkeypatch.setattr(ledger_file, "on_network", lambda _: True)
    with pytest.raises(UserError, match=LOST):
        opened(alone)
