"""Reinforcement learning at budgets: what is asked, what is learned from, and how it goes on."""

import dataclasses

import pytest

from bridge_jax import methods
from bridge_jax.config.io import override
from bridge_jax.errors import UserError
from bridge_jax.generation.budgets import Reply
from bridge_jax.generation.engine import Engine
from bridge_jax.methods import budget_rollouts, reinforcement
from bridge_jax.methods.apprenticeship import SELECTION
from bridge_jax.methods.budget_tests import OF_CONTROL, TESTED
from bridge_jax.methods.budgeted import BUDGETED
from bridge_jax.methods.checks import validate
from bridge_jax.methods.reinforcement import REINFORCED
from bridge_jax.methods.rollouts import ROLLOUTS
from bridge_jax.pipeline.files import read_rows
from bridge_jax.runs import Run
from bridge_jax.training import loop
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
    "reinforcement.most_kl=2",
    "reinforcement.train.steps=3",
    "reinforcement.train.batch_rows=2",
    "reinforcement.train.row_tokens=192",
    "reinforcement.train.checkpoint_every=1",
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tiny_run.write_config(tmp_path_factory.mktemp("reinforcement"))
    return lambda *assignments: tiny_run.settings(path, *SETTINGS, *assignments)


def half_right(patch):
    """Lets half of the replies of a random model be right, by the sum of their tokens."""

    def read(tokenizer, thinking, ids, example):
        return Reply(tokenizer.decode(ids), example.answer if sum(ids) % 2 else None, len(ids))

    patch.setattr(budget_rollouts.budgets, "read", read)
    patch.setattr(budget_rollouts, "reward", lambda kind, right, *_: float(right))


@pytest.fixture
def rewarded(monkeypatch):
    half_right(monkeypatch)


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


@pytest.fixture(scope="module")
def uncut(tiny, tmp_path_factory):
    """The workdir of a training that nothing has stopped."""
    path = tmp_path_factory.mktemp("uncut")
    with pytest.MonkeyPatch.context() as patch:
        half_right(patch)
        train(Run(tiny(), path))
    return path


def killed_at(patch, place, call):
    """Kills the process, as far as it can tell, at the given call of a function."""
    owner, name, is_after = {
        "before a step has its replies": (budget_rollouts.Rollouts, "_ask", False),
        "while replies are written": (Engine, "complete", True),
        "before a step has learned": (loop, "shard_batch", False),
        "after a step": (loop.Recorder, "step", True),
        "after its state is saved": (loop.StateCheckpoints, "save", True),
    }[place]
    original, calls = getattr(owner, name), []

    def stop(*given, **named):
        calls.append(given)
        if len(calls) != call:
            return original(*given, **named)
        if is_after:
            found = original(*given, **named)
            if name == "complete":
                next(found)  # Some replies are there, others not.
        raise KeyboardInterrupt

    patch.setattr(owner, name, stop)


@pytest.mark.parametrize(
    ("place", "call"),
    [
        pytest.param("before a step has its replies", 3, marks=pytest.mark.slow),
        ("while replies are written", 3),
        ("before a step has learned", 2),
        pytest.param("after a step", 2, marks=pytest.mark.slow),
        ("after its state is saved", 1),
    ],
)
def test_killed_and_continued_it_gives_the_same_curve(
    tiny, tmp_path, uncut, rewarded, monkeypatch, place, call
):
    job = Run(tiny(), tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, place, call)
        with pytest.raises(KeyboardInterrupt):
            train(job)
    assert len(curve(tmp_path)) < 3
    train(job)
    assert curve(tmp_path) == curve(uncut)
    rows = [read_rows(path / REINFORCED.name / ROLLOUTS) for path in (uncut, tmp_path)]
    assert rows[0] == rows[1] and len(rows[0]) > 0


def test_a_limit_stops_it_and_with_another_it_goes_on(tiny, tmp_path, uncut, rewarded):
    # Half of the replies have an answer.
    limits = "reinforcement.limit_steps=1", "reinforcement.least_compliance=0.9"
    with pytest.raises(UserError, match=r"after 1 steps.* reinforcement\.least_compliance=0\.9"):
        train(Run(tiny(*limits), tmp_path))
    assert curve(tmp_path) == curve(uncut)[:1]
    train(Run(tiny(limits[0], "reinforcement.least_compliance=0"), tmp_path))
    assert curve(tmp_path) == curve(uncut)


def test_limits_are_on_what_each_step_logs(tiny, uncut):
    how = tiny().reinforcement
    guards = reinforcement.guards_of(how)
    assert [each.name for each in guards] == ["drift", "kl_loss", "entropy", "compliance", "spread"]
    for each in guards:
        assert hasattr(how, each.setting.removeprefix("reinforcement."))
        assert all(each.name in row for row in curve(uncut))
    none = dataclasses.replace(how, most_drift=0.0, most_kl=0.0, least_spread=0.0)
    assert [each.name for each in reinforcement.guards_of(none)] == ["entropy", "compliance"]


