"""Disks that several machines mount."""

import errno
import fcntl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_teacher import PRICES, ask

from bridge_jax.errors import UserError
from bridge_jax.ledger import disk
from bridge_jax.ledger.ledger import BudgetExceeded, Ledger
from bridge_jax.teachers.protocol import Reply

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
    monkeypatch.setattr(disk, "MOUNTS", file)
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
    assert disk.on_network(Path(path)) is network


def test_without_a_list_of_mounts_a_disk_is_taken_for_a_local_one(mounts):
    mounts.unlink()
    assert disk.on_network(Path("/mnt/team/ledger.sqlite")) is False


def test_on_a_network_disk_the_ledger_does_without_the_wal(tmp_path, mounts):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, 40, 1.0, PRICES) as ledger:  # made on a local disk, then copied
        ledger.reserve(ask(0), 100)
        ledger.settle(ask(0), Reply("yes", 100, 50))
    mounts.write_text(f"server:/share {tmp_path} nfs rw 0 0\n")
    with Ledger(path, 40, 1.0, PRICES) as one, Ledger(path, 40, 1.0, PRICES) as two:
        assert one._connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        start = threading.Barrier(16)

        def hammer(thread):
            ledger, won = (one, two)[thread % 2], 0
            start.wait()
            for number in range(4 * thread + 1, 4 * thread + 5):
                try:
                    ledger.reserve(ask(number), 100)
                    ledger.settle(ask(number), Reply("yes", 100, 50))
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
