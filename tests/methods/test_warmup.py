"""The beginning of the assistant: its warm-up."""

import numpy as np
import pytest

from bridge_jax.config import RunConfig
from bridge_jax.config.io import override
from bridge_jax.errors import UserError
from bridge_jax.methods import apprenticeship
from bridge_jax.methods.apprenticeship import WARMUP
from bridge_jax.runs import Run
from tests.methods import one_stage


@pytest.fixture
def make(tmp_path):
    """Makes a run of 60 practice questions, with assignments."""
    base = ["data.pool=60", "data.dev=1", "data.test=3", "warmup.fraction=0.2", "seed=3"]
    base += ["assistant_training.row_tokens=400", "student_training.row_tokens=400"]
    return lambda *settings: Run(override(RunConfig(), [*base, *settings]), tmp_path)


def drawn(job):
    params, pool = one_stage.stage_of(job, WARMUP).params, job.inputs.pool
    order = apprenticeship.drawn(pool, params.fraction, params.domains, params.how.seed)
    return [pool[i] for i in order]


def test_without_domains_it_is_a_random_part_of_the_pool(make):
    job = make()
    found = drawn(job)
    order = np.random.default_rng(3).permutation(60)
    assert found == [job.inputs.pool[int(i)] for i in order[:12]]
    assert len({example.domain for example in found}) == 3


def test_a_shift_takes_as_many_examples_of_some_domains_alone(make):
    job = make("warmup.domains=samples")
    found = drawn(job)
    assert len(found) == 12
    assert {example.domain for example in found} == {"samples"}
    assert {example.domain for example in job.inputs.pool} == {"samples", "filings", "invoices"}
    # Those of the domain that come first in the order of all.
    shuffled = drawn(make("warmup.fraction=1"))
    assert found == [example for example in shuffled if example.domain == "samples"][:12]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["warmup.domains=law"], "warmup.domains=law: 0 examples in the pool, but warmup.fract"),
        (
            ["warmup.domains=samples", "warmup.fraction=0.5"],
            "asks for 30; the pool has the domains filings, in",
        ),
    ],
)
def test_domains_that_do_not_have_enough_are_found_before_anything_is_run(
    make, checkpoint, settings, message
):
    models = [f"{role}.checkpoint={checkpoint}" for role in ("assistant", "student")]
    job = make(*settings, *models, "student.keep_layers=", "max_prompt_tokens=300")
    with pytest.raises(UserError, match=message):
        one_stage.check(job)


def test_the_examples_of_the_warm_up_are_those_that_are_drawn(make, checkpoint, monkeypatch):
    models = [f"{role}.checkpoint={checkpoint}" for role in ("assistant", "student")]
    job = make("warmup.domains=samples", *models, "max_prompt_tokens=300")
    taught = one_stage.taught(monkeypatch)
    one_stage.run_alone(job, WARMUP)
    reading = job.inputs.rendering("assistant")
    assert taught == {"warm-up": [reading.sequence(example, None) for example in drawn(job)]}


def test_instructions_that_are_too_long_are_found_before_anything_is_run(make, checkpoint):
    models = [f"{role}.checkpoint={checkpoint}" for role in ("assistant", "student")]
    short = ["data.domains=triage", "data.max_steps=1", "student.keep_layers=", *models]
    short.append("rationales.show_gold=false")
    job = make(*short, "max_prompt_tokens=300", "instruct.examples=60")
    reading = job.inputs.rendering("student")
    questions = (*job.inputs.pool, *job.inputs.test)
    longest = max(len(reading.prompt(example, "reason")) for example in questions)
    one_stage.check(make(*short, f"max_prompt_tokens={longest}", "instruct.examples=0"))
    with pytest.raises(UserError, match=r"example 'instruction-.*max_prompt_tokens is"):
        one_stage.check(make(*short, f"max_prompt_tokens={longest}", "instruct.examples=60"))


def test_the_domains_are_read_by_the_warm_up(make, checkpoint):
    models = [f"{role}.checkpoint={checkpoint}" for role in ("assistant", "student")]
    changed = one_stage.differing(make(*models), make(*models, "warmup.domains=samples"))
    assert WARMUP.name in changed
    assert not changed & {"tutoring/instruct", "evaluation/student_base"}


@pytest.mark.parametrize(
    ("setting", "more"),
    [("warmup.train", ()), ("labels_training", ("compare=labels",))],
)
def test_a_gold_answer_that_does_not_fit_a_row_is_found_before_anything_is_run(
    make, checkpoint, setting, more
):
    models = [f"{role}.checkpoint={checkpoint}" for role in ("assistant", "student")]
    settings = [*models, *more, "student.keep_layers=", "max_prompt_tokens=300"]
    job = make(*settings)
    reading = job.inputs.rendering("student")
    longest = max(len(s.prompt) + len(s.answer) for s in reading.labelled(job.inputs.pool, ""))
    one_stage.check(make(*settings, f"{setting}.row_tokens={longest}"))
    with pytest.raises(UserError, match=rf"{setting}.row_tokens={longest - 1}: example 'practice-"):
        one_stage.check(make(*settings, f"{setting}.row_tokens={longest - 1}"))
