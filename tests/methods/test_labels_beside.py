"""The student on labels alone that a run trains beside its own: by default, for as many steps."""

import dataclasses

import pytest

from bridge_jax import methods
from bridge_jax.config import RunConfig, TrainConfig
from bridge_jax.config.io import override
from bridge_jax.methods.baselines import LABELS, AsLong
from bridge_jax.planning import workload
from bridge_jax.report import page
from bridge_jax.runs import Run
from tests.launch import tiny_run

BY_DEFAULT = ("compare=labels", "labels_training.epochs=0")


def stage_of(*settings):
    plan = methods.stages(override(RunConfig(), settings))
    return next((stage for stage in plan if stage.artifact == LABELS), None)


def test_it_is_left_out_without_labels_and_where_it_is_not_wanted():
    assert stage_of() is not None
    assert stage_of("data.labelled=false") is None
    assert stage_of("compare=") is None
    assert stage_of("compare=direct") is None


def test_what_is_not_set_is_as_in_the_training_of_the_student():
    changes = ("student_training.learning_rate=0.1", "student_training.row_tokens=99")
    stage = stage_of(*changes, "labels_training.row_tokens=64")
    assert isinstance(stage.params, AsLong)
    train = stage.params.how.train
    assert (train.learning_rate, train.row_tokens) == (0.1, 64)
    assert (stage.params.epochs, stage.params.row_tokens) == (3, 99)
    fixed = stage_of(*changes, "student_training.steps=30")
    assert fixed.params.train.steps == 30 and "judged" not in fixed.reads
    own = stage_of(*changes, "labels_training.epochs=2")
    assert own.params.train == TrainConfig(epochs=2)


def test_the_method_itself_takes_the_epochs_of_the_student():
    config = override(RunConfig(), ("method=labels", "student_training.epochs=5"))
    (stage,) = (s for s in methods.stages(config) if s.name == "tutoring/student")
    assert stage.params.train == dataclasses.replace(config.student_training, epochs=5)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tiny_run.write_config(tmp_path_factory.mktemp("labels"))
    small = ("instruct.examples=0", "evaluation.student_before=false", "student_training.epochs=1")
    return tiny_run.settings(path, *BY_DEFAULT, *small)


def test_it_is_planned_for_as_many_steps(config):
    stages, lengths = workload.opened(config)
    steps = {work.stage: work.steps for work in workload.list_work(stages, lengths)
             if isinstance(work, workload.TrainingWork)}  # fmt: skip
    assert steps["baselines/labels"] == steps["tutoring/student"] > 0


@pytest.mark.slow
def test_a_run_trains_it_for_as_many_steps_and_says_so(config, tmp_path):
    report = tiny_run.finish_here(config, tmp_path)
    run = page.workdir.load(tmp_path)
    ours, labels = (len(run.curves[name]) for name in ("tutoring/student", "baselines/labels"))
    assert ours == labels > 0
    assert "student_labels" in report["accuracy"] and report["verdict"]["code"] != "untested"
    facts = {fact["code"]: fact["text"] for fact in report["verdict"]["facts"]}
    assert facts["student_labels"].startswith("Trained on labels alone in as many steps:")
    # What a run says of itself and of its data.
    assert report["data"]["splits"]["pool"] == {"used": 24, "there": 24}
    assert report["data"]["commonest"][2] == 24
    assert report["made_with"]["data"] == [report["data"]["sha256"]]
    assert Run(config, tmp_path).is_whole()
