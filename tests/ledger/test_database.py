"""The ledger's file: its log, disks that several machines mount, and other versions.

A ledger that was copied without its log is found, and no whole one is blamed.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_teacher import PRICES, FakeTeacher, ask

from bridge_jax.errors import UserError
from bridge_jax.ledger import database
from bridge_jax.ledger.accounts import read_bill
from bridge_jax.ledger.database import log_of
from bridge_jax.ledger.ledger import Ledger
from bridge_jax.ledger.prices import BudgetExceeded
from bridge_jax.ledger.requests import TeacherReply
from bridge_jax.teachers import recorded
from bridge_jax.teachers.annotate import annotate

LOST = r"ledger\.sqlite: copied without ledger\.sqlite-wal, .*copy that file too.* run 'touch "


@pytest.fixture
def path(tmp_path):
    return tmp_path / "here" / "ledger.sqlite"


def opened(path):
    return Ledger(path, 1000, 1.0, PRICES)


def pay(ledger, *numbers):
    for number in numbers:
        ledger.reserve(ask(number), 100)
        ledger.settle(ask(number), TeacherReply(f"answer {number}", 100, 50))


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
    for read in (opened, read_bill, recorded.digest, lambda p: recorded.open_replay(p, len)):
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
    assert len(read_bill(path).entries) == 2
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
        ledger._database.connection.execute(f"PRAGMA user_version = {-database.VERSION}")

    killed_while(path, die_half_way)
    with opened(path) as ledger:
        assert ledger.spend().queries == 1
    opened(path).close()


@pytest.mark.parametrize("loop", [False, True], ids=["threads", "event loop"])
def test_a_log_that_has_grown_is_moved_and_still_needed(path, tmp_path, monkeypatch, loop):
    monkeypatch.setattr(database, "LOG_BYTES", 100_000)
    monkeypatch.setattr(database, "LOG_COMMITS", 5)
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
    monkeypatch.setattr(database, "LOG_BYTES", 10_000)
    monkeypatch.setattr(database, "LOG_COMMITS", 2)
    with opened(path) as ledger:
        pay(ledger, 1)
        with database.reading(path) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM requests").fetchone() == (1,)
            pay(ledger, *range(2, 20))
            assert reader.execute("SELECT count(*) FROM requests").fetchone() == (1,)
        pay(ledger, 20)
        assert ledger.spend().queries == 20
    with opened(path) as ledger:
        assert ledger.spend().queries == 20


def test_on_a_network_disk_there_is_no_log(path, monkeypatch):
    monkeypatch.setattr(database, "on_network", lambda _: True)
    with opened(path) as ledger:
        pay(ledger, 1)
        with opened(copied(path, "alone", False)) as copy:
            assert copy.spend().queries == 1
    # One that comes from a local disk without its log is found there, too.
    monkeypatch.undo()
    with opened(path) as ledger:
        pay(ledger, 2)
        alone = copied(path, "moved", False)
    monkeypatch.setattr(database, "on_network", lambda _: True)
    with pytest.raises(UserError, match=LOST):
        opened(alone)


MOUNTS = """/dev/vda / ext4 rw,relatime 0 0
10.0.0.2:/share /mnt/team nfs4 rw,vers=4.2 0 0
/dev/vdb /mnt/team/scratch ext4 rw 0 0
bucket /mnt/my\\040bucket fuse.gcsfuse rw 0 0
10.0.0.2:/data /mnt/médecine nfs4 rw 0 0
10.0.0.2:/home /home nfs rw 0 0
/dev/vdc /home xfs rw 0 0
"""


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    file = tmp_path / "mounts"
    file.write_text(MOUNTS, encoding="utf-8")
    monkeypatch.setattr(database, "MOUNTS", file)
    return file


@pytest.mark.parametrize(
    ("path", "network"),
    [
        ("/tmp/ledger.sqlite", False),
        ("/mnt/team/run/ledger.sqlite", True),
        ("/mnt/team/scratch/ledger.sqlite", False),
        ("/mnt/teams/ledger.sqlite", False),
        ("/mnt/my bucket/ledger.sqlite", True),
        ("/mnt/médecine/ledger.sqlite", True),
        ("/home/ledger.sqlite", False),
    ],
)
def test_the_innermost_mount_decides(mounts, path, network):
    assert database.on_network(Path(path)) is network


def test_without_a_list_of_mounts_a_disk_is_taken_for_a_local_one(mounts):
    mounts.unlink()
    assert database.on_network(Path("/mnt/team/ledger.sqlite")) is False


def test_on_a_network_disk_the_ledger_does_without_the_wal(tmp_path, mounts):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, 40, 1.0, PRICES) as ledger:  # made on a local disk, then copied
        ledger.reserve(ask(0), 100)
        ledger.settle(ask(0), TeacherReply("yes", 100, 50))
    mounts.write_text(f"server:/share {tmp_path} nfs rw 0 0\n")
    with Ledger(path, 40, 1.0, PRICES) as one, Ledger(path, 40, 1.0, PRICES) as two:
        assert one._database.connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        start = threading.Barrier(16)

        def hammer(thread):
            ledger, won = (one, two)[thread % 2], 0
            start.wait()
            for number in range(4 * thread + 1, 4 * thread + 5):
                try:
                    ledger.reserve(ask(number), 100)
                    ledger.settle(ask(number), TeacherReply("yes", 100, 50))
                    won += 1
                except BudgetExceeded:
                    pass
            return won

        with ThreadPoolExecutor(16) as pool:
            assert sum(pool.map(hammer, range(16))) == 39
        assert two.spend().queries == 40
    assert sorted(file.name for file in tmp_path.iterdir()) == ["ledger.sqlite", "mounts"]


def test_a_disk_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match=r"No locks available: .*budget\.ledger"):
        Ledger(tmp_path / "ledger.sqlite", 9, 1.0, PRICES)


@pytest.mark.parametrize("version", [1, 3])
def test_a_ledger_of_another_version_is_left_alone(path, version):
    opened(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    before = path.read_bytes()
    words = f"ledger of version {version}, but this program reads 2; use the version .* wrote it"
    for read in (opened, read_bill):
        with pytest.raises(UserError, match=words):
            read(path)
    assert path.read_bytes() == before


def test_somebody_elses_version_2_is_left_alone(tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as other:
        other.executescript("CREATE TABLE requests (id); PRAGMA user_version = 2;")
    other.close()
    with pytest.raises(UserError, match="not a ledger of this program"):
        Ledger(path, 9, 1.0, PRICES)
