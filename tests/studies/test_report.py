"""A small workdir that can be counted by hand, and what is left of the report when parts go."""

import io
import json
import re
import shutil

import numpy as np
import pytest
from rich.console import Console

from bridge_jax.config import BudgetConfig, RunConfig
from bridge_jax.config_io import to_json
from bridge_jax.errors import UserError
from bridge_jax.studies import plots, report, terminal, wording

NASTY = "<script>alert('x')</script> & $\\frac{1}{2}$?"
# Per role: right, wrong, no answer, of ten test questions.
OUTCOMES = {
    "assistant_base": "rrwwwwwwnn",
    "assistant": "rrrrrrwwww",
    "student_base": "nnnnnnnnnn",
    "student_instruct": "rwwwwwwwwn",
    "student": "rrrrrwwwww",
    "student_direct": "rrwwwwwwww",
}


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def workdir(tmp_path):
    """Twenty pool questions, twelve on fees and eight on dosing; four asked, three kept."""
    root = tmp_path / "run"
    config = RunConfig(name="tiny", seed=7, budget=BudgetConfig(queries=4, usd=0.5))
    write_json(root / "config.json", to_json(config))
    pool = [
        {"id": f"p{i}", "domain": "fees" if i < 12 else "dosing", "nll": i / 10, "entropy": 1.0}
        for i in range(20)
    ]
    first = root / "apprenticeship"
    write_rows(first / "scores" / "scores.jsonl", pool)
    embeddings = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    np.save(first / "scores" / "embeddings.npy", embeddings)
    asked = ["p1", "p5", "p13", "p19"]
    write_json(
        first / "selection" / "selection.json",
        {"strategy": "coverage", "size": 4, "ids": asked, "clusters": None, "set_aside": []},
    )
    annotations = [
        {
            "id": key,
            "question": NASTY,
            "rationale": "Because.",
            "answer": "8" if key == "p19" else "7",
            "gold": "7",
            "kept": key != "p19",
        }
        for key in asked
    ]
    write_rows(first / "annotations" / "annotations.jsonl", annotations)
    write_json(
        first / "annotations" / "spend.json",
        {"queries": 4, "input_tokens": 800, "output_tokens": 200, "usd": 0.003},
    )
    rationales = [
        {
            "id": row["id"],
            "domain": row["domain"],
            "question": "How much?",
            "completion": "Thus.\nAnswer: 7",
            "rationale": "Thus.",
            "answer": "7",
            "gold": "7",
            "kept": i % 2 == 0,
            "mean_logprob": -0.2,
            "tokens": 9,
        }
        for i, row in enumerate(pool)
    ]
    write_rows(root / "tutoring" / "rationales" / "rationales.jsonl", rationales)
    for role, outcomes in OUTCOMES.items():
        write_predictions(root, role, outcomes)
    for stage, seconds, restarts in (
        ("apprenticeship/warmup", 2.5, 0),
        ("tutoring/student", 61.0, 1),
    ):
        losses = [
            {"step": s, "loss": 2 / s, "rationale_loss": None, "answer_loss": 1 / s}
            | {"step_seconds": 0.5 * s, "tokens_per_second": 1000.0 * s, "mfu": 0.2 * s}
            for s in (1, 2, 3)
        ]
        write_rows(root / stage / "metrics.jsonl", losses)
        manifest = {
            "stage": stage,
            "seconds": seconds,
            "restarts": restarts,
            "compilations": 3,
            "spans": {"compile": seconds / 5, "checkpoint": seconds / 10},
        }
        write_json(root / stage / "manifest.json", manifest)
    return root


def write_predictions(root, role, outcomes):
    rows = [
        {
            "id": f"t{i}",
            "question": f"Question {i}?",
            "gold": "7",
            "domain": "fees",
            "completion": f"{role} writes",
            "answer": {"r": "7", "w": "8", "n": None}[letter],
            "correct": letter == "r",
            "tokens": 12,
        }
        for i, letter in enumerate(outcomes)
    ]
    write_rows(root / "evaluation" / role / "predictions.jsonl", rows)


def test_numbers(workdir):
    result = report.write(workdir)
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
    assert result["pool"] == {"size": 20, "domains": {"dosing": 8, "fees": 12}}
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
    assert result["rationales"] == {"written": 20, "kept": 10, "rejected": 10}
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
    assert result["seconds"] == {"apprenticeship/warmup": 2.5, "tutoring/student": 61.0}
    time = result["time"]
    assert time["total"] == 63.5
    assert time["compile"] == pytest.approx(12.7) and time["data"] == 0
    assert time["goodput"] == pytest.approx(0.7)
    assert (time["compilations"], time["restarts"]) == (6, 1)
    assert result["training"]["tutoring/student"] == pytest.approx(
        {"step_seconds": 1.0, "tokens_per_second": 2000.0, "mfu": 0.4}
    )
    assert wording.speed(result["training"]["tutoring/student"]) == "2,000 tokens/s, 40% MFU"
    words = "1 min 04 s; 20% compiling (6 programs), 10% saving; 1 restart"
    assert wording.time(time) == words
    assert result["warnings"] == []


