"""A whole run on tickets that nobody has labelled: no answer in the file, a teacher on loopback."""

import dataclasses
import json

import pytest
from fake_vendor import KEY, FakeVendor

from bridge_jax.config import DataConfig, EvaluationConfig, RationalesConfig, TeacherConfig
from tests.launch import tiny_run

pytestmark = pytest.mark.slow  # A whole run.

LABELS = ("late", "lost")


def truth(prompt):
    return LABELS[int(prompt.split()[-1].strip("?")) % 2]


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tickets.jsonl"
    splits = ["train"] * 24 + ["dev"] * 2 + ["test"] * 8
    rows = [{"question": f"Where is {n}?", "split": split} for n, split in enumerate(splits)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = tiny_run.settings(
        tiny_run.write_config(tmp_path),
        *("warmup.fraction=0", "selection.difficulty=entropy", "budget.usd=1"),
    )
    return dataclasses.replace(
        base,
        data=DataConfig(
            "jsonl",
            str(path),
            kind="label",
            choices=LABELS,
            instruction="Late or lost?",
            labelled=False,
        ),
        rationales=RationalesConfig(filter="confidence"),
        evaluation=EvaluationConfig(teacher_test=5),
    )


def test_tickets_without_any_answer_become_a_measured_student(config, tmp_path, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    workdir = tmp_path / "run"
    with FakeVendor() as vendor:
        # One question of the test, and one that may be selected, are answered by no label.
        vendor.answer = lambda prompt: "who knows" if "Where is 26?" in prompt else truth(prompt)
        teacher = TeacherConfig("openai", "big-1", f"{vendor.url}/v1", timeout=5, keep_wrong=True)
        config = dataclasses.replace(config, teacher=teacher)
        report = tiny_run.finish_here(config, workdir)
        # Ten queries: five of the test, and what they leave for the pool.
        assert report["selection"]["size"] == 5
        assert report["spend"]["queries"] == len(vendor.bills) == 10
        again = tiny_run.finish_here(config, workdir)
        assert len(vendor.bills) == 10 and again["accuracy"] == report["accuracy"]

    def rows(path):
        return [json.loads(line) for line in (workdir / path).read_text().splitlines()]

    bought = {row["id"]: row for row in rows("apprenticeship/held_out/answers.jsonl")}
    answered = {name: row["answer"] for name, row in bought.items() if row["answer"]}
    assert all(answer == truth(bought[name]["question"]) for name, answer in answered.items())
    left_out = len(bought) - len(answered)
    assert report["held_out"] == {
        "asked": 5,
        "answered": len(answered),
        "left_out": left_out,
        "with_gold": 0,
    }
    for role in ("student", "student_base", "assistant", "assistant_base"):
        found = rows(f"evaluation/{role}/predictions.jsonl")
        assert {row["id"]: row["gold"] for row in found} == answered
        right = sum(row["answer"] == answered[row["id"]] for row in found)
        assert report["accuracy"][role] == right / len(answered)
    # Nobody knows whether the teacher is right.
    assert "teacher" not in report["accuracy"]
    assert report["pool"] == {"size": 24, "domains": {"": 24}, "labelled": False}
    assert not (workdir / "apprenticeship/warmup").exists()
    judged = rows("tutoring/rationales/rationales.jsonl")
    assert {(row["gold"], row["correct"]) for row in judged} == {(None, None)}
    # The student learned the teacher's answers, and what the assistant was sure of.
    kept = report["annotations"]["kept"] + report["rationales"]["kept"]
    assert report["annotations"]["kept"] == 5 and kept >= 5
    page = (workdir / "report.html").read_text()
    against = "Measured against the teacher’s answers, not against people’s"
    assert page.count(against) == 2
    assert "Right answer" not in page and "The teacher’s answer: l" in page
