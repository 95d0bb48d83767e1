"""White-box distillation as part of a run: what is stored, for whom, and which models it needs."""

import json
import shutil

import numpy as np
import pytest

from bridge_jax.errors import UserError
from bridge_jax.methods import logits
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.methods.filtering import RATIONALES, SFTTargets
from bridge_jax.methods.logits import LOGITS
from bridge_jax.pipeline.files import read_rows
from bridge_jax.runs import Run
from bridge_jax.text import tokenizer
from tests import tiny
from tests.launch import tiny_run
from tests.methods import one_stage

SMALL = (
    "data.pool=12",
    "budget.queries=4",
    "warmup.train.epochs=1",
    "assistant_training.epochs=1",
    "instruct.examples=0",
    "student_training.epochs=1",
    "warmup.fraction=0.1",
)


@pytest.fixture(scope="module")
def config_path(tmp_path_factory):
    return tiny_run.write_config(tmp_path_factory.mktemp("logits"))


@pytest.mark.slow
def test_a_run_stores_the_assistants_logits_and_the_student_learns_them(config_path, tmp_path):
    config = tiny_run.settings(config_path, *SMALL, "logits.weight=0.5", "logits.top_k=4")
    report = tiny_run.finish_here(config, tmp_path, "tutoring")
    assert list(report["seconds"])[-3:] == [
        "tutoring/rationales",
        "tutoring/logits",
        "tutoring/student",
    ]
    ids, logprobs = (np.load(tmp_path / f"tutoring/logits/{n}.npy") for n in ("ids", "logprobs"))
    job = Run(config, tmp_path)
    targets, reading = SFTTargets.of(config), job.inputs.rendering("student")
    judged, annotated = (one_stage.folder_of(job, each) for each in (RATIONALES, ANNOTATIONS))
    found = targets.of_pool(job.inputs.pool, judged, annotated)
    assert len(found) == 12
    reasoned = [target for target in found if target.rationale]
    assert len(reasoned) >= report["annotations"]["kept"] == 4
    tokens = sum(s.targets for each in targets.sequences(reasoned, reading) for s in each)
    assert ids.shape == logprobs.shape == (tokens, 4)
    assert (np.diff(logprobs, axis=1) <= 0).all()
    assert np.exp(logprobs).sum(1).max() < 1

    sequences = logits.attach(targets, found, reading, one_stage.folder_of(job, LOGITS))
    assert [s.extra_targets is not None for s in sequences] == [bool(x.rationale) for x in found]
    attached = np.concatenate([s.extra_targets.ids for s in sequences if s.extra_targets])
    np.testing.assert_array_equal(attached, ids)
    soft = read_rows(tmp_path / "tutoring/student/metrics.jsonl")

    plain = tiny_run.settings(config_path, *SMALL)
    report = tiny_run.finish_here(plain, tmp_path, "tutoring")
    assert "tutoring/logits" not in report["seconds"]
    hard = read_rows(tmp_path / "tutoring/student/metrics.jsonl")
    # The assistant is less sure than the text that it is asked about.
    assert soft[0]["rationale_loss"] < hard[0]["rationale_loss"]


def test_only_the_student_depends_on_the_weight(config_path, tmp_path):
    def make(*settings):
        return Run(tiny_run.settings(config_path, "logits.weight=0.5", *settings), tmp_path)

    before, heavier, wider = make(), make("logits.weight=0.6"), make("logits.top_k=8")
    student = {"tutoring/student", "evaluation/student"}
    assert one_stage.differing(before, heavier) == student
    assert one_stage.differing(before, wider) == {*student, "tutoring/logits"}


@pytest.fixture
def job_with(config_path, tmp_path):
    """Makes a run whose student has another checkpoint."""

    def make(checkpoint, *settings):
        config = tiny_run.settings(
            config_path, f"student.checkpoint={checkpoint}", "logits.weight=0.5", *settings
        )
        return Run(config, tmp_path / "run")

    return make


def check(job):
    """Looks for what keeps the student from learning the assistant's tokens."""
    logits.check(job.config, job.inputs)


def test_one_vocabulary_is_enough_though_one_table_is_padded(job_with, checkpoint, tmp_path):
    padded = tiny.write_checkpoint(tmp_path / "padded", vocab=576)
    for file in checkpoint.glob("*token*"):
        shutil.copy(file, padded)
    job = job_with(padded)
    check(job)
    models = job.inputs.model("assistant"), job.inputs.model("student")
    assert [model.config.vocab_size for model in models] == [512, 576]
    assert logits._shared_ids(*models) == 512


def test_another_vocabulary_is_named(job_with, config_path, tmp_path):
    other = shutil.copytree(config_path.parent / "checkpoint", tmp_path / "other")
    content = json.loads((other / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(content))
    first = min(vocabulary["a"], vocabulary["b"])
    with pytest.raises(UserError, match=f"the same vocabulary: token {first} of .* differs"):
        check(job_with(other))


def test_another_chat_template_is_named(job_with, config_path, tmp_path):
    other = shutil.copytree(config_path.parent / "checkpoint", tmp_path / "other")
    for path in (other / "chat_template.jinja", other / "tokenizer_config.json"):
        if path.exists():
            path.write_text(path.read_text().replace("assistant", "helper"))
    with pytest.raises(UserError, match="requires the same chat template"):
        check(job_with(other))


def test_more_tokens_than_there_are(job_with, checkpoint):
    with pytest.raises(UserError, match=r"logits\.top_k=600 exceeds the vocabulary of 512 tokens"):
        check(job_with(checkpoint, "logits.top_k=600"))


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