def test_the_bill_says_what_was_no_answer_and_what_nobody_knows(workdir):
    path = workdir / "apprenticeship" / "annotations" / "spend.json"
    parts = {
        "no_answer": {"refused": 2, "length": 1},
        "unknown": {"queries": 2, "usd": 0.0021},
        "of_others": {"queries": 1, "usd": 1.5},
    }
    write_json(path, json.loads(path.read_text()) | parts)
    result = report.write(workdir)
    assert {part: result["spend"][part] for part in parts} == parts
    notes = [
        "3 paid replies are no answer (1 cut off at the limit, 2 refused): nothing was trained on "
        "them.",
        "2 queries were cut off before the answer and may have been billed, up to $0.0021 more; "
        "the caps count them.",
        "1 answer was paid by other runs that share the ledger ($1.50), free for this one.",
    ]
    assert wording.spend_notes(result["spend"]) == notes
    page = (workdir / "report.html").read_text()
    out = io.StringIO()
    terminal.print_summary(result, Console(file=out, width=80))
    for note in notes:
        assert note in page and note in out.getvalue()


def test_files(workdir):
    result = report.write(workdir)
    assert json.loads((workdir / "report.json").read_text()) == result
    page = (workdir / "report.html").read_text()
    report.write(workdir)
    assert (workdir / "report.html").read_text() == page
    assert not list(workdir.glob(".*"))


def test_a_teacher_asked_the_test_questions_is_measured_on_them(workdir):
    write_predictions(workdir, "teacher", "rrrrrrrrrw")
    result = report.write(workdir)
    assert result["accuracy"]["teacher"] == 0.9
    assert result["teacher_measured_on"] == "test"
    assert "teacher_assistant" in result["gaps_interval"]


def test_page_says_the_result_and_needs_nothing_else(workdir):
    report.write(workdir)
    page = (workdir / "report.html").read_text()
    assert (
        "The student answers 50% of 10 test questions correctly; "
        "trained directly on the same 3 teacher answers it answers 20%."
    ) in page
    assert not re.search(r"(src|href)=\"(?!#)", page)
    assert "url(http" not in page
    assert "@import" not in page
    drawn = re.findall(r'\bid="([^"]+)"', page)
    assert len(drawn) == len(set(drawn))


