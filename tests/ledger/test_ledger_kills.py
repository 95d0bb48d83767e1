"""kill -9 at any moment: nothing settled is lost or asked again, and the sums are exact."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from fake_teacher import PRICES, ask
from spender import THREADS, reply_to

import bridge_jax
from bridge_jax.ledger.ledger import Ledger


def start(path, log, requests):
    root = Path(bridge_jax.__file__).parents[1]
    program = Path(__file__).with_name("spender.py")
    return subprocess.Popen(
        [sys.executable, program, path, log, str(requests)],
        env=os.environ | {"PYTHONPATH": f"{root}:{root}/tests/teachers"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def lines(log):
    return log.read_text().splitlines() if log.exists() else []


def kill_at_random(process, log, starts, longest, rng):
    """Lets the process begin its work (mostly), and kills it. False if it had ended by itself."""
    while rng.random() < 0.95 and lines(log).count("ready") < starts and process.poll() is None:
        time.sleep(0.002)
    time.sleep(rng.uniform(0, longest))
    process.send_signal(signal.SIGKILL)
    output = process.communicate()[0]
    assert process.returncode in (0, -signal.SIGKILL), output.decode()
    return process.returncode != 0


@pytest.mark.parametrize(
    ("kills", "requests"), [(4, 1500), pytest.param(50, 10_000, marks=pytest.mark.slow)]
)
def test_killed_at_random_moments(tmp_path, kills, requests):
    path, log, rng = tmp_path / "ledger.sqlite", tmp_path / "log", random.Random(kills)
    killed = 0
    for _ in range(kills):
        starts = lines(log).count("ready") + 1
        killed += kill_at_random(start(path, log, requests), log, starts, 0.25, rng)
    assert killed >= kills / 2, "it was through too early: nothing was tested"
    last = start(path, log, requests)
    output = last.communicate(timeout=300)[0]
    assert last.returncode == 0, output.decode()

    kept, billed = set(), Counter()
    for line in lines(log):
        what, _, number = line.partition(" ")
        if what == "billed":
            assert number not in kept, f"request {number} was settled, and paid again"
            billed[number] += 1
        elif what == "kept":
            kept.add(number)
    assert len(billed) == requests

    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT example_id, state, nanodollars FROM requests").fetchall()
    connection.close()
    settled = {name[1:]: nano for name, state, nano in rows if state == "settled"}
    unknown = Counter(name[1:] for name, state, _ in rows if state == "unknown")
    assert len(rows) == len(settled) + unknown.total()
    assert settled == {
        str(n): PRICES.cost(reply_to(n).input_tokens, reply_to(n).output_tokens)
        for n in range(requests)
    }
    # What was billed beyond the answers is listed. (A process may also die before it sends.)
    beyond = billed - Counter(settled.keys())
    assert beyond <= unknown
    assert unknown.total() - beyond.total() <= killed * THREADS
    assert unknown.total() <= killed * THREADS
    with Ledger(path, 10**6, 1e6, PRICES) as ledger:
        assert ledger.spend().queries == requests
        assert round(1e9 * ledger.spend().usd) == sum(settled.values())
        assert ledger.spend("unknown").queries == unknown.total()
        assert ledger.spend("reserved").queries == 0
        assert all(ledger.reserve(ask(n), 100) == reply_to(n) for n in range(0, requests, 97))
    assert not list(tmp_path.glob("*-owner-*"))
