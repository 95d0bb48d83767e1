"""What `launch.report --ledger` prints, at the width of a plain terminal."""

import dataclasses
import io
from pathlib import Path

from rich.console import Console

from bridge_jax.ledger.accounts import Entry, LedgerBill
from launch.report import print_ledger


def entry(number, outcome, run="r", model="gemini", batch=False, nano=1_234_567):
    tokens = (1000 + number, 200)
    ids = (f"q{number}", f"key{number}")
    return Entry(number, run, model, outcome, batch, None, *ids, *tokens, nano, 0.0, None)


def printed(entries, runs, budget, run="r"):
    out = io.StringIO()
    console = Console(file=out, width=80)
    print_ledger(LedgerBill(Path("runs/a/ledger.sqlite"), entries, runs), run, budget, console)
    assert all(len(line) <= 80 for line in out.getvalue().splitlines())
    return out.getvalue()


def test_who_cost_what():
    entries = [
        *(entry(n, "stop") for n in range(3)),
        entry(3, "refused"),
        entry(4, "length"),
        entry(5, "stop", batch=True),
        entry(6, "stop", model="gpt"),
        entry(7, "unknown"),
        entry(8, "job", batch=True),
        entry(9, "stop", run="s"),
    ]
    text = printed(entries, {"r": "runs/a", "s": "runs/b"}, {"queries": 20, "usd": 1.5})
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[:10] == [
        "Ledger runs/a/ledger.sqlite",
        "Teacher Outcome Queries Tokens in Tokens out US dollars",
        "gemini answered 3 3,003 600 0.003704",
        "cut at limit 1 1,004 200 0.001235",
        "refused 1 1,003 200 0.001235",
        "unknown 1 1,007 200 ≤ 0.001235",
        "gemini (batch) answered 1 1,005 200 0.001235",
        "in a job 1 1,008 200 ≤ 0.001235",
        "gpt answered 1 1,006 200 0.001235",
        "",
    ]
    assert lines[10:12] == [
        "Paid 7 of 20 queries, $0.008642 of $1.50",
        "Also 2 queries without an answer, up to $0.002469; the caps count them",
    ]
    assert "q7 gemini 1970-01-01T00:00:00Z ≤ 0.001235" in lines
    assert lines[-2:] == ["runs/a (this run) 7 0.008642 2", "runs/b 1 0.001235 0"]


def test_names_from_data_and_servers_are_no_markup():
    hostile = "[/b]\x1b[2J[bold]:bug:\n"
    lost = dataclasses.replace(entry(1, "unknown", model=hostile), example_id="[/INST]\x9b\r")
    text = printed([lost], {"r": hostile, "s": "[red]"}, {})
    assert "\x1b" not in text and "\x9b" not in text and "\r" not in text
    words = " ".join(text.split())
    assert words.count(r"[/b]\x1b[2J[bold]:bug:\n") == 3
    assert r"[/INST]\x9b\r" in words and "[red] 0" in words


def test_one_run_without_trouble_is_short():
    text = printed([entry(1, "stop")], {"r": "runs/a"}, {})
    assert len(text.splitlines()) == 5
    assert "Unknown" not in text and "Also" not in text and "share" not in text
    assert "Paid     1 query, $0.001235\n" in text


def test_many_unknown_are_counted():
    text = printed([entry(n, "unknown") for n in range(50)], {"r": "x"}, {})
    assert "q19 " in text and "q20 " not in text
    assert "and 30 more; --csv=FILE lists all of them" in text


def test_a_study_has_the_bill_of_all_its_runs():
    entries = [entry(1, "stop"), entry(2, "stop", run="s"), entry(3, "unknown", run="s")]
    text = printed(entries, {"r": "runs/a", "s": "runs/b"}, {}, run=None)
    assert "Paid     2 queries, $0.002469\n" in text
    assert "Also     1 query without an answer, up to $0.001235" in text
    assert "q3 " in text and "(this run)" not in text
    assert "This study has sent no requests yet." in printed([], {"": "x"}, {}, run=None)


def test_nothing_asked_yet():
    assert "This run has sent no requests yet" in printed([], {"": "x"}, {}, run="")
