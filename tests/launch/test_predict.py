"""`launch.predict`: the answers are those of the run's own test, also after kills."""

import csv
import dataclasses
import json
import time

import pytest

from bridge_jax.config import DataConfig
from bridge_jax.data.answers import split_completion
from bridge_jax.serving import models
from bridge_jax.serving.predict import predict
from tests.launch import commands, tiny_run

LABELS = ("late", "lost")


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(count, begin=0):
    kinds = [("slow", "late"), ("gone", "lost")]
    return [
        {"id": f"r{i}", "question": f"Order {i}, {kinds[i % 2][0]}?", "answer": kinds[i % 2][1]}
        for i in range(begin, begin + count)
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A config and the workdir of its run: a student that has learned labels, in bf16 products."""
    home = tmp_path_factory.mktemp("predict")
    splits = ["train"] * 24 + ["dev"] * 2 + ["test"] * 8
    given = [row | {"split": split} for row, split in zip(rows(34), splits, strict=True)]
    data = DataConfig(
        "jsonl",
        str(write_rows(home / "rows.jsonl", given)),
        kind="label",
        choices=LABELS,
        instruction="Late or lost?",
    )
    config = tiny_run.settings(tiny_run.write_config(home))
    config = tiny_run.override(
        dataclasses.replace(config, data=data, method="labels"),
        "student.matmul=bfloat16",
        "labels_training.steps=40",
        "labels_training.learning_rate=0.02",
        "labels_training.batch_rows=2",
        "instruct.examples=0",
        "evaluation.student_before=false",
        "generation.max_new_tokens=12",
    )
    assert tiny_run.finish_here(config, home / "run")["accuracy"]["student"] == 1.0
    return config, home / "run"


@pytest.fixture(scope="module")
def export(run):
    """The run's student in f32."""
    return exported(run[1], run[1].parent / "student")


def exported(workdir, out, *flags):
    code, _, err = commands.run("launch.export", f"--workdir={workdir}", f"--out={out}", *flags)
    assert code == 0, err
    return out


def own_test(workdir, role="student"):
    """Returns the predictions of the run's own test."""
    file = workdir / f"evaluation/{role}/predictions.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def questions_of(predictions, path):
    """Writes the questions of a test as a person has them; returns the file."""
    kept = [{"id": row["id"], "question": row["question"]} for row in predictions]
    return write_rows(path, kept)


def answers(model, questions, out, role=None, budget=0):
    """Returns the rows that are predicted in this process, on one device."""
    found = models.find(str(model), role)
    data = dataclasses.replace(found.asking.data, path=str(questions))
    with tiny_run.one_device():
        predict(found, dataclasses.replace(found.asking, data=data), out, budget=budget)
    return [json.loads(line) for line in out.read_text().splitlines()]


def assert_equal(predicted, own):
    """Compares ids, answers and all that was written."""
    assert [row["id"] for row in predicted] == [row["id"] for row in own]
    assert [row["answer"] for row in predicted] == [row["answer"] for row in own]
    for row, other in zip(predicted, own):
        text = other["completion"]
        all_of_it = text.strip() if row["answer"] is None else split_completion(text)[0]
        assert row["rationale"] == all_of_it
        assert row["error"] is None


def test_predictions_equal_the_runs_own_test(run, export, tmp_path):
    """The run multiplies in bf16, so it rounds its weights as a bf16 export does."""
    own = own_test(run[1])
    assert {row["answer"] for row in own} == set(LABELS)
    questions = questions_of(own, tmp_path / "new.jsonl")
    half = exported(run[1], tmp_path / "half", "--dtype=bfloat16")
    found = [
        answers(model, questions, tmp_path / f"{n}.jsonl")
        for n, model in enumerate((run[1], export, half))
    ]
    for predicted in found:
        assert_equal(predicted, own)
        assert all(0.5 < row["confidence"] <= 1 for row in predicted)
    assert found[0] == found[1] == found[2]
    assert not list(tmp_path.glob("*.parts"))


@pytest.mark.slow
def test_models_that_reason_in_f32_as_well(undisturbed, tmp_path):
    """The student is exported; the assistant has an adapter, which the workdir keeps apart."""
    student = exported(undisturbed, tmp_path / "student")
    for role in ("student", "assistant"):
        own = own_test(undisturbed, role)
        questions = questions_of(own, tmp_path / f"{role}_new.jsonl")
        out = tmp_path / f"{role}.jsonl"
        assert_equal(answers(undisturbed, questions, out, role), own)
        assert any(row["rationale"] for row in answers_of(out))
    again = answers(student, tmp_path / "student_new.jsonl", tmp_path / "again.jsonl")
    assert_equal(again, own_test(undisturbed))


def answers_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_command(run, export, tmp_path):
    """CSV with columns of other names and gold answers; a row without a text is told."""
    with (tmp_path / "new.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["ticket", "body", "team"])
        table.writerows([row.values() for row in rows(5, 50)])
        table.writerows([["", "Order 60, gone?", "lost"], ["x", "", "late"], ["y", "Old?", "?"]])
    new, out = tmp_path / "new.csv", tmp_path / "answers.csv"
    given = [f"--model={export}", f"--data.path={new}", f"--out={out}"]
    columns = "--data.columns=id:ticket,question:body,answer:team"
    ends = commands.run_all(
        "launch.predict",
        [
            [*given, columns, "--gold", "--least_confidence=0.4"],
            [*given, columns, "--gold"],
            [*given[:2], f"--out={tmp_path / 'other.jsonl'}"],
            [*given[:2], f"--out={tmp_path / 'other.xlsx'}", columns],
            [*given, columns, "--role=assistant"],
            [*given, "--data.pool=3"],
            [f"--model={run[0].student.checkpoint}", *given[1:], columns],
            [*given[:1], f"--data.path={tmp_path / 'no.csv'}", *given[2:]],
            [f"--model={tmp_path}", *given[1:]],
        ],
    )
    assert [end.code for end in ends] == [1, *[2] * (len(ends) - 1)], [end.err for end in ends]
    assert "8 rows" in ends[0].out
    assert "2 have an error, the first in line 8: body has no value" in ends[0].out
    assert "accuracy 100% (61–100%, 95%) on 6 questions" in ends[0].out
    assert "6 are trusted, with a confidence of 0.4 or more" in ends[0].out
    assert "accuracy 100% (61–100%, 95%) on 6 trusted ones" in ends[0].out
    with out.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == [
        *("id", "row", "answer", "rationale", "confidence", "trusted", "correct", "error"),
    ]
    assert [row["trusted"] for row in found] == ["true"] * 6 + ["false"] * 2
    assert [row["answer"] for row in found[:7]] == ["late", "lost"] * 2 + ["late", "lost", ""]
    assert [row["correct"] for row in found] == ["true"] * 6 + ["", ""]
    assert (found[5]["id"], found[5]["row"]) == ("", "line 7")
    assert "'?' is none of the choices late, lost" in found[7]["error"]
    messages = [
        "answers.csv: already exists; choose a new file",
        "8 rows fail the same way: no key 'question'; the columns are ticket, body, team",
        "other.xlsx: the name must end in .jsonl or .csv",
        "is not the workdir of a run; omit the flag",
        "unknown config key 'data.pool'",
        "has no bridge_jax.json that says what kind of answers it gives; pass --data.kind",
        "no.csv: no such file",
        "has no config.json",
    ]
    for end, message in zip(ends[1:], messages, strict=True):
        assert message in end.err and "Traceback" not in end.err


@pytest.mark.slow
def test_killed_again_and_again_the_file_is_the_same(export, tmp_path):
    questions = write_rows(tmp_path / "new.jsonl", rows(1300))
    given = [f"--model={export}", f"--data.path={questions}"]
    code, _, err = commands.run("launch.predict", *given, f"--out={tmp_path / 'whole.jsonl'}")
    assert code == 0, err
    out, parts = tmp_path / "killed.jsonl", tmp_path / "killed.jsonl.parts"
    for number in range(2):
        process = commands.start("launch.predict", *given, f"--out={out}")
        begun = parts / f"{number:06d}.begun.jsonl"
        while process.poll() is None and not (begun.exists() and begun.stat().st_size):
            time.sleep(0.005)
        process.send_signal(9 if number % 2 else 15)
        process.communicate()
        assert process.returncode == (-9 if number % 2 else 75)
        assert not out.exists()
    other = commands.run("launch.predict", *given, f"--out={out}", "--generation.max_new_tokens=3")
    assert other[0] == 2
    assert "different settings (generation.max_new_tokens)" in other[2]
    code, _, err = commands.run("launch.predict", *given, f"--out={out}")
    assert code == 0, err
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert len(answers_of(out)) == 1300
    assert not parts.exists()


def stages_run(config, workdir, phase="all"):
    """Runs to the end; returns (the report, the stages that ran)."""
    from io import StringIO

    from rich.console import Console

    from bridge_jax.runs import Run

    printed = StringIO()
    with tiny_run.one_device():
        report = Run(config, workdir, phase=phase).run(Console(file=printed, width=200))
    return report, tiny_run.stages_run(printed.getvalue())


@pytest.mark.parametrize("phase", ["evaluate", "all"])
def test_another_test_file_is_evaluated_and_nothing_is_trained(run, tmp_path, phase):
    config, workdir = run
    new = write_rows(tmp_path / "new.jsonl", rows(5, 70))
    other = tiny_run.override(config, f"data.test_path={new}")
    report, ran = stages_run(other, tiny_run.copy(workdir, tmp_path / "run"), phase)
    assert ran == ["evaluation/student"]
    assert (report["n_test"], report["accuracy"]["student"]) == (5, 1.0)


def test_a_threshold_of_trust_runs_nothing_and_is_that_of_the_predictions(run, tmp_path):
    """And the dev split is answered where a threshold is to be chosen on it, by the student."""
    config, workdir = run[0], tiny_run.copy(run[1], tmp_path / "run")
    report, ran = stages_run(tiny_run.override(config, "evaluation.least_confidence=0.4"), workdir)
    assert ran == [] and report["confidence"]["least_confidence"] == 0.4
    assert models.find(str(workdir), None).asking.least_confidence == 0.4
    other = tiny_run.override(config, "evaluation.student_dev=true")
    report, ran = stages_run(other, workdir)
    assert ran == ["evaluation/student_dev"]
    assert report["confidence"]["thresholds"][0]["dev"]["n"] == 2
    assert all(0 < row["confidence"] <= 1 for row in own_test(workdir))
