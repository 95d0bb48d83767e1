"""Reinforcement learning at budgets: what is asked, what is learned from, and how it goes on."""

import pytest

from bridge_jax import methods
from bridge_jax.config.io import override
from bridge_jax.errors import UserError
from bridge_jax.generation.budgets import Reply
from bridge_jax.methods import reinforcement
from bridge_jax.methods.budget_tests import OF_CONTROL, TESTED
from bridge_jax.methods.budgeted import BUDGETED
from bridge_jax.methods.checks import validate
from bridge_jax.methods.reinforcement import REINFORCED, ROLLOUTS
from bridge_jax.pipeline.files import read_rows
from bridge_jax.runs import Run
from configs import budgets
from tests.launch import tiny_run
from tests.methods import one_stage

SETTINGS = (
    "method=bard",
    "data.domains=samples",
    "data.min_steps=1",
    "data.max_steps=1",
    "data.pool=6",
    "data.test=4",
    "data.rationale=short",
    "selection.size=6",
    "selection.strategy=random",
    "selection.noise_fraction=0",
    "budget.queries=40",
    "budget.usd=1",
    "instruct.examples=0",
    "thinking.levels=4,12",
    "thinking.answer_tokens=4",
    "thinking.controls=stated",
    "thinking.train.row_tokens=160",
    "thinking.train.steps=2",
    "reinforcement.groups=2",
    "reinforcement.samples=4",
    "reinforcement.tries=2",
    "reinforcement.train.steps=3",
    "reinforcement.train.batch_rows=2",
    "reinforcement.train.row_tokens=192",
    "reinforcement.train.checkpoint_every=1",
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tiny_run.write_config(tmp_path_factory.mktemp("reinforcement"))
    return lambda *assignments: tiny_run.settings(path, *SETTINGS, *assignments)


@pytest.fixture
def rewarded(monkeypatch):
    """Lets half of the replies of a random model be right, by the sum of their tokens."""

    def read(tokenizer, thinking, ids, example):
        return Reply(tokenizer.decode(ids), example.answer if sum(ids) % 2 else None, len(ids))

    monkeypatch.setattr(reinforcement.budgets, "read", read)
    monkeypatch.setattr(reinforcement.rewards, "reward", lambda kind, right, *_: float(right))


def curve(workdir):
    found = read_rows(workdir / REINFORCED.name / "metrics.jsonl")
    clock = ("step_seconds", "tokens_per_second")
    return [{k: v for k, v in row.items() if k not in clock} for row in found]


def train(job):
    """Runs the stage on the student's checkpoint."""
    with tiny_run.one_device():
        return one_stage.run_alone(job, REINFORCED, made=None)


def test_it_learns_from_its_own_replies(tiny, tmp_path, rewarded):
    job = Run(tiny(), tmp_path)
    train(job)
    found, steps = read_rows(tmp_path / REINFORCED.name / ROLLOUTS), curve(tmp_path)
    assert len(steps) == 3
    for number, step in enumerate(steps):
        mine = [row for row in found if row["step"] == number]
        assert len(mine) == step["groups"] * 4
        assert step["largest_drift"] < 1e-4 and step["groups_asked"] >= step["groups"]
        for start in range(0, len(mine), 4):
            group = mine[start : start + 4]
            assert len({(row["id"], row["budget"]) for row in group}) == 1
            mean = sum(row["reward"] for row in group) / 4
            assert [row["advantage"] for row in group] == [row["reward"] - mean for row in group]
            assert len({row["reward"] for row in group}) == 2
    assert any(row["grad_norm"] > 0 for row in steps)
    # Each question is asked at every budget, before it is asked again.
    asked = [(row["id"], row["budget"]) for row in found[::4]]
    assert {budget for _, budget in asked} == {4, 12} and len(set(asked)) == len(asked)
    assert all(row["thinking"] <= row["budget"] * 1.25 + 16 for row in found)


def test_stopped_and_continued_it_gives_the_same_curve(tiny, tmp_path, rewarded, monkeypatch):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = Run(tiny(), tmp_path / "whole")
    train(whole)
    job, original = Run(tiny(), tmp_path / "cut"), reinforcement.Rollouts._ask
    calls = []

    def ask(self, count):
        calls.append(count)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return original(self, count)

    monkeypatch.setattr(reinforcement.Rollouts, "_ask", ask)
    for stop_at in (2, 2, -1):  # Before a step has its replies, twice.
        calls.clear()
        if stop_at > 0:
            with pytest.raises(KeyboardInterrupt):
                train(job)
        else:
            train(job)
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    rows = [read_rows(tmp_path / name / REINFORCED.name / ROLLOUTS) for name in ("whole", "cut")]
    assert rows[0] == rows[1] and len(rows[0]) > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ("thinking.levels=4,60", "reinforcement.train.row_tokens=140"),
            "row_tokens=140 is too short for the longest prompt",
        ),
        (("thinking.levels=4,390",), "more than the student's context of 512"),
    ],
)
def test_the_longest_reply_has_to_fit(tiny, tmp_path, changes, message):
    one_stage.check(Run(tiny(), tmp_path))
    more = ("thinking.train.row_tokens=640", "reinforcement.train.row_tokens=640")
    job = Run(tiny(*more, *changes), tmp_path)
    with pytest.raises(UserError, match=message):
        reinforcement.check(job.config, job.inputs)


