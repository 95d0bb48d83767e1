"""Hundreds of requests to a vendor that fails in every way it can, and runs that are killed."""

import contextlib
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import tenacity
import vendors
from fake_vendor import LOST, ODD, REFUSED, read_bills
from vendors import PRICES, ask

from bridge_jax.ledger.ledger import Ledger
from bridge_jax.ledger.prices import BudgetExceeded
from bridge_jax.ledger.requests import Failure, TeacherReply
from bridge_jax.teachers import annotate as annotate_module
from bridge_jax.teachers.annotate import annotate

HERE = Path(__file__).parent


@contextlib.contextmanager
def vendor_process(bills, seconds, share=0.0, faults=()):
    """A vendor in a process of its own; yields its address."""
    flags = [str(bills), str(seconds), str(share), ",".join(faults)]
    process = subprocess.Popen(
        [sys.executable, HERE / "fake_vendor.py", *flags], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()


def rows_by_prompt(ledger, state):
    """Returns how many rows of a state the ledger has, by what was asked."""
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        rows = connection.execute(
            "SELECT example_id, count(*) FROM requests WHERE state = ? GROUP BY 1", (state,)
        ).fetchall()
    return Counter({f"question {example[1:]}": count for example, count in rows})


def cost(bills):
    return sum(PRICES.cost(bill.input_tokens, bill.output_tokens) for bill in bills) / 1e9


@pytest.mark.slow
@pytest.mark.parametrize("kind", vendors.KINDS)
def test_faults_of_every_kind(kind, tmp_path, monkeypatch):
    vendors.set_keys(monkeypatch)
    monkeypatch.setattr(annotate_module, "BACKOFF", tenacity.wait_random(0, 0.05))
    requests = [ask(n) for n in range(500)]
    path, log = tmp_path / "ledger.sqlite", tmp_path / "bills.jsonl"
    faults = (*REFUSED, *LOST, *ODD, "400")
    with vendor_process(log, 0.02, 0.2, faults) as url:
        teacher = vendors.make(kind, url, timeout=5.0)
        with Ledger(path, 200, 1e3, PRICES) as ledger:
            with pytest.raises(BudgetExceeded, match=r"budget\.queries=200 is reached"):
                annotate(teacher, ledger, requests, 64)
            # Used up, and not exceeded by one request.
            assert ledger.spend().queries + ledger.spend("unknown").queries == 200
            assert ledger.spend("reserved").queries == 0
        assert len(read_bills(log)) == 200
        with Ledger(path, 10**6, 1e3, PRICES) as ledger:
            outcomes = annotate(teacher, ledger, requests, 64)
            spent, unknown = ledger.spend(), ledger.spend("unknown")
            assert ledger.spend("reserved").queries == 0
    bills = read_bills(log)
    assert {bill.fault for bill in bills} == {"", *LOST, *ODD}

    # All is answered, or listed with a reason.
    assert len(outcomes) == 500
    failed = {n for n, outcome in enumerate(outcomes) if isinstance(outcome, Failure)}
    assert 0 < len(failed) < 20
    assert all("HTTP 400: the prompt" in outcomes[n].reason for n in failed)
    assert {o.finish for o in outcomes if isinstance(o, TeacherReply)} >= {
        "refused",
        "empty",
        "length",
    }

    # Queries and dollars are the vendor's own, exactly.
    assert spent.queries == 500 - len(failed)
    assert spent.queries + unknown.queries == len(bills)
    lost = [bill for bill in bills if bill.fault in LOST]
    assert rows_by_prompt(path, "unknown") == Counter(bill.prompt for bill in lost)
    delivered = [bill for bill in bills if bill.fault not in LOST]
    assert rows_by_prompt(path, "settled") == Counter(bill.prompt for bill in delivered)
    assert spent.usd == pytest.approx(cost(delivered), abs=1e-12)
    assert spent.output_tokens == sum(bill.output_tokens for bill in delivered)


@pytest.mark.slow
def test_killed_again_and_again(tmp_path, monkeypatch):
    """With one of the SDKs: what a kill leaves is the ledger's and the loop's."""
    kind, count, kills = "openai", 400, 15
    vendors.set_keys(monkeypatch)
    vendors.make(kind, "")  # skips where the SDK is not
    path, log = tmp_path / "ledger.sqlite", tmp_path / "bills.jsonl"
    with vendor_process(log, 0.02, 0.2, (*REFUSED, "drop", "cut", "garbage", *ODD)) as url:
        done = subprocess.run(
            [sys.executable, HERE / "killed_run.py", kind, url, path, str(count), str(kills)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 0.9 * kills  # the others had nothing left to do

    bills = read_bills(log)
    billed = Counter(bill.prompt for bill in bills)
    settled, unknown = rows_by_prompt(path, "settled"), rows_by_prompt(path, "unknown")
    assert not rows_by_prompt(path, "reserved")
    # Every question has its one answer. Whatever was billed beside it is listed as unknown; there,
    # some were killed before they were sent.
    assert settled == Counter({f"question {n}": 1 for n in range(count)})
    beyond = billed - settled
    assert sum(beyond.values()) == len(bills) - count
    assert beyond <= unknown
    lost = sum(bill.fault in LOST for bill in bills)
    assert lost < sum(beyond.values()) <= sum(unknown.values()) <= lost + 16 * kills

    # In dollars: what was settled is the last bill of each question.
    last = {bill.prompt: bill for bill in bills}
    with Ledger(path, 10**6, 1e6, PRICES) as ledger:
        assert ledger.spend().usd == pytest.approx(cost(last.values()), abs=1e-12)
        excess = cost(bills) - ledger.spend().usd
        assert excess > 0
        assert ledger.spend("unknown").queries == sum(unknown.values())
