"""The report of a small run: its numbers, its page, and the summary in the terminal."""

import dataclasses
import io
import json
import re

import fake_run
import pytest
from fake_run import write_predictions
from rich.console import Console

from bridge_jax import methods
from bridge_jax.config import RunConfig
from bridge_jax.config import io as config_io
from bridge_jax.methods import bridge, evaluation
from bridge_jax.methods.annotations import ANNOTATIONS, Bill
from bridge_jax.methods.tutoring import STUDENT
from bridge_jax.pipeline import files
from bridge_jax.pipeline.artifacts import Artifact, MeasuredModel, rows
from bridge_jax.report import figures, formatting, page
from tests import declared


def test_the_rows_of_the_run_are_those_that_the_table_declares(workdir):
    assert declared.undeclared(workdir) == []
    fake_run.change(workdir, ANNOTATIONS, Bill, {"usd": 1.0, "eur": 2.0} | {"queries": 1})
    wrong = [
        f"apprenticeship/annotations/spend.json: {name}"
        for name in ("eur", "input_tokens", "output_tokens", "prices")
    ]
    assert declared.undeclared(workdir) == wrong


def test_numbers(workdir):
    result = page.write(workdir)
    assert (result["name"], result["method"], result["seed"]) == ("tiny", "bridge", 7)
    assert result["accuracy"] == {
        "teacher": 0.75,
        "assistant_base": 0.2,
        "assistant": 0.6,
        "student_base": 0.0,
        "student_instruct": 0.1,
        "student_direct": 0.2,
        "student": 0.5,
    }
    assert result["compliance"]["assistant_base"] == 0.8
    assert result["compliance"]["student_base"] == 0.0
    assert result["accuracy_interval"]["assistant_base"] == pytest.approx(
        [0.0567, 0.5098], abs=1e-4
    )
    assert result["compliance_interval"]["assistant_base"] == pytest.approx(
        [0.4902, 0.9433], abs=1e-4
    )
    assert result["n_test"] == 10
    assert result["questions"]["teacher"] == 4
    assert result["teacher_measured_on"] == "annotations"
    assert result["mean_tokens"]["student"] == 12.0
    assert result["pool"] == {"size": 20, "domains": {"samples": 8, "fees": 12}}
    assert result["spend"] == {
        "queries": 4,
        "input_tokens": 800,
        "output_tokens": 200,
        "usd": 0.003,
        "budget_queries": 4,
        "budget_usd": 0.5,
    }
    assert result["selection"] == {
        "strategy": "coverage",
        "size": 4,
        "ids": ["p1", "p5", "p13", "p19"],
    }
    assert result["rationales"] == {
        "written": 20,
        "kept": 10,
        "rejected": 10,
        "shown_gold": False,
    }
    assert result["annotations"] == {"answered": 4, "kept": 3, "rejected": 1}
    assert result["gaps"] == pytest.approx(
        {
            "teacher_assistant": 0.15,
            "assistant_student": 0.1,
            "teacher_student_direct": 0.55,
            "student_student_direct": 0.3,
        }
    )
    assert set(result["gaps_interval"]) == {"assistant_student", "student_student_direct"}
    worked = {stage: seconds for stage, seconds in result["seconds"].items() if seconds}
    assert worked == {"apprenticeship/warmup": 2.5, "tutoring/student": 61.0}
    time = result["time"]
    assert time["total"] == 63.5
    assert time["compile"] == pytest.approx(12.7) and time["data"] == 0
    assert time["dev"] == pytest.approx(3.175)
    assert time["goodput"] == pytest.approx(0.65)
    assert (time["compilations"], time["restarts"]) == (6, 1)
    assert result["training"]["tutoring/student"] == pytest.approx(
        {"step_seconds": 1.0, "tokens_per_second": 2000.0, "mfu": 0.4}
    )
    assert formatting.speed(result["training"]["tutoring/student"]) == "2,000 tokens/s, 40% MFU"
    said = (
        "1 min 04 s; 20% compiling (6 programs), 5% measuring the dev split, 10% saving; 1 restart"
    )
    assert formatting.time(time) == said
    assert result["warnings"] == []


def test_the_bill_says_what_was_no_answer_and_what_nobody_knows(workdir):
    parts = {
        "no_answer": {"refused": 2, "length": 1},
        "unknown": {"queries": 2, "usd": 0.0021},
        "of_others": {"queries": 1, "usd": 1.5},
    }
    fake_run.change(workdir, ANNOTATIONS, Bill, fake_run.read(workdir, ANNOTATIONS, Bill) | parts)
    result = page.write(workdir)
    assert {part: result["spend"][part] for part in parts} == parts
    notes = [
        "3 paid replies have no answer (1 cut off at the limit, 2 refused): nothing was trained on "
        "them.",
        "2 queries were cut off before the answer and may have been billed, up to $0.0021 more; "
        "the caps count them.",
        "1 answer was paid by other runs that share the ledger ($1.50), free for this one.",
    ]
    assert formatting.spend_notes(result["spend"]) == notes
    html = (workdir / "report.html").read_text()
    out = io.StringIO()
    formatting.print_summary(result, Console(file=out, width=80))
    for note in notes:
        assert note in html and note in out.getvalue()


