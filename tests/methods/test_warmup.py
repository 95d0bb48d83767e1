"""What the assistant begins with."""

import numpy as np
import pytest

from bridge_jax.config import RunConfig
from bridge_jax.config_io import override
from bridge_jax.errors import UserError
from bridge_jax.phases import apprenticeship
from bridge_jax.phases.context import Run
from bridge_jax.phases.stages import fingerprints


def make(*settings):
    base = ("data.pool=60", "data.dev=1", "data.test=3", "warmup.fraction=0.2", "seed=3")
    return Run(override(RunConfig(), [*base, *settings]), None)


def test_without_domains_it_is_a_random_part_of_the_pool():
    run = make()
    found = run.warmup_examples()
    order = np.random.default_rng(3).permutation(60)
    assert found == [run.splits.pool[i] for i in order[:12]]
    assert len({example.domain for example in found}) == 3


def test_a_shift_takes_as_many_examples_of_some_domains_alone():
    run = make("warmup.domains=fees")
    found = run.warmup_examples()
    assert len(found) == 12
    assert {example.domain for example in found} == {"fees"}
    assert {example.domain for example in run.splits.pool} == {"fees", "dosing", "deadlines"}
    # Those of the domain that come first in the order of all.
    shuffled = make("warmup.fraction=1").warmup_examples()
    assert found == [example for example in shuffled if example.domain == "fees"][:12]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["warmup.domains=law"], "warmup.domains=law: 0 examples of the pool, where warmup.frac"),
        (["warmup.domains=fees", "warmup.fraction=0.5"], "asks for 30; the pool has deadlines, do"),
    ],
)
def test_domains_that_do_not_have_enough_are_found_before_anything_is_run(
    checkpoint, settings, message
):
    models = [f"{role}.checkpoint={checkpoint}" for role in ("assistant", "student")]
    with pytest.raises(UserError, match=message):
        make(*settings, *models, "student.keep_layers=", "max_prompt_tokens=300").check_inputs()


def test_instructions_that_are_too_long_are_found_before_anything_is_run(checkpoint):
    models = [f"{role}.checkpoint={checkpoint}" for role in ("assistant", "student")]
    short = ["data.domains=triage", "data.max_steps=1", "student.keep_layers=", *models]
    short.append("rationales.show_gold=false")
    run = make(*short, "max_prompt_tokens=300", "instruct.examples=60")
    questions = (*run.splits.pool, *run.splits.test)
    longest = max(len(run.prompt("student", example, "reason")) for example in questions)
    make(*short, f"max_prompt_tokens={longest}", "instruct.examples=0").check_inputs()
    with pytest.raises(UserError, match=r"example 'instruction-.*max_prompt_tokens is"):
        make(*short, f"max_prompt_tokens={longest}", "instruct.examples=60").check_inputs()


def test_the_domains_are_read_by_the_warm_up():
    stage = apprenticeship.WARMUP_STAGE
    prints = [
        fingerprints([stage], lambda key, c=run.config: str(getattr(c, key, None)))
        for run in (make(), make("warmup.domains=fees"))
    ]
    assert prints[0] != prints[1]
