"""A paid teacher is asked only after the user has agreed; --dry_run says what for."""

import json
import re

import pytest
from rich.console import Console

from bridge_jax.config import io as config_io
from bridge_jax.errors import UserError
from bridge_jax.ledger import consent as ledger_consent
from bridge_jax.ledger.consent import Quote, missing, record, total
from bridge_jax.runs import Run
from launch import consent
from tests.launch import tiny_run

API = ("teacher.kind=openai", "teacher.model=big-1", "selection.size=3", "teacher.retries=1")
ONE = {"key": Quote("big-1", 4, 10**8)}


def test_agreement_holds_for_the_same_or_less_of_the_same_teacher(tmp_path):
    assert missing(tmp_path, ONE) == ONE
    record(tmp_path, ONE)
    assert missing(tmp_path, ONE) == {}
    assert missing(tmp_path, {"key": Quote("big-1", 3, 10**7)}) == {}
    for other in (Quote("big-1", 5, 10**8), Quote("big-1", 4, 10**8 + 1), Quote("big-2", 4, 1)):
        assert missing(tmp_path, {"key": other}) == {"key": other}
    assert missing(tmp_path, {"other": ONE["key"]}) == {"other": ONE["key"]}
    record(tmp_path, {"other": ONE["key"]})
    assert missing(tmp_path, ONE) == {}
    (tmp_path / ledger_consent.FILE).write_text('{"key": 3')
    assert missing(tmp_path, ONE) == ONE


@pytest.mark.parametrize(
    ("nanodollars", "usd"),
    [(120_000_000, "$0.12"), (120_000_001, "$0.13"), (1, "$0.0001"), (98_304_000, "$0.0984")],
)
def test_dollars_are_never_rounded_down(nanodollars, usd):
    assert total({"a": Quote("m", 1, nanodollars)}) == ("m", 1, usd)


def test_the_runs_of_a_study_are_one_sum():
    quotes = {"a": Quote("m", 2, 10**8), "b": Quote("n", 3, 2 * 10**8), "c": Quote("m", 1, 0)}
    assert total(quotes) == ("m and n", 6, "$0.30")


def with_yes(monkeypatch, value):
    monkeypatch.setattr(consent, "_YES", type("Flag", (), {"value": value}))


def test_without_a_terminal_it_takes_yes(tmp_path, monkeypatch):
    with_yes(monkeypatch, False)
    confirm = consent.make_confirm(tmp_path, Console(quiet=True))
    with pytest.raises(UserError, match=r"ask big-1 4 times, for at most \$0\.10, .* pass --yes"):
        confirm(ONE)
    assert not (tmp_path / ledger_consent.FILE).exists()
    with_yes(monkeypatch, True)
    confirm(ONE)
    with_yes(monkeypatch, False)
    consent.make_confirm(tmp_path, Console(quiet=True))(ONE)  # It was agreed to.


@pytest.mark.parametrize(
    ("typed", "agreed"), [("y", True), (" YES ", True), ("", False), ("n", False)]
)
def test_on_a_terminal_it_is_a_question(tmp_path, monkeypatch, typed, agreed):
    asked = []

    def answer(question):
        asked.append(question)
        return typed

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", answer)
    with_yes(monkeypatch, False)
    confirm = consent.make_confirm(tmp_path, Console(quiet=True))
    if agreed:
        confirm(ONE)
    else:
        with pytest.raises(UserError, match="no request was sent"):
            confirm(ONE)
    assert asked == ["Ask big-1 4 times, for at most $0.10? [y/N] "]
    assert (missing(tmp_path, ONE) == {}) == agreed


class Refused(Exception):
    pass


def test_nothing_is_begun_before_the_user_agrees(tiny_config, tmp_path, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    config = tiny_run.settings(tiny_config, *API, "budget.usd=0.5", "budget.queries=5")
    told = []

    def refuse(quotes):
        told.append(quotes)
        raise Refused

    with tiny_run.one_device():
        job = Run(config, tmp_path / "run")
        with pytest.raises(Refused):
            job.run(Console(quiet=True), confirm=refuse)
        key = job.deep["apprenticeship/annotations"]
        assert not (tmp_path / "run/config.json").exists()
        assert not (tmp_path / "run/stages").exists()
        # Three questions and a retry each, as far as the budget goes: five requests.
        ((only, quote),) = told[0].items()
        assert (only, quote.model, quote.queries) == (key, "big-1", 5)
        # Each may cost 512 tokens of output and at least as many of input as there are words.
        assert 5 * 512 * 10_000 < quote.nanodollars < 5 * 1024 * 10_000
        # The caps hold in any case; who costs nothing, or is recorded, is asked without a question.
        assert quotes_of(config, tmp_path, "budget.usd=0.02") == [(5, 20_000_000)]
        free = ("teacher.free=true", "teacher.usd_per_million_input=0")
        assert quotes_of(config, tmp_path, *free, "teacher.usd_per_million_output=0") == []
        assert quotes_of(config, tmp_path, "teacher.kind=oracle", "teacher.retries=0") == []
        # With a second stage that asks, the budget is all that is known.
        shortened = ("method=budgeted", "budget.queries=30", "thinking.levels=32")
        assert quotes_of(config, tmp_path, *shortened) == [(30, 500_000_000)]


def quotes_of(config, workdir, *changes):
    job = Run(config_io.override(config, changes), workdir / "other")
    return [quote[1:] for quote in job.quotes().values()]


def written(workdir):
    return {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}


def test_a_dry_run_writes_nothing_and_needs_no_key(tiny_config, undisturbed, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    flags = ["--dry_run", *(f"--config.{each}" for each in API), "--stop_after=teacher"]
    code, out, err = tiny_run.run(tiny_config, tmp_path / "run", *flags)
    assert code == 0, err
    assert not (tmp_path / "run").exists()
    lines = out.splitlines()
    assert max(map(len, lines[1:])) <= 80
    states = dict(line.split(maxsplit=1) for line in lines if line.startswith("  apprent"))
    assert list(states) == [
        f"apprenticeship/{name}" for name in ("warmup", "scores", "selection", "annotations")
    ]
    assert re.fullmatch(r"to run, at least [\d.]+ m?s", states["apprenticeship/warmup"]), out
    assert states["apprenticeship/annotations"] == "to run"
    assert "Teacher  big-1: 3 queries at first" in out
    assert re.search(r"at most 6 queries and \$0\.0\d+, retries included", out)
    assert "based on this CPU's speed" in out
    assert "Nothing was run, paid or written." in out


@pytest.mark.slow
def test_a_dry_run_knows_what_is_done(tiny_config, undisturbed):
    before = written(undisturbed)
    code, out, err = tiny_run.run(tiny_config, undisturbed, "--dry_run")
    assert code == 0, err
    assert out.count("done before, in ") == 14 and "Everything is done" in out
    code, out, err = tiny_run.run(
        tiny_config, undisturbed, "--dry_run", "--student_training.epochs=1"
    )
    assert code == 0, err
    assert out.count("done before, in ") == 12
    assert [line.split()[0] for line in out.splitlines() if "to run" in line] == [
        "tutoring/student",
        "evaluation/student",
    ]
    assert "Teacher  not asked" in out
    assert written(undisturbed) == before


def test_a_damaged_quote_is_no_agreement(tmp_path):
    (tmp_path / ledger_consent.FILE).write_text(
        json.dumps({"key": {"model": "big-1", "queries": "4", "nanodollars": 10**9}})
    )
    assert missing(tmp_path, ONE) == ONE
