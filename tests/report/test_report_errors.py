"""The table of errors: the step at which a wrong rationale about check digits fails."""

import fake_run

from bridge_jax.config import RunConfig
from bridge_jax.config.io import to_json
from bridge_jax.data.practice import checkdigits
from bridge_jax.methods import evaluation
from bridge_jax.methods.annotations import ANNOTATIONS, Annotation
from bridge_jax.methods.evaluation import Prediction
from bridge_jax.pipeline import files
from bridge_jax.report import page

VALUES = checkdigits.code(0, "filings").values
ASKED = "Check digit from 0: a map, a copy?"


def written(map_, copy, answer):
    first = VALUES["map"] + map_
    second = VALUES["copy"] + copy
    digit = (first + second) % 10
    text = f"map 0+{first}={first}; copy {first}+{second}={first + second}, so {digit}."
    return f"{text}\nAnswer: {digit + answer}"


def test_errors_are_counted_by_where_they_begin(workdir):
    files.write_json(workdir / "config.json", to_json(RunConfig(name="tiny")))
    bought = fake_run.read(workdir, ANNOTATIONS, Annotation)
    bought[0] |= {"question": "Check digit from 4: a copy, a will?", "kept": True}
    fake_run.change(workdir, ANNOTATIONS, Annotation, bought)
    rows = fake_run.read(workdir, evaluation.STUDENT, Prediction)
    texts = [written(1, 0, 0), written(1, 0, 0), written(0, 1, 0), written(0, 0, 1), "Answer: 3"]
    for row, text in zip(rows, texts):
        row |= {"domain": "filings", "question": ASKED, "completion": text, "correct": False}
    rows[5] |= {"domain": "filings", "question": ASKED, "correct": True}
    fake_run.change(workdir, evaluation.STUDENT, Prediction, rows)
    report = page.write(workdir)
    counts = {"unknown": 2, "forgotten": 1, "new_sum": 0, "sum": 0, "answer": 1, "form": 1}
    assert report["errors"] == {"student": counts}
    html = (workdir / "report.html").read_text()
    assert (
        '<tr><th>A value that is in no answer of the teacher</th><td class="n">2</td></tr>' in html
    )
    assert (
        '<tr><th>An addition that is in no answer of the teacher</th><td class="n"></td></tr>'
        in html
    )


def test_a_student_that_is_asked_for_the_answer_alone_writes_no_steps(workdir):
    for settings in ({"method": "labels"}, {"form": "two_pass"}):
        config = RunConfig(name="tiny", **settings)
        files.write_json(workdir / "config.json", to_json(config))
        rows = fake_run.read(workdir, evaluation.STUDENT, Prediction)
        for row in rows:
            row |= {"domain": "filings", "question": ASKED, "correct": False}
        fake_run.change(workdir, evaluation.STUDENT, Prediction, rows)
        assert "errors" not in page.write(workdir)


def test_other_tasks_have_none(workdir):
    assert "errors" not in page.write(workdir)
    assert "Where a wrong answer" not in (workdir / "report.html").read_text()
