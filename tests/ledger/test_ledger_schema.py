"""Ledgers of other versions."""

import json
import sqlite3

import pytest
from fake_teacher import PRICES, ask

from bridge_jax.errors import UserError
from bridge_jax.ledger.ledger import Ledger, Spend
from bridge_jax.ledger.owner import Owner
from bridge_jax.teachers.protocol import Reply

VERSION_1 = """
CREATE TABLE requests (
  key TEXT PRIMARY KEY,
  state TEXT NOT NULL CHECK (state IN ('reserved', 'settled')),
  model TEXT NOT NULL,
  example_id TEXT NOT NULL,
  request TEXT NOT NULL,
  reply TEXT,
  input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  nanodollars INTEGER NOT NULL,
  owner TEXT,
  pid INTEGER,
  reserved_at REAL NOT NULL,
  settled_at REAL
);
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
"""


def row(number, state, owner):
    settled = state == "settled"
    return (
        *(ask(number).key, state, "fake-1", f"e{number}", ask(number).to_json()),
        *(json.dumps("yes ✓") if settled else None, 100, 50 if settled else 90),
        *(600_000 if settled else 1_000_000, owner, 77, 1.0, 2.0 if settled else None),
    )


@pytest.fixture
def path(tmp_path):
    """One settled, one abandoned, one of a process that died."""
    path = tmp_path / "ledger.sqlite"
    rows = [row(1, "settled", "x"), row(2, "reserved", None), row(3, "reserved", "dead")]
    write(path, rows)
    return path


def write(path, rows):
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1)
    connection.executemany(f"INSERT INTO requests VALUES ({','.join('?' * 13)})", rows)
    connection.commit()
    connection.close()


def test_a_ledger_of_version_1_is_converted_and_loses_nothing(path):
    for _ in range(2):
        with Ledger(path, 9, 1.0, PRICES) as ledger:
            assert ledger.spend() == Spend(1, 100, 50, 0.0006)
            assert ledger.spend("unknown") == Spend(2, 200, 180, 0.002)
            assert ledger.reserve(ask(1), 100) == Reply("yes ✓", 100, 50, "stop")
    with sqlite3.connect(path) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        kept = connection.execute(
            "SELECT example_id, request, pid, reserved_at, settled_at FROM requests ORDER BY id"
        ).fetchall()
    assert "requests_of_version_1" not in tables
    assert kept == [
        (f"e{n}", ask(n).to_json(), 77, 1.0, 2.0 if n == 1 else None) for n in (1, 2, 3)
    ]


def test_one_that_an_earlier_version_is_using_is_left_alone(path):
    owner = Owner(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE requests SET owner = ? WHERE owner = 'dead'", (owner.token,))
    with pytest.raises(UserError, match=r"process 77, of an earlier version .* let it end"):
        Ledger(path, 9, 1.0, PRICES)
    owner.close()
    with Ledger(path, 9, 1.0, PRICES) as ledger:
        assert ledger.spend("unknown").queries == 2


def test_a_ledger_of_a_later_version_is_left_alone(path):
    Ledger(path, 9, 1.0, PRICES).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 3")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(UserError, match="ledger of version 3, this program reads 2; update it"):
        Ledger(path, 9, 1.0, PRICES)
    assert path.read_bytes() == before


def test_somebody_elses_version_2_is_left_alone(tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as other:
        other.executescript("CREATE TABLE requests (id); PRAGMA user_version = 2;")
    other.close()
    with pytest.raises(UserError, match="no ledger of this version"):
        Ledger(path, 9, 1.0, PRICES)