def test_text_of_questions_is_not_markup(workdir):
    report.write(workdir)
    page = (workdir / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(" in page


def test_domains_in_drawings_are_not_markup_or_mathematics():
    drawn = plots.domains({"<b>$x^2$": 0.6, "水": 0.4}, {"<b>$x^2$": 1.0})
    assert "&lt;b&gt;$x^2$" in drawn
    assert "水" in drawn


def test_drawings_have_no_colour_of_their_own():
    drawn = plots.accuracy({"student": 0.5}, {"student": [0.4, 0.6]}, 350)
    assert "var(--accent)" in drawn
    assert not re.search(r"#[0-9a-f]{6}", drawn)


def test_semantic_collapse(workdir):
    path = workdir / "apprenticeship" / "selection" / "selection.json"
    write_json(path, {**json.loads(path.read_text()), "ids": ["p1", "p5"], "size": 2})
    path = workdir / "tutoring" / "rationales" / "rationales.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_rows(path, [{**row, "kept": row["domain"] == "dosing"} for row in rows])
    assert report.write(workdir)["warnings"] == [
        "Semantic collapse: the selection leaves out dosing (40% of the pool).",
        "Semantic collapse: the kept rationales leave out fees (60% of the pool).",
    ]


def test_instruction_blindness_and_budget_waste(workdir):
    write_predictions(workdir, "student", "rrrrrrrrnn")
    write_predictions(workdir, "assistant", "rrwwwwwwww")
    warnings = report.write(workdir)["warnings"]
    assert [warning.split(":")[0] for warning in warnings] == [
        "Instruction blindness",
        "Budget waste",
    ]
    assert "80%" in warnings[0]
    page = (workdir / "report.html").read_text()
    assert "2 warnings" in page
    assert warnings[1].split(":")[0] in page


def test_nine_tenths_that_parse_are_enough(workdir):
    write_predictions(workdir, "student", "rrrrrrrrrn")
    assert report.write(workdir)["warnings"] == []


def test_answer_collapse(workdir):
    path = workdir / "evaluation" / "student" / "predictions.jsonl"
    gold = ["yes"] * 30 + ["no"] * 20
    said = ["no"] * 46 + [None] * 4

    def warnings(said):
        write_predictions(workdir, "student", "r" * 50)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        write_rows(
            path,
            [
                {**row, "gold": g, "answer": a, "correct": a == g}
                for row, g, a in zip(rows, gold, said, strict=True)
            ],
        )
        found = report.write(workdir)["warnings"]
        return [w for w in found if "answer" in w.split(":")[0].lower()]

    assert warnings(said) == [
        "Answer collapse: 'no' is 100% of the student's answers, "
        "and right for 40% of the questions.",
        "Below the commonest answer: 'yes' to every question would be right 60% of the time, "
        "the student is 32%.",
    ]
    assert warnings(gold) == []
    assert len(warnings(["yes"] * 50)) == 1  # collapsed, though not below


def test_only_the_apprenticeship(workdir):
    shutil.rmtree(workdir / "tutoring")
    shutil.rmtree(workdir / "evaluation")
    result = report.write(workdir)
    assert result["accuracy"] == {"teacher": 0.75}
    assert result["n_test"] == 0
    assert "rationales" not in result
    assert result["gaps"] == {}
    page = (workdir / "report.html").read_text()
    assert "The teacher gave 3 teacher answers" not in page
    assert "The teacher gave 3 answers worth keeping; no model has been tested yet." in page
    assert "What was selected" in page


def test_the_direct_method(workdir):
    write_json(workdir / "config.json", to_json(RunConfig(name="tiny", method="direct")))
    shutil.rmtree(workdir / "tutoring")
    for role in ("assistant_base", "assistant", "student", "student_instruct"):
        shutil.rmtree(workdir / "evaluation" / role)
    for part in ("scores", "warmup"):
        shutil.rmtree(workdir / "apprenticeship" / part)
    result = report.write(workdir)
    assert result["accuracy"] == {"teacher": 0.75, "student_base": 0.0, "student_direct": 0.2}
    assert result["gaps"] == pytest.approx({"teacher_student_direct": 0.55})
    assert "pool" not in result
    page = (workdir / "report.html").read_text()
    assert (
        "Trained directly on 3 teacher answers, the student answers 20% of 10 test questions "
        "correctly; before training it answered 0%."
    ) in page
    assert "Trained directly on 3" in wording.headline(result)


@pytest.mark.parametrize(
    "path",
    [
        "config.json",
        "apprenticeship/scores",
        "apprenticeship/scores/embeddings.npy",
        "apprenticeship/selection",
        "apprenticeship/annotations",
        "apprenticeship/annotations/spend.json",
        "evaluation/assistant",
        "evaluation/student",
        "tutoring/rationales",
    ],
)
def test_any_part_may_be_missing(workdir, path):
    missing = workdir / path
    shutil.rmtree(missing) if missing.is_dir() else missing.unlink()
    result = report.write(workdir)
    terminal.print_summary(result, Console(file=io.StringIO()))


def test_stages_of_another_config_are_left_out(workdir):
    chosen = workdir / "apprenticeship" / "selection" / "manifest.json"
    write_json(chosen, {"stage": "apprenticeship/selection", "seconds": 0.5})
    predictions = workdir / "evaluation" / "student" / "manifest.json"
    write_json(predictions, {"stage": "evaluation/student", "seconds": 1.0})
    prints = {}
    for number, manifest in enumerate(sorted(workdir.glob("*/*/manifest.json"))):
        name = manifest.parent.relative_to(workdir).as_posix()
        prints[name] = f"print{number}"
        write_json(manifest, json.loads(manifest.read_text()) | {"fingerprint": prints[name]})
    write_json(workdir / "stages.json", prints)
    before = report.write(workdir)
    assert "selection" in before and "student" in before["accuracy"]
    assert "student_direct" not in before["accuracy"]  # its folder has no manifest: not finished
    # The config changed: the student's training and the selection are of the one before.
    for name in ("tutoring/student", "apprenticeship/selection"):
        prints[name] = "another"
    write_json(workdir / "stages.json", prints)
    after = report.write(workdir)
    assert "selection" not in after and "student" in after["accuracy"]
    gone = set(before["seconds"]) - set(after["seconds"])
    assert gone == {"tutoring/student", "apprenticeship/selection"}


def test_a_config_alone(workdir):
    for part in ("apprenticeship", "tutoring", "evaluation"):
        shutil.rmtree(workdir / part)
    assert report.write(workdir)["accuracy"] == {}
    assert "No model has been tested yet." in (workdir / "report.html").read_text()


def test_a_row_that_is_still_being_written_is_left_for_later(workdir):
    path = workdir / "tutoring" / "student" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "lo')
    report.write(workdir)
    path.write_text('{"step": 1, "lo\n' + path.read_text())
    with pytest.raises(UserError, match=r"metrics.jsonl: row 1 is not JSON"):
        report.write(workdir)


def test_folders_that_are_no_run(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        report.write(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no run"):
        report.write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_embeddings_of_another_pool(workdir):
    np.save(workdir / "apprenticeship/scores/embeddings.npy", np.zeros((3, 5), np.float32))
    with pytest.raises(UserError, match="3 embeddings for 20 scores"):
        report.write(workdir)


def test_summary_in_the_terminal(workdir):
    stream = io.StringIO()
    terminal.print_summary(report.write(workdir), Console(file=stream, width=100))
    text = stream.getvalue()
    assert re.search(r"Student +50% +24–76% +100%", text)
    assert "Spent    4 of 4 queries, $0.0030 of $0.50; 800 tokens in, 200 out" in text
    assert "Time     1 min 04 s" in text
    assert text.rstrip().endswith(f"Report   {workdir}/report.html")
