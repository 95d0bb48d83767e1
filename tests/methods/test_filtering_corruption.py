"""Errors put into rationales: how many, where, of what kind, and what the filters see of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_jax.config import RationalesConfig
from bridge_jax.data.answers import is_correct
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.methods.filtering import corrupt, why_rejected
from tests.methods import one_stage

COUNT = 20
POOL = {
    f"e{i}": Example(f"e{i}", f"Question {i}?", f"{i}.00", "numeric")
    if i % 2
    else Example(f"e{i}", f"Question {i}?", "yes", "label", ("yes", "no", "maybe"))
    for i in range(COUNT)
}
ROWS = [
    one_stage.written(
        e,
        completion=f"Reason {i}.\nAnswer: {e.answer}",
        rationale=f"Reason {i}.",
        answer=e.answer.removesuffix(".00"),
        mean_logprob=-0.01 * i,
        min_step_logprob=-0.02 * i,
    )
    for i, e in enumerate(POOL.values())
]


def noisy(rate, kind, seed=0, rows=ROWS):
    return corrupt(rows, POOL, RationalesConfig(corruption=rate, corruption_kind=kind), seed)


@pytest.mark.parametrize("kind", ["wrong_answer", "wrong_reasoning"])
@given(rate=st.floats(0, 1), seed=st.integers(0, 1000))
def test_the_rate_is_exact_and_the_rest_is_left_alone(kind, rate, seed):
    found = noisy(rate, kind, seed)
    assert sum(row["corruption"] == kind for row in found) == round(rate * COUNT)
    for before, after in zip(ROWS, found):
        if after["corruption"] is None:
            assert after == before | {"corruption": None}
        else:
            assert after["completion"] == f"{after['rationale']}\nAnswer: {after['answer']}"


def test_a_wrong_answer_is_one_of_the_task_and_seen_by_the_gold_filter_alone():
    found = noisy(1.0, "wrong_answer")
    numbers = {e.answer for e in POOL.values() if e.kind == "numeric"}
    for before, after in zip(ROWS, found):
        example = POOL[after["id"]]
        assert not is_correct(after["answer"], example)
        assert after["answer"] in (example.choices or numbers)
        assert after["rationale"] == before["rationale"]
        wrong = "the answer is not the gold one"
        assert why_rejected(after, example, RationalesConfig("gold")) == wrong
        assert why_rejected(after, example, RationalesConfig("none")) is None
    assert len({row["answer"] for row in found}) > 4


def test_wrong_reasoning_is_that_of_another_example_and_seen_by_no_filter():
    found = noisy(1.0, "wrong_reasoning")
    by_rationale = {row["rationale"]: row for row in ROWS}
    for before, after in zip(ROWS, found):
        donor = by_rationale[after["rationale"]]
        assert donor["id"] != before["id"]
        assert after["answer"] == before["answer"]
        assert after["mean_logprob"] == donor["mean_logprob"]
        assert after["min_step_logprob"] == donor["min_step_logprob"]
        assert why_rejected(after, POOL[after["id"]], RationalesConfig("gold")) is None
    assert len({row["rationale"] for row in found}) > 8


@pytest.mark.parametrize("kind", ["wrong_answer", "wrong_reasoning"])
def test_a_lower_rate_is_a_part_of_a_higher_one(kind):
    low, high, other = noisy(0.2, kind), noisy(0.6, kind), noisy(0.2, kind, seed=1)
    assert all(a == b for a, b in zip(low, high) if a["corruption"])
    assert [row["corruption"] for row in low] != [row["corruption"] for row in other]


def test_what_has_no_answer_is_not_counted():
    rows = [row | {"answer": None} if i < 10 else row for i, row in enumerate(ROWS)]
    found = noisy(0.5, "wrong_answer", rows=rows)
    assert [row["corruption"] for row in found[:10]] == [None] * 10
    assert sum(row["corruption"] is not None for row in found) == 5


def test_there_must_be_something_else_to_say():
    one = [ROWS[0], ROWS[1] | {"rationale": ROWS[0]["rationale"]}]
    with pytest.raises(UserError, match="the same for every example"):
        noisy(1.0, "wrong_reasoning", rows=one)
    only = {"e0": Example("e0", "Question?", "yes", "label", ("yes",))}
    config = RationalesConfig(corruption=1.0)
    with pytest.raises(UserError, match="example 'e0' has no other answer"):
        corrupt(ROWS[:1], only, config, 0)