def test_what_is_logged_of_the_replies(uncut):
    found, (first, *_) = read_rows(uncut / REINFORCED.name / ROLLOUTS), curve(uncut)
    mine = [row for row in found if row["step"] == 0]
    assert first["groups"] == first["groups_asked"] == 2  # So that the file has all of them.
    for figure, count in (
        ("compliance", sum(row["answer"] is not None for row in mine)),
        ("accuracy", sum(row["correct"] for row in mine)),
        ("reward", sum(row["reward"] for row in mine)),
        ("over_budget", sum(row["thinking"] > row["budget"] for row in mine)),
    ):
        assert first[figure] == pytest.approx(count / len(mine))
    means = [sum(r["thinking"] for r in mine if r["budget"] == level) / 4 for level in (4, 12)]
    assert [first["thinking_4"], first["thinking_12"]] == pytest.approx(means)
    assert first["spread"] == pytest.approx(max(means) / min(means))
    assert 4 < first["entropy"] < 6.24  # A random model; the uniform one of 512 tokens has 6.24.
    assert first["kl_loss"] == pytest.approx(0, abs=1e-4)


@pytest.mark.slow
def test_only_some_budgets_are_asked(tiny, tmp_path, rewarded):
    # A row has no room for the largest budget, which is not asked.
    taught = "thinking.levels=4,12,120", "thinking.train.row_tokens=240"
    job = Run(tiny(*taught, "reinforcement.levels=4,12"), tmp_path)
    reinforcement.check(job.config, job.inputs)
    with pytest.raises(UserError, match="or leave out the largest"):
        reinforcement.check(tiny(*taught), job.inputs)
    more = "reinforcement.levels=4", "reinforcement.train.steps=1", "reinforcement.most_kl=0"
    train(Run(tiny(*taught, *more), tmp_path))
    assert {row["budget"] for row in read_rows(tmp_path / REINFORCED.name / ROLLOUTS)} == {4}
    (step,) = curve(tmp_path)
    assert "thinking_4" in step and not {"thinking_12", "spread", "kl_loss"} & step.keys()


def test_only_questions_that_were_not_selected_are_asked(tiny, tmp_path, rewarded):
    more = "reinforcement.questions=unselected", "selection.size=3", "reinforcement.train.steps=2"
    job = Run(tiny(*more), tmp_path)
    one_stage.check(job)
    assert one_stage.stage_of(job, REINFORCED).reads["chosen"] == SELECTION.name
    ids = [example.id for example in job.inputs.pool]
    record = {"strategy": "random", "size": 3, "ids": ids[::2], "clusters": None, "set_aside": []}
    one_stage.folder_of(job, SELECTION).write_record("selection.json", record)
    train(job)
    asked = {row["id"] for row in read_rows(tmp_path / REINFORCED.name / ROLLOUTS)}
    assert asked and asked <= set(ids[1::2])
    few = tiny(*more, "selection.size=5")
    with pytest.raises(UserError, match=r"1 of the pool's 6 questions are not selected .* need 2;"):
        reinforcement.check(few, Run(few, tmp_path / "few").inputs)


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
    monkeypatch.setattr(budget_rollouts, "reward", lambda *_: 0.0)
    job = Run(tiny("reinforcement.train.steps=1", "reinforcement.kl=0.1"), tmp_path)
    train(job)
    (step,) = curve(tmp_path)
    assert (step["groups"], step["groups_asked"]) == (0, 4)
    assert step["loss"] == step["grad_norm"] == 0
    assert "got the same reward, so this step learns nothing" in caplog.text
    assert read_rows(tmp_path / REINFORCED.name / ROLLOUTS) == []


@pytest.mark.slow
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
        (("reinforcement.train.steps=0",), "set the number of steps"),
        (("data.labelled=false",), "rewards right answers"),
        (("reinforcement.levels=16,48",), r"levels=16,48: only budgets of thinking\.levels=16,32,"),
        (("reinforcement.levels=32,16",), "levels=32,16: list each once, from small to large"),
        (("reinforcement.least_spread=4",), "more than replies within the budgets 16 to 64"),
        (
            (
                "reinforcement.questions=unselected",
                "thinking.after=self",
                "thinking.shortened_by=assistant",
            ),
            "there is no teacher, and no question is selected",
        ),
    ],
)
def test_settings_that_cannot_work(changes, message):
    config = override(budgets.get_config(), ("method=bard", *changes))
    with pytest.raises(UserError, match=message):
        validate(config)


def test_rows_need_not_hold_the_longest_reply_of_other_stages():
    config = override(budgets.get_config(), ("method=bard",))
    longest = config.max_prompt_tokens + config.generation.max_new_tokens
    assert config.reinforcement.train.row_tokens < longest
    validate(config)
    too_short = ("method=bridge", f"assistant_training.row_tokens={longest - 1}")
    with pytest.raises(UserError, match=f"assistant_training.row_tokens={longest - 1} is too"):
        validate(override(budgets.get_config(), too_short))
