"""White-box distillation as part of a run: what is stored, for whom, and which models it needs."""

import json
import shutil

import numpy as np
import pytest

from bridge_jax.errors import UserError
from bridge_jax.phases import lessons, logits, plan
from bridge_jax.phases.context import Run
from bridge_jax.pipeline.files import read_rows
from bridge_jax.phases.stages import fingerprints
from bridge_jax.planning import workload
from bridge_jax.text import tokenizer
from tests import tiny
from tests.launch import tiny_run

SMALL = (
    *("data.pool=12", "budget.queries=4", "warmup.train.epochs=1", "assistant_training.epochs=1"),
    *("instruct.examples=0", "student_training.epochs=1", "warmup.fraction=0.1"),
)


@pytest.fixture(scope="module")
def config_path(tmp_path_factory):
    return tiny_run.write_config(tmp_path_factory.mktemp("logits"))


def test_a_run_stores_the_assistants_logits_and_the_student_learns_them(config_path, tmp_path):
    config = tiny_run.settings(config_path, *SMALL, "logits.weight=0.5", "logits.top_k=4")
    report = tiny_run.finish_here(config, tmp_path, "tutoring")
    assert list(report["seconds"])[-3:] == [
        "tutoring/rationales",
        "tutoring/logits",
        "tutoring/student",
    ]
    ids, logprobs = (np.load(tmp_path / f"tutoring/logits/{n}.npy") for n in ("ids", "logprobs"))
    run = Run(config, tmp_path)
    found = lessons.of_pool(run)
    assert len(found) == 12
    reasoned = [lesson for lesson in found if lesson.rationale]
    assert len(reasoned) >= report["annotations"]["kept"] == 4
    targets = sum(s.targets for lesson in reasoned for s in lessons.read(run, lesson))
    assert ids.shape == logprobs.shape == (targets, 4)
    assert (np.diff(logprobs, axis=1) <= 0).all()
    assert np.exp(logprobs).sum(1).max() < 1

    sequences = logits.attach(run, found)
    assert [s.soft is not None for s in sequences] == [bool(x.rationale) for x in found]
    attached = np.concatenate([s.soft.ids for s in sequences if s.soft])
    np.testing.assert_array_equal(attached, ids)
    soft = read_rows(tmp_path / "tutoring/student/metrics.jsonl")

    plain = tiny_run.settings(config_path, *SMALL)
    report = tiny_run.finish_here(plain, tmp_path, "tutoring")
    assert "tutoring/logits" not in report["seconds"]
    hard = read_rows(tmp_path / "tutoring/student/metrics.jsonl")
    # The assistant is less sure than the text that it is asked about.
    assert soft[0]["rationale_loss"] < hard[0]["rationale_loss"]


def test_only_the_student_depends_on_the_weight(config_path, tmp_path):
    def prints(*settings):
        config = tiny_run.settings(config_path, "logits.weight=0.5", *settings)
        return fingerprints(plan.stages(config), Run(config, tmp_path).describe)

    before, heavier, wider = prints(), prints("logits.weight=0.6"), prints("logits.top_k=8")
    student = {"tutoring/student", "evaluation/student"}
    assert {name for name in before if before[name] != heavier[name]} == student
    assert {name for name in before if before[name] != wider[name]} == {*student, "tutoring/logits"}


def test_the_logits_are_planned_as_one_reading_of_rows_like_the_students(config_path, tmp_path):
    config = tiny_run.settings(config_path, "logits.weight=0.5")
    works = {w.stage: w for w in workload.workloads(Run(config, tmp_path))}
    reading, student = works["tutoring/logits"], works["tutoring/student"]
    assert (reading.role, reading.rows, reading.width) == ("assistant", 8, 192)
    assert (3 * reading.steps, reading.targets) == (student.steps, student.targets)


@pytest.fixture
def run_with(config_path, tmp_path):
    """A run whose student has another checkpoint."""

    def make(checkpoint, *settings):
        config = tiny_run.settings(
            config_path, f"student.checkpoint={checkpoint}", "logits.weight=0.5", *settings
        )
        return Run(config, tmp_path / "run")

    return make


def test_one_vocabulary_is_enough_though_one_table_is_padded(run_with, checkpoint, tmp_path):
    padded = tiny.write_checkpoint(tmp_path / "padded", vocab=576)
    for file in checkpoint.glob("*token*"):
        shutil.copy(file, padded)
    logits.check(run_with(padded))
    assert logits._shared_ids(run_with(padded)) == 512


def test_another_vocabulary_is_named(run_with, config_path, tmp_path):
    other = shutil.copytree(config_path.parent / "checkpoint", tmp_path / "other")
    content = json.loads((other / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(content))
    first = min(vocabulary["a"], vocabulary["b"])
    with pytest.raises(UserError, match=f"needs one vocabulary: token {first} of .* differs"):
        logits.check(run_with(other))


def test_another_chat_template_is_named(run_with, config_path, tmp_path):
    other = shutil.copytree(config_path.parent / "checkpoint", tmp_path / "other")
    for path in (other / "chat_template.jinja", other / "tokenizer_config.json"):
        if path.exists():
            path.write_text(path.read_text().replace("assistant", "helper"))
    with pytest.raises(UserError, match="needs one chat template"):
        logits.check(run_with(other))


def test_more_tokens_than_there_are(run_with, checkpoint):
    with pytest.raises(UserError, match=r"logits\.top_k=600 exceeds the 512 tokens"):
        logits.check(run_with(checkpoint, "logits.top_k=600"))


def test_the_first_difference_of_two_vocabularies(tiny_tokenizer):
    class Other:
        end_id, pad_id = tiny_tokenizer.end_id, tiny_tokenizer.pad_id

        def decode(self, ids):
            return "?" if ids == [77] else tiny_tokenizer.decode(ids)

    assert tokenizer.first_difference(tiny_tokenizer, tiny_tokenizer, 512) is None
    assert tokenizer.first_difference(tiny_tokenizer, Other(), 512) == 77
    assert tokenizer.first_difference(tiny_tokenizer, Other(), 77) is None
    Other.end_id = 5
    assert tokenizer.first_difference(tiny_tokenizer, Other(), 512) == tiny_tokenizer.end_id
