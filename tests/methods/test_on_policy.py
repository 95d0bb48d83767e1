"""On-policy distillation: what is asked, what is learned from, and how it is continued."""

import pytest

from bridge_jax import methods
from bridge_jax.config.io import override
from bridge_jax.errors import UserError
from bridge_jax.generation.engine import Engine
from bridge_jax.methods import baselines, on_policy
from bridge_jax.methods.checks import validate
from bridge_jax.methods.on_policy import ON_POLICY
from bridge_jax.methods.rationales import ASSISTANT
from bridge_jax.methods.rollouts import ROLLOUTS
from bridge_jax.pipeline.files import read_rows
from bridge_jax.runs import Run
from configs import quickstart
from tests.launch import tiny_run
from tests.methods import one_stage

SETTINGS = (
    "method=on_policy",
    "on_policy.questions=3",
    "on_policy.top_k=8",
    "on_policy.train.steps=3",
    "on_policy.train.batch_rows=2",
    "on_policy.train.row_tokens=256",
    "on_policy.train.checkpoint_every=1",
    "on_policy.train.learning_rate=0.003",
    "generation.max_new_tokens=12",
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tiny_run.write_config(tmp_path_factory.mktemp("on_policy"))
    return lambda *assignments: tiny_run.settings(path, *SETTINGS, *assignments)


def curve(workdir):
    found = read_rows(workdir / ON_POLICY.name / "metrics.jsonl")
    clock = ("step_seconds", "tokens_per_second")
    return [{k: v for k, v in row.items() if k not in clock} for row in found]


def train(job):
    """Runs the stage; student and assistant are their checkpoints."""
    with tiny_run.one_device():
        return one_stage.run_alone(job, ON_POLICY, made=None, by=None)


def test_each_step_has_new_replies_to_new_questions(tiny, tmp_path):
    train(Run(tiny(), tmp_path))
    found, steps = read_rows(tmp_path / ON_POLICY.name / ROLLOUTS), curve(tmp_path)
    assert [row["step"] for row in found] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len({row["id"] for row in found}) == 9
    for number, step in enumerate(steps):
        mine = [row for row in found if row["step"] == number]
        assert step["reply_tokens"] == pytest.approx(sum(row["tokens"] for row in mine) / 3)
        assert step["ended"] == pytest.approx(sum(row["ended"] for row in mine) / 3)
        assert step["loss"] == pytest.approx(step["kl_loss"]) and step["grad_norm"] > 0
    assert all(row["tokens"] <= 12 and row["ended"] == (row["tokens"] < 12) for row in found)


@pytest.mark.slow
def test_the_student_comes_nearer_to_the_assistant(tiny, tmp_path):
    train(Run(tiny("on_policy.train.steps=12"), tmp_path))
    losses = [row["loss"] for row in curve(tmp_path)]
    assert losses[0] > 0.01 and sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_stopped_and_continued_it_gives_the_same_curve(tiny, tmp_path, monkeypatch):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    train(Run(tiny(), tmp_path / "whole"))
    job, original, calls = Run(tiny(), tmp_path / "cut"), Engine.complete_all, []

    def complete(*given):
        calls.append(given)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(Engine, "complete_all", complete)
    stop_at = 2
    for _ in range(2):
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            train(job)
    stop_at = -1
    train(job)
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    rows = [read_rows(tmp_path / name / ON_POLICY.name / ROLLOUTS) for name in ("whole", "cut")]
    assert rows[0] == rows[1] and len(rows[0]) == 9


def test_it_follows_the_tutoring_and_both_students_are_tested(tiny):
    config = tiny("compare=labels", "labels_training.epochs=0")
    plan = {stage.name: stage for stage in methods.stages(config)}
    reads = plan[ON_POLICY.name].reads
    assert reads["made"] == "tutoring/student" and reads["by"] == ASSISTANT.name
    assert plan["evaluation/student"].reads["made"] == ON_POLICY.name
    assert plan["evaluation/student_tutored"].reads["made"] == "tutoring/student"
    bridge = {s.name: s for s in methods.stages(override(config, ("method=bridge",)))}
    # Labels are learned for as many steps as both trainings of the student take.
    labels = plan[baselines.LABELS.name]
    assert labels.params.more == config.on_policy.train.steps == 3
    assert labels.workload.as_long_as == (plan["tutoring/student"], plan[ON_POLICY.name])
    fixed = {s.name: s for s in methods.stages(override(config, ("student_training.steps=5",)))}
    assert fixed[baselines.LABELS.name].params.train.steps == 5 + 3
    shared = set(bridge) - {"evaluation/student", baselines.LABELS.name}
    assert all(plan[name] == bridge[name] for name in shared)


@pytest.mark.slow
def test_a_whole_run(tiny, tmp_path):
    report = tiny_run.finish_here(tiny(), tmp_path)
    assert {"student", "student_tutored"} <= set(report["accuracy"])
    page = (tmp_path / "report.html").read_text()
    assert "On-policy distillation" in page and "Student, tutored" in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("on_policy.train.steps=0",), "set the number of steps"),
        (("form=two_pass",), "learns whole replies"),
        (("on_policy.train.row_tokens=80",), "on_policy.train.row_tokens=80 is too short"),
    ],
)
def test_settings_that_cannot_work(changes, message):
    config = override(quickstart.get_config(), ("method=on_policy", *changes))
    with pytest.raises(UserError, match=message):
        validate(config)


def test_more_outcomes_than_tokens(tiny, tmp_path):
    job = Run(tiny("on_policy.top_k=600"), tmp_path)
    with pytest.raises(UserError, match=r"on_policy\.top_k=600 exceeds the"):
        on_policy.check(job.config, job.inputs)
