"""Overrides, validation and digests of the run config; every shipped config resolves."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from bridge_jax.config import RunConfig, TeacherConfig
from bridge_jax.config import io as config_io
from bridge_jax.errors import UserError
from bridge_jax.methods.checks import validate
from bridge_jax.methods.teacher import selected_count
from tests.config import docstrings

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    path
    for path in (ROOT / "configs").rglob("*.py")
    if path.name != "__init__.py" and "def get_config" in path.read_text()
)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("seed=7", 7),
        ("name=a=b", "a=b"),
        ("method=direct", "direct"),
        ("data.labelled=true", True),
        ("data.labelled=False", False),
        ("compare=direct,labels", ("direct", "labels")),
        ("compare=", ()),
        ("budget.queries=40", 40),
        ("budget.usd=2", 2.0),
        ("budget.usd=1e-3", 0.001),
        ("data.domains=fees,samples", ("fees", "samples")),
        ("data.choices=yes,no,maybe", ("yes", "no", "maybe")),
        ("data.columns=id:ID,answer:cop", {"id": "ID", "answer": "cop"}),
        ("data.columns=", {}),
        ("data.choices=spam, not spam", ("spam", "not spam")),
        ("data.domains=fees, samples", ("fees", "samples")),
        ("data.columns=id: ID , answer :cop", {"id": "ID", "answer": "cop"}),
        ("student.keep_layers=0,2,29", (0, 2, 29)),
        ("student.keep_layers=", ()),
        ("warmup.train.learning_rate=1e-4", 1e-4),
        ("warmup.train.epochs=9", 9),
    ],
)
def test_an_override_has_the_type_of_its_field(assignment, expected):
    config = config_io.override(RunConfig(), [assignment])
    value = config
    for part in assignment.partition("=")[0].split("."):
        value = getattr(value, part)
    assert value == expected
    assert type(value) is type(expected)


def test_overrides_change_nothing_else_and_the_last_one_wins():
    before = RunConfig()
    after = config_io.override(before, ["warmup.train.epochs=9", "seed=1", "seed=2"])
    train = dataclasses.replace(before.warmup.train, epochs=9)
    expected = dataclasses.replace(
        before, seed=2, warmup=dataclasses.replace(before.warmup, train=train)
    )
    assert after == expected
    assert before == RunConfig()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("budget.querys=3", "unknown config key 'budget.querys'; did you mean 'budget.queries'?"),
        ("buget.queries=3", "unknown config key 'buget.queries'; did you mean 'budget.queries'?"),
        ("warmup.train.epoch=3", "did you mean 'warmup.train.epochs'?"),
        ("sed=3", "did you mean 'seed'?"),
        ("budget=3", "config key 'budget' is a group: set one of queries, usd"),
        ("seed.x=3", "config key 'seed.x': 'seed' is a value, not a group; it has no 'x'"),
        ("budget.queries=many", "budget.queries=many: expected int"),
        ("budget.queries=1.5", "budget.queries=1.5: expected int"),
        ("budget.queries=", "budget.queries=: expected int"),
        ("budget.usd=free", "budget.usd=free: expected float"),
        ("student.keep_layers=0,one", "student.keep_layers=one: expected int"),
        ("student.keep_layers=0,,1", "student.keep_layers=: expected int"),
        ("budget.queries=٣", "budget.queries=٣: expected int"),
        ("budget.usd=¼", "budget.usd=¼: expected float"),
        ("seed=" + "7" * 5000, f"seed={'7' * 80}…: expected int"),
        ("data.columns=id:a,id:b", "data.columns=id:b: id is listed twice"),
        ("data.labelled=yes", "data.labelled=yes: expected true or false"),
        ("curves=tensorbord", "curves=tensorbord: choose one of tensorboard, wandb, trackio"),
        ("data.domains=fees,law", "data.domains=law: choose one of triage, fees, samples, filings"),
        ("data.columns=answer", "data.columns=answer: expected NAME:VALUE,NAME:VALUE"),
        ("seed", "--config.seed: give a value, --config.seed=VALUE"),
    ],
)
def test_a_bad_override_says_what_would_be_right(assignment, message):
    with pytest.raises(UserError, match=re.escape(message)):
        config_io.override(RunConfig(), [assignment])


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        ("method=bart", "method=bart is unknown; choose one of bridge, on_policy, direct, self"),
        ("budget.queries=0", "budget.queries=0: ask the teacher at least once"),
        ("budget.queries=-3", "budget.queries=-3"),
        ("budget.usd=0", "budget.usd=0.0: the cap must be above 0 US dollars"),
        ("budget.usd=nan", "budget.usd=nan"),
        ("warmup.fraction=1.5", "warmup.fraction=1.5: 0 to 1"),
        ("selection.noise_fraction=1", "selection.noise_fraction=1.0"),
        ("selection.noise_fraction=-0.1", "selection.noise_fraction=-0.1"),
        ("selection.difficulty_weight=2", "selection.difficulty_weight=2.0: 0 to 1"),
        ("selection.clusters=-1", "selection.clusters=-1: 0 or more"),
        ("data.min_steps=0", "data.min_steps=0: 1 to 12"),
        ("data.min_steps=4 data.max_steps=3", "data.min_steps=4 is above data.max_steps=3"),
        ("data.source=jsonl teacher.kind=replay", "data.path is empty, but data.source=jsonl"),
        ("teacher.kind=replay", "nothing recorded for practice tasks"),
        ("teacher.replay_from=gone.sqlite", "teacher.replay_from=gone.sqlite: no such file"),
        ("data.source=jsonl data.path=x.jsonl", "teacher.kind=oracle knows practice tasks only"),
        ("teacher.kind=gemini", "teacher.model=oracle: set it to the vendor's name for the model"),
        ("teacher.attempts=0", "teacher.attempts=0: 1 or more"),
        ("teacher.timeout=0", "teacher.timeout=0.0: above 0"),
        ("teacher.requests_per_minute=-1", "teacher.requests_per_minute=-1: 0 or more"),
        ("teacher.retries=1", "teacher.kind=oracle always returns the same reply"),
        (
            "teacher.kind=openai teacher.model=m teacher.temperature=0 teacher.retries=1",
            "teacher.temperature=0 gives the same reply in every sample and retry",
        ),
        ("teacher.min_agreement=0.5", "teacher.min_agreement=0.5 needs teacher.samples above 1"),
        ("teacher.batch=true", "teacher.batch: teacher.kind=oracle has no batch mode"),
        (
            "teacher.kind=gemini teacher.model=m teacher.batch=true "
            "teacher.backend=google-generativeai",
            "teacher.backend=google-generativeai has no batch mode",
        ),
        ("teacher.batch_share=2", "teacher.batch_share=2.0: 0 to 1"),
        ("teacher.min_agreement=2", "teacher.min_agreement=2.0: 0 to 1"),
        (
            "teacher.min_rationale_tokens=9 teacher.max_rationale_tokens=8",
            "teacher.min_rationale_tokens=9 is above teacher.max_rationale_tokens=8",
        ),
        (
            "teacher.kind=openai teacher.model=m teacher.samples=4 selection.size=7",
            "budget.queries=25 does not cover 7 examples at teacher.samples=4 requests each",
        ),
        ("selection.size=26", "budget.queries=25 does not cover 26 examples"),
        ("student_training.accumulate=3", "student_training.accumulate=3 does not divide"),
        ("warmup.train.accumulate=0", "warmup.train.accumulate=0"),
        ("warmup.train.rationale_weight=2", "warmup.train.rationale_weight=2.0: 0 to 1"),
        ("instruct.train.epochs=0", "instruct.train.epochs=0"),
        ("direct_training.batch_rows=0", "direct_training.batch_rows=0"),
        ("generation.batch_size=0", "generation.batch_size=0"),
        ("rationales.min_mean_logprob=0.1", "rationales.min_mean_logprob=0.1: a log-probability"),
        ("method=labels form=two_pass", "form=two_pass: method=labels has no rationale"),
        ("rationales.min_agreement=2", "rationales.min_agreement=2.0: 0 to 1"),
        ("rationales.filter=consistency rationales.samples=1", "samples=1: rationales.filter=con"),
        ("rationales.retries=2 rationales.retry_temperature=0", "temperature=0.0: must be above 0"),
        ("rationales.retries=2 rationales.corruption=0.5", "corruption=0.5: retries would change"),
        ("rationales.rounds=1 rationales.corruption=0.5", "corruption=0.5: rounds would change"),
        ("rationales.rounds=1 method=self", "rounds=1: method=self trains no assistant in rounds"),
        ("rationales.rounds=4", "rationales.rounds=4"),
        ("rationales.retries=65", "rationales.retries=65"),
        ("rationales.filter=consistency rationales.temperature=0", "all samples are the same"),
        ("student_training.epochs=0", "student_training.epochs=0 and student_training.steps=0"),
        ("data.labelled=false method=labels", "method=labels trains on gold answers"),
        ("data.labelled=false", "data.labelled=false: rationales.filter=gold needs labels"),
        (
            "data.labelled=false rationales.filter=none",
            "teacher.keep_wrong=false compares the teacher's answers with labels",
        ),
        (
            "data.labelled=false method=direct teacher.keep_wrong=true teacher.show_gold=true",
            "teacher.show_gold shows them to the teacher",
        ),
        (
            "data.labelled=false method=direct teacher.keep_wrong=true "
            "selection.strategy=diversity",
            "selection.difficulty=nll requires gold answers; use entropy",
        ),
        (
            "data.labelled=false method=self rationales.filter=none rationales.corruption=0.5",
            "rationales.corruption_kind=wrong_answer requires the right answer",
        ),
        ("data.min_rouge=0", "data.min_rouge=0.0: above 0, at most 1"),
        ("rationales.corruption=1.5", "rationales.corruption=1.5: 0 to 1"),
        ("logits.weight=2", "logits.weight=2.0: 0 to 1"),
        ("logits.top_k=0", "logits.top_k=0: 1 or more"),
        ("method=direct logits.weight=0.5", "method=direct has no assistant that writes"),
        ("generation.max_new_tokens=0", "generation.max_new_tokens=0"),
    ],
)
def test_validate_refuses_what_cannot_work(assignments, message):
    config = config_io.override(RunConfig(), assignments.split())
    with pytest.raises(UserError, match=re.escape(message)):
        validate(config)


def test_the_selection_is_what_the_budget_pays_for_unless_its_size_is_given():
    def selected(*assignments):
        config = config_io.override(RunConfig(), ["teacher.kind=openai", "teacher.model=m"])
        return selected_count(validate(config_io.override(config, assignments)))

    assert selected() == 25
    assert selected("teacher.samples=3") == 8
    assert selected("teacher.samples=3", "selection.size=5") == 5
    assert selected("selection.size=20", "teacher.retries=2") == 20


def test_validate_returns_a_good_config():
    assert validate(RunConfig()) == RunConfig()


def test_what_is_recorded_answers_practice_tasks_too(tmp_path):
    (tmp_path / "a.jsonl").touch()
    teacher = TeacherConfig(kind="replay", replay_from=str(tmp_path / "a.jsonl"))
    config = RunConfig(teacher=teacher)
    assert validate(config) is config


def test_there_are_configs():
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_shipped_config_resolves(path):
    config = config_io.load(path)
    if not isinstance(config, RunConfig):
        pytest.skip("not the config of a run")
    if config.data.source != "practice" and not config.data.path:
        config = config_io.override(config, ["data.path=data.jsonl"])
    assert validate(config) is config
    docstrings.check(path, f"--config={path.relative_to(ROOT).as_posix()}")


def test_load_says_what_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"--config=.*gone\.py: no such file"):
        config_io.load(tmp_path / "gone.py")
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(UserError, match=r"empty\.py: has no get_config\(\)"):
        config_io.load(tmp_path / "empty.py")


def test_a_config_that_is_none_is_said_to_be_none():
    with pytest.raises(UserError, match="the config is a NoneType, not a RunConfig"):
        config_io.override(None, ["seed=1"])
    with pytest.raises(UserError, match="the config is a dict, not a RunConfig"):
        validate({"seed": 1})  # type: ignore[arg-type]


def test_a_config_comes_back_from_its_file(tmp_path):
    config = RunConfig(seed=3, teacher=TeacherConfig(model="m"))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config_io.to_json(config)))
    assert config_io.read(RunConfig, path) == config
    # Of an earlier version, with settings that no longer exist.
    found = config_io.to_json(config)
    path.write_text(json.dumps(found | {"teacher": found["teacher"] | {"gone": 1}, "old": "x"}))
    assert config_io.read(RunConfig, path) == config


@pytest.mark.parametrize(
    "text", ["[1]", "{", '{"budget": 3}', '{"seed": "1"}', '{"student": {"keep_layers": 4}}', "7"]
)
def test_a_damaged_file_of_a_config_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json: damaged \(.*; the next run rewrites it"):
        config_io.read(RunConfig, tmp_path / "config.json")


def test_the_digest_is_of_the_content():
    # A literal: a digest that changed between versions would rerun everything ever done.
    assert config_io.digest({"b": [1, 2.5], "a": None}) == "e57f5d37865437a8"
    assert config_io.digest({"a": None, "b": [1, 2.5]}) == config_io.digest(
        {"b": [1, 2.5], "a": None}
    )
    base = config_io.digest(config_io.to_json(RunConfig()))
    assert base == config_io.digest(config_io.to_json(RunConfig()))
    assert base != config_io.digest(config_io.to_json(RunConfig(seed=1)))
