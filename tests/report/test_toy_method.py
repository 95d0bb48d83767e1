"""A new method: its stages and its models are in the report and in the study by being declared."""

import csv
import io
import json
import re

import fake_run
import fake_study
import pytest
from rich.console import Console

from bridge_jax import methods
from bridge_jax.config import RunConfig
from bridge_jax.config.io import override, to_json
from bridge_jax.evaluation.metrics import GAPS
from bridge_jax.methods import evaluation, tutoring
from bridge_jax.pipeline import files
from bridge_jax.pipeline.artifacts import TRAINED, Artifact, Step
from bridge_jax.pipeline.stages import Method
from bridge_jax.report import figures, formatting, page
from bridge_jax.study import study_page
from bridge_jax.study.study import StudyRun

DRILL = Artifact("toy/drill", "Drilling the student", "train", "student", TRAINED, is_last=True)
WALK = Artifact("toy/walk", "Going for a walk", "select")
DRILLED = evaluation.measured("student_drilled", "student", "Drilled student", "after its drill")
TOY = Method(
    "toy",
    "a toy",
    (WALK, DRILL, evaluation.STUDENT_BASE, evaluation.STUDENT, DRILLED),
    lambda config: [],
    {"student": "after nothing"},
)


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(methods.METHODS, "toy", TOY)


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "toy"
    path.mkdir()
    files.write_json(path / "config.json", to_json(RunConfig(name="toy", method="toy")))
    fake_run.finish(path, WALK, {}, seconds=4.0)
    fake_run.train(path, DRILL, 10.0)
    fake_run.write_predictions(path, "student_base", "wwwwwwwwww", "toy")
    fake_run.write_predictions(path, "student_drilled", "rrrrrrwwnn", "toy")
    return path


def test_its_stages_and_models_are_in_the_report(run):
    result = page.write(run)
    assert result["accuracy"] == {"student_base": 0.0, "student_drilled": 0.6}
    assert result["seconds"] == {"toy/walk": 4.0, "toy/drill": 10.0} | dict.fromkeys(
        ("evaluation/student_base", "evaluation/student_drilled"), 0.0
    )
    assert result["training"].keys() == result["parameters"].keys() == {"toy/drill"}
    assert result["spend"]["queries"] == 0  # It has no teacher.
    assert result["failures"] == ["Instruction blindness"]
    html = (run / "report.html").read_text()
    assert ">Drilled student answers 60% of 10 test questions correctly.</h1>" in html
    assert "Drilled student <small>after its drill</small>" in html
    assert "<h3>Drilling the student</h3>" in html and "<th>Going for a walk</th>" in html
    assert "student_drilled writes" in html and "student_base writes" not in html


def test_the_parts_of_its_loss_are_drawn(run):
    parts = {"double_loss": 1.5, "far_off_loss": 0.5, "dev_loss": 9.0}
    steps = [
        {k: v for k, v in row.items() if k not in ("rationale_loss", "answer_loss")} | parts
        for row in fake_run.read(run, DRILL, Step)
    ]
    fake_run.change(run, DRILL, Step, steps)
    page.write(run)
    html = (run / "report.html").read_text()
    legend = re.findall(r'<i class="key line (l\d)"></i>([^<]+)<', html)
    assert legend == [("l1", "whole loss"), ("l2", "double"), ("l3", "far off")]
    lines = figures.loss_lines([steps])
    assert figures.curve(steps, DRILL.name, lines) in html
    # A training that has not logged these parts is drawn without them.
    plain = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
    assert "stroke: var(--accent)" in figures.curve(steps, DRILL.name, lines)
    assert "stroke: var(--accent)" not in figures.curve(plain, "plain", lines)


def test_its_models_are_in_the_terminal_and_on_the_card(run):
    result, out = page.write(run), io.StringIO()
    formatting.print_summary(result, Console(file=out, width=120))
    assert re.search(r"Drilled student +60%", out.getvalue())
    assert "Trained  student 0.0M parameters" in out.getvalue()
    config = RunConfig(name="toy", method="toy")
    text = page.card(result, config, "student", "answer")
    assert "The student of a toy, trained with" in text and "- teacher: none" in text
    assert "| Drilled student | 10 | 60%" in text


def test_its_models_are_in_a_study(tmp_path):
    config = override(RunConfig(), ["method=toy", "seed=0"])
    runs = [fake_study.run("bridge", 0), StudyRun("toy", config)]
    right = {
        ("bridge", None, 0): {"student": [True] * 4 + [False] * 6},
        ("toy", None, 0): {"student_drilled": [True] * 7 + [False] * 3},
    }
    fake_study.write(tmp_path, fake_study.study(runs, "bridge"), right)
    fake_run.train(tmp_path / "runs/toy-seed0", DRILL, 10.0)
    study_page.write(tmp_path)
    bridge, toy = json.loads((tmp_path / "study.json").read_text())["points"]
    assert bridge["accuracy"].keys() == {"teacher", "student"}
    assert toy["accuracy"]["student_drilled"]["mean"] == 0.7
    assert toy["cost"]["trained_tokens"] == 7000  # (0.5 + 2 + 4.5) s x 1000 tokens/s
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert [row["accuracy_student_drilled"] for row in rows] == ["", "0.7"]


def test_gaps_are_between_models_that_are_measured():
    known = methods.measured()
    assert all(gap.first in known and gap.second in known for gap in GAPS)
    assert tutoring.STUDENT.is_last
