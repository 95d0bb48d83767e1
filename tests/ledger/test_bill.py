"""The bill of a ledger, and its CSV."""

import csv
import os
import sqlite3
from decimal import Decimal

import pytest
from fake_teacher import PRICES, ask

from bridge_jax.errors import UserError
from bridge_jax.ledger.accounts import Entry, LedgerBill, read_bill, write_csv
from bridge_jax.ledger.ledger import Ledger
from bridge_jax.ledger.prices import Spend
from bridge_jax.ledger.requests import TeacherReply


@pytest.fixture
def path(tmp_path):
    """Run r: two answers, a refusal, one unknown, a batch answer, one in a job. Run s: one."""
    path = tmp_path / "a # b%20.sqlite"
    with Ledger(path, 99, 1.0, PRICES, "r") as ledger:
        ledger.register("runs/r")
        for number, reply in enumerate(
            (
                TeacherReply("yes", 100, 50),
                TeacherReply("no", 90, 40),
                TeacherReply("", 80, 0, "refused"),
            )
        ):
            ledger.reserve(ask(number), 100)
            ledger.settle(ask(number), reply)
        ledger.reserve(ask(3), 100)
        for number in (4, 5):
            ledger.reserve(ask(number), 100, batch=True)
        ledger.begin_job("job", "openai", [ask(4).key, ask(5).key])
        ledger.settle(ask(4), TeacherReply("yes", 100, 51))
    with Ledger(path, 99, 1.0, PRICES, "s") as ledger:
        ledger.register("runs/s, the second")
        ledger.reserve(ask(3), 100)
        ledger.settle(ask(3), TeacherReply("late", 100, 50))
    return path


def test_lines_add_up_by_teacher_and_outcome(path):
    found = read_bill(path)
    assert found.runs == {"r": "runs/r", "s": "runs/s, the second"}
    assert list(found.lines("r").items()) == [
        (("fake-1", False, "stop"), Spend(2, 190, 90, 1_090_000)),
        (("fake-1", False, "refused"), Spend(1, 80, 0, 80_000)),
        (("fake-1", False, "unknown"), Spend(1, 100, 90, 1_000_000)),
        (("fake-1", True, "stop"), Spend(1, 100, 51, 305_000)),
        (("fake-1", True, "job"), Spend(1, 100, 90, 500_000)),
    ]
    assert found.lines("s") == {("fake-1", False, "stop"): Spend(1, 100, 50, 600_000)}


def test_what_is_in_flight_is_unknown_once_its_process_is_dead(tmp_path):
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path, 9, 1.0, PRICES)
    ledger.reserve(ask(1), 100)
    assert [entry.outcome for entry in read_bill(path).entries] == ["reserved"]
    ledger._owner.close()  # as the kernel does when the process is killed
    assert [entry.outcome for entry in read_bill(path).entries] == ["unknown"]
    assert ledger.spend("reserved").queries == 1  # reading changes nothing
    ledger.close()
    assert read_bill(path).runs == {"": str(tmp_path)}


def test_reading_leaves_nothing_behind(path):
    before = path.read_bytes()
    read_bill(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_the_csv_has_every_request_and_adds_up(path, tmp_path):
    write_csv(read_bill(path), tmp_path / "bill.csv")
    with (tmp_path / "bill.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["outcome"], row["example_id"], row["batch"]) for row in rows] == [
        ("runs/r", "stop", "e0", "0"),
        ("runs/r", "stop", "e1", "0"),
        ("runs/r", "refused", "e2", "0"),
        ("runs/r", "unknown", "e3", "0"),
        ("runs/r", "stop", "e4", "1"),
        ("runs/r", "job", "e5", "1"),
        ("runs/s, the second", "stop", "e3", "0"),
    ]
    paid = [row for row in rows if row["settled_at"]]
    assert sum(Decimal(row["usd"]) for row in paid) == Decimal("0.002075000")
    assert rows[0]["key"] == ask(0).key
    assert (rows[0]["input_tokens"], rows[0]["output_tokens"]) == ("100", "50")
    assert rows[5]["job"] == "job" and rows[5]["settled_at"] == ""
    assert rows[0]["reserved_at"].endswith("Z") and len(rows[0]["reserved_at"]) == 20


def test_no_cell_of_the_csv_is_a_formula(tmp_path):
    names = ["=1+1", "+1-1", "@x", "-2+3", "a\x1b[2J", "-5"]
    entries = [
        Entry(i, "r", "=cmd|'/C calc'!A0", "stop", False, "-job", name, "k", 1, 2, 3, 0.0, None)
        for i, name in enumerate(names)
    ]
    path = tmp_path / "bill.csv"
    write_csv(LedgerBill(tmp_path, entries, {"r": "@run"}), path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["example_id"] for row in rows] == [
        "'=1+1", "'+1-1", "'@x", "'-2+3", r"a\x1b[2J", "-5",
    ]  # fmt: skip
    first = rows[0]
    assert (first["run"], first["model"], first["job"]) == ("'@run", "'=cmd|'/C calc'!A0", "'-job")
    assert (first["id"], first["input_tokens"], first["usd"]) == ("0", "1", "0.000000003")


def test_a_csv_that_cannot_be_written_is_named(path, tmp_path):
    with pytest.raises(UserError, match=r"--csv=.*nowhere/bill\.csv: No such file"):
        write_csv(read_bill(path), tmp_path / "nowhere" / "bill.csv")
    with pytest.raises(UserError, match=r"--csv=.*Is a directory"):
        write_csv(read_bill(path), tmp_path)


def test_no_ledger(tmp_path):
    with pytest.raises(UserError, match=r"ledger\.sqlite: no such ledger; no teacher has been"):
        read_bill(tmp_path / "ledger.sqlite")
    assert not list(tmp_path.iterdir())


def test_what_is_no_ledger_is_not_read(tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE requests (id)")
    other.close()
    with pytest.raises(UserError, match="not a ledger of this program"):
        read_bill(path)
    path.write_bytes(b"not a database" * 999)
    with pytest.raises(UserError, match="it is not a ledger"):
        read_bill(path)


@pytest.fixture
def not_root():
    """Root may write everything."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        yield
        os.seteuid(0)
    else:
        yield


def test_a_ledger_that_may_only_be_read_can_be_read_but_not_paid_from(tmp_path, request):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, 9, 1.0, PRICES) as ledger:
        ledger.reserve(ask(1), 100)
        ledger.settle(ask(1), TeacherReply("yes", 100, 50))
    path.chmod(0o444)
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents:
        if folder.name.startswith(("pytest-", "popen-")):
            folder.chmod(0o755)
    request.getfixturevalue("not_root")
    assert len(read_bill(path).entries) == 1
    with pytest.raises(UserError, match=r"readonly database: .*writable"):
        Ledger(path, 9, 1.0, PRICES)
