import re

import pytest

from bridge_jax.data import answers
from bridge_jax.data.practice import MAX_STEPS, generate
from bridge_jax.errors import UserError

DOMAINS = tuple(MAX_STEPS)
LENGTHS = ("short", "medium", "long")


def everything(splits):
    return (*splits.pool, *splits.dev, *splits.test)


@pytest.fixture(scope="module", params=[0, 1, 2])
def splits(request):
    return generate(request.param, 600, 30, 150, DOMAINS, 1, 3)


def test_gold_answers_are_canonical_and_right(splits):
    for example in everything(splits):
        assert answers.parse_answer(example.answer, example) == example.answer
        assert answers.is_correct(example.answer, example)


def test_every_rationale_ends_in_the_answer(splits):
    for example in everything(splits):
        for length in LENGTHS:
            text = example.rationales[length]
            assert re.findall(r"\w+", text.removesuffix(" floor."))[-1] == example.answer
            if example.kind == "numeric":
                assert answers.answer_in_recorded_text(text, example) == (text, example.answer)


def test_rationales_differ_in_length(splits):
    for example in everything(splits):
        short, medium, long = (len(example.rationales[length].split()) for length in LENGTHS)
        assert short < medium < long <= 90


def test_questions_are_short(splits):
    counts = [len(example.question.split()) for example in everything(splits)]
    assert 6 <= sum(counts) / len(counts) <= 15
    assert max(counts) <= 20


def test_splits_share_nothing_and_have_the_sizes_asked_for(splits):
    rows = everything(splits)
    assert (len(splits.pool), len(splits.dev), len(splits.test)) == (600, 30, 150)
    assert len({row.id for row in rows}) == len(rows)
    assert len({row.question for row in rows}) == len(rows)
    assert all(re.fullmatch(rf"practice-{row.domain}-\d{{5}}", row.id) for row in rows)


def steps_of(example):
    """Counts the steps of the medium rationale without looking at how it was made."""
    text = example.rationales["medium"]
    if example.kind == "label":
        return len(re.findall(r"\bis ", text)) + text.count(" goes to ")
    return len(re.findall(r"\bA \w+ is \d", text))


def test_steps_and_domains_are_uniform(splits):
    counts = {}
    for example in splits.test:
        key = (example.domain, steps_of(example))
        counts[key] = counts.get(key, 0) + 1
    assert counts == {(domain, steps): 10 for domain in DOMAINS for steps in (1, 2, 3)}


def test_same_seed_same_examples():
    first, again = (generate(7, 40, 5, 10, DOMAINS, 1, 3) for _ in range(2))
    assert first == again
    assert generate(8, 40, 5, 10, DOMAINS, 1, 3).pool != first.pool


def test_test_does_not_change_with_the_pool():
    small, large = (generate(3, size, 5, 20, DOMAINS, 1, 3) for size in (10, 80))
    assert small.test == large.test
    assert [row.question for row in small.pool] == [row.question for row in large.pool[:10]]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_step_knob(steps):
    rows = everything(generate(0, 60, 0, 30, DOMAINS, steps, steps))
    assert {steps_of(row) for row in rows} == {steps}


def test_one_domain():
    assert {row.domain for row in generate(0, 20, 0, 5, ("fees",), 1, 2).pool} == {"fees"}


@pytest.mark.parametrize(
    ("domains", "low", "high", "message"),
    [
        (("cooking",), 1, 3, "data.domains=cooking"),
        ((), 1, 3, "data.domains="),
        (DOMAINS, 0, 3, "data.min_steps=0"),
        (DOMAINS, 3, 2, "data.max_steps=2"),
        (("samples",), 1, 13, "data.max_steps=13: 1 <= min <= max <= 12"),
        (("fees", "triage"), 1, 4, "1 <= min <= max <= 3 for data.domains=fees,triage"),
    ],
)
def test_wrong_arguments(domains, low, high, message):
    with pytest.raises(UserError, match=re.escape(message)):
        generate(0, 5, 0, 5, domains, low, high)


def test_more_questions_than_there_are_is_an_error():
    with pytest.raises(UserError, match="no unseen samples question with 1 steps after"):
        generate(0, 100, 0, 5, ("samples",), 1, 1, families=3)
