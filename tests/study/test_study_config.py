"""The config of a study: distinct runs, each compared with the reference on the same test."""

import dataclasses
import re

import pytest

from bridge_jax.config import RunConfig
from bridge_jax.config.io import override
from bridge_jax.errors import UserError
from bridge_jax.study import study as studies
from bridge_jax.study.study import Study, StudyRun


def run(variant, seed, x=None, *changes):
    named = [f"seed={seed}", f"data.rationale={variant}{x}", *changes]
    return StudyRun(variant, override(RunConfig(), named), x)


def made(*runs, reference="a", axis="queries"):
    return Study("s", "?", runs, reference, axis)


def test_a_folder_says_variant_x_and_seed():
    assert run("bridge, no filter", 3).folder == "bridge-no-filter-seed3"
    assert run("random", 0, 0.1).folder == "random-0.1-seed0"
    assert run("random", 0, 20.0).folder == "random-20-seed0"


@pytest.mark.parametrize(
    ("study", "message"),
    [
        (made(), "study 's' has no runs"),
        (made(run("a", 0), run("a", 0)), "several runs are ['a-seed0']"),
        (made(run("a b", 0), run("a-b", 0), reference="a b"), "several runs are ['a-b-seed0']"),
        (made(run("a", 0), reference="c"), "reference='c' is not one of its variants: a"),
        (made(run("a", 0, 1.0), axis=""), "run a-1-seed0 has x=1.0, but axis is empty"),
        (made(run("a", 0, float("nan"))), "study 's': 'a' has x=nan"),
        (made(StudyRun("a", None)), "the config of 'a' is a NoneType"),  # type: ignore[arg-type]
        (made(run("a", 0), run("b", 1)), "'b' at x=None has no seed in common"),
        (
            made(run("a", 0), StudyRun("b", run("a", 0).config)),
            "run b-seed0 has the same config as a-seed0",
        ),
        (
            made(run("a", 0), run("b", 0, None, "budget.queries=0")),
            "run b-seed0: budget.queries=0",
        ),
    ],
)
def test_a_mistake_is_named(study, message):
    with pytest.raises(UserError, match=re.escape(message)):
        studies.check(study)


def test_a_point_is_compared_at_its_x_or_with_a_level():
    points = [("a", 1.0), ("a", 2.0), ("b", 1.0), ("b", 3.0), ("c", None)]
    assert studies.compared_with(("b", 1.0), "a", points) == ("a", 1.0)
    assert studies.compared_with(("b", 3.0), "a", points) is None
    assert studies.compared_with(("b", 3.0), "c", points) == ("c", None)


def test_overrides_apply_to_every_run(tmp_path):
    path = tmp_path / "s.py"
    path.write_text(
        "from bridge_jax.config import RunConfig\n"
        "from bridge_jax.config.io import override\n"
        "from bridge_jax.study.study import Study, StudyRun\n"
        "def get_study():\n"
        "    runs = [StudyRun('a', override(RunConfig(), [f'seed={s}'])) for s in (0, 1)]\n"
        "    return Study('s', '?', tuple(runs), 'a')\n"
    )
    found = studies.load(path, ["budget.queries=7"])
    assert [run.config.budget.queries for run in found.runs] == [7, 7]
    with pytest.raises(UserError, match=r"run a-seed0 has the config|several runs"):
        studies.load(path, ["seed=3"])
    path.write_text("def get_study():\n    return {}\n")
    with pytest.raises(UserError, match=r"get_study\(\) returns a dict, not a Study"):
        studies.load(path)


def test_all_runs_pay_from_one_ledger_and_their_key_does_not_say_where(tmp_path):
    study = made(run("a", 0), run("b", 0, None, "budget.ledger=mine.sqlite"))
    here = studies.in_folder(study, tmp_path / "here")
    assert [run.config.budget.ledger for run in here.runs] == [
        str(tmp_path / "here" / "ledger.sqlite"),
        "mine.sqlite",
    ]
    moved = studies.in_folder(study, tmp_path / "moved")
    assert here.to_json() == moved.to_json()
    other = dataclasses.replace(study, runs=(run("a", 0, None, "budget.usd=2"), study.runs[1]))
    assert other.to_json() != study.to_json()


def test_the_test_set_must_be_the_same_for_a_seed():
    small = ("data.pool=8", "data.dev=2", "data.test=6", "data.max_steps=1")
    same = made(
        run("a", 0, None, *small),
        run("b", 0, None, *small, "data.pool=9"),  # the test does not change with the pool
        run("a", 1, None, *small),
    )
    studies.check_tests(same)
    shorter = made(run("a", 0, None, *small), run("b", 0, None, *small, "data.test=5"))
    with pytest.raises(UserError, match="a-seed0 and b-seed0 are tested on different questions"):
        studies.check_tests(shorter)