def test_a_price_that_has_changed_since_is_said(workdir):
    assert "at_present_prices" not in page.write(workdir)["spend"]
    config = json.loads((workdir / "config.json").read_text())
    config["teacher"] |= {"usd_per_million_input": 2.5, "usd_per_million_output": 15.0}
    files.write_json(workdir / "config.json", config)
    result = page.write(workdir)
    assert result["spend"]["usd"] == 0.003
    # 800 x $2.50 and 200 x $15 a million.
    assert result["spend"]["at_present_prices"] == 0.005
    note = (
        "The prices have changed since the teacher was asked: $0.0030 was paid; at the current "
        "ones the same tokens would cost $0.0050."
    )
    out = io.StringIO()
    formatting.print_summary(result, Console(file=out, width=160))
    assert note in (workdir / "report.html").read_text() and note in out.getvalue()


def test_what_made_the_run_is_said_once_for_each_version(workdir):
    fake_run.train(workdir, STUDENT, 61.0, made_with=fake_run.MADE_WITH | {"jax": "0.9.2"})
    result = page.write(workdir)
    assert result["made_with"] == {
        "jax": ["0.9.1", "0.9.2"],
        "numpy": ["2.3.0"],
        "backend": ["cpu"],
        "devices": ["8 cpu"],
    }
    line = "Made with jax 0.9.1 and 0.9.2, numpy 2.3.0 on 8 cpu (cpu)."
    assert f">{line}</p>" in (workdir / "report.html").read_text()
    # What the last start said of itself is in config.json, and is no setting.
    config = json.loads((workdir / "config.json").read_text())
    ours = {"revision": "0123456789ab", "machine": "a chip, 2 cores", "data": "ab" * 32}
    files.write_json(workdir / "config.json", config | {"made_with": ours})
    assert page.write(workdir)["made_with"]["data"] == ["ab" * 32]
    line = (
        "Made with jax 0.9.1 and 0.9.2, numpy 2.3.0, revision 0123456789ab on 8 cpu (cpu). "
        "Machine: a chip, 2 cores. Data: SHA-256 abababababab."
    )
    assert f">{line}</p>" in (workdir / "report.html").read_text()


@pytest.mark.parametrize("method", methods.METHODS)
def test_a_method_without_a_teacher_has_a_bill_of_nothing(tmp_path, method):
    files.write_json(tmp_path / "config.json", config_io.to_json(RunConfig(method=method)))
    result = page.write(tmp_path)
    assert ("spend" in result) == (method in ("self", "labels"))
    if "spend" in result:
        assert (result["spend"]["queries"], result["spend"]["usd"]) == (0, 0.0)


def test_a_summary_has_no_markup_of_others(workdir):
    result = page.write(workdir)
    result |= {"warnings": ["'[/INST]\x1b[2J' is 95% of the answers"], "page": "runs/[/b]/r.html"}
    out = io.StringIO()
    formatting.print_summary(result, Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert r"Warning  '[/INST]\x1b[2J' is 95% of the answers" in lines
    assert lines[-1] == "Report   runs/[/b]/r.html"


def test_files(workdir):
    result = page.write(workdir)
    assert json.loads((workdir / "report.json").read_text()) == result
    html = (workdir / "report.html").read_text()
    page.write(workdir)
    assert (workdir / "report.html").read_text() == html
    assert not list(workdir.glob(".*"))


def test_a_teacher_asked_the_test_questions_is_measured_on_them(workdir, monkeypatch):
    test = Artifact(
        "evaluation/teacher",
        "Testing: teacher",
        "evaluate",
        files=(rows(evaluation.FILE, evaluation.Prediction),),
        measured=MeasuredModel("teacher", "Teacher", "the model that is paid for"),
    )
    tested = dataclasses.replace(bridge.METHOD, artifacts=(*bridge.METHOD.artifacts, test))
    monkeypatch.setitem(methods.METHODS, "bridge", tested)
    write_predictions(workdir, "teacher", "rrrrrrrrrw")
    result = page.write(workdir)
    assert result["accuracy"]["teacher"] == 0.9
    assert result["teacher_measured_on"] == "test"
    assert "teacher_assistant" in result["gaps_interval"]


def test_page_says_the_result_and_needs_nothing_else(workdir):
    page.write(workdir)
    html = (workdir / "report.html").read_text()
    assert (
        "The student answers 50% of 10 test questions; nothing was trained on labels alone to "
        "compare with; trained directly on the teacher’s answers it answers 20%."
    ) in html
    assert not re.search(r"(src|href)=\"(?!#)", html)
    assert "url(http" not in html
    assert "@import" not in html
    drawn = re.findall(r'\bid="([^"]+)"', html)
    assert len(drawn) == len(set(drawn))


def test_text_of_questions_is_not_markup(workdir):
    page.write(workdir)
    html = (workdir / "report.html").read_text()
    assert "<script" not in html
    assert "&lt;script&gt;alert(" in html


def test_domains_in_drawings_are_not_markup_or_mathematics():
    drawn = figures.domains({"<b>$x^2$": 0.6, "水": 0.4}, {"<b>$x^2$": 1.0})
    assert "&lt;b&gt;$x^2$" in drawn
    assert "水" in drawn


def test_drawings_have_no_colour_of_their_own():
    drawn = figures.accuracy({"student": 0.5}, {"student": [0.4, 0.6]}, {"student": "It"}, 350)
    assert "var(--accent)" in drawn
    assert not re.search(r"#[0-9a-f]{6}", drawn)


def test_summary_in_the_terminal(workdir):
    stream = io.StringIO()
    formatting.print_summary(page.write(workdir), Console(file=stream, width=100))
    text = stream.getvalue()
    assert re.search(r"Student +50% +24–76% +100%", text)
    assert "Spent    4 of 4 queries, $0.0030 of $0.50; 800 tokens in, 200 out" in text
    assert "Time     1 min 04 s" in text
    assert text.rstrip().endswith(f"Report   {workdir}/report.html")