def test_groups_without_a_signal_are_replaced_and_then_done_without(
    tiny, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(reinforcement.rewards, "reward", lambda *_: 0.0)
    job = Run(tiny("reinforcement.train.steps=1", "reinforcement.kl=0.1"), tmp_path)
    train(job)
    (step,) = curve(tmp_path)
    assert (step["groups"], step["groups_asked"]) == (0, 4)
    assert step["loss"] == step["grad_norm"] == 0
    assert "have one reward, so nothing is learned" in caplog.text
    assert read_rows(tmp_path / REINFORCED.name / ROLLOUTS) == []


def test_the_reference_is_the_student_before(tiny, tmp_path, rewarded):
    job = Run(tiny("reinforcement.kl=0.5", "reinforcement.train.learning_rate=0.01"), tmp_path)
    train(job)
    first, *later = curve(tmp_path)
    assert first["kl_loss"] == pytest.approx(0, abs=1e-4)
    assert max(abs(row["kl_loss"]) for row in later) > 1e-3
    for row in (first, *later):
        assert row["loss"] == pytest.approx(row["policy_loss"] + 0.5 * row["kl_loss"], abs=1e-5)


@pytest.mark.slow
def test_it_follows_the_training_at_budgets_and_both_are_tested(tiny, tmp_path):
    config = tiny()
    plan = {stage.name: stage for stage in methods.stages(config)}
    assert plan[REINFORCED.name].reads["made"] == BUDGETED.name
    before = {stage.name: stage for stage in methods.stages(override(config, ("method=budgeted",)))}
    shared = [name for name in before if name in plan and name != "evaluation/student"]
    assert BUDGETED.name in shared and OF_CONTROL["stated"].name in shared
    assert all(plan[name] == before[name] for name in shared)
    report = tiny_run.finish_here(config, tmp_path)
    assert list(report["budgets"]) == ["stated", "reinforced"]
    found = read_rows(tmp_path / OF_CONTROL["reinforced"].name / TESTED)
    assert [row["budget"] for row in found] == [4] * 4 + [12] * 4
    page = (tmp_path / "report.html").read_text()
    assert "After reinforcement learning, told the budget" in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("reinforcement.train.steps=0",), "say how many steps there are"),
        (("data.labelled=false",), "rewards right answers"),
    ],
)
def test_settings_that_cannot_work(changes, message):
    config = override(budgets.get_config(), ("method=bard", *changes))
    with pytest.raises(UserError, match=message):
        validate(config)
