"""The reward of a reply at a budget."""

import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_jax.config import Reward
from bridge_jax.methods import budget_rollouts as rewards

BUDGETS = st.integers(1, 10_000)


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [(0, 0.7), (25, 0.85), (50, 1.0), (100, 1.0), (105, 0.8), (120, 0.2), (125, 0.0), (500, 0.0)],
)
def test_fidelity_to_a_budget_of_100(thinking, expected):
    assert rewards.fidelity(thinking, 100) == pytest.approx(expected)
    above = expected if thinking > 100 else 1.0
    assert rewards.fidelity(thinking, 100, floor=False) == pytest.approx(above)


@given(BUDGETS, st.integers(0, 20_000))
def test_it_is_highest_from_half_the_budget_to_all_of_it_and_falls_on_both_sides(budget, thinking):
    found = rewards.fidelity(thinking, budget)
    assert 0 <= found <= 1
    if budget <= 2 * thinking and thinking <= budget:
        assert found == 1
    elif thinking > budget:
        assert found < 1 and rewards.fidelity(thinking + 1, budget) <= found
    else:
        assert found < 1 and rewards.fidelity(thinking + 1, budget) >= found


@given(st.sampled_from(["multiplied", "ceiling"]), BUDGETS, st.integers(0, 20_000), st.booleans())
def test_nothing_for_a_wrong_reply_or_one_that_was_cut(kind, budget, thinking, right):
    assert rewards.reward(kind, False, True, thinking, budget) == 0
    assert rewards.reward(kind, right, False, thinking, budget) == 0
    assert rewards.reward("added", right, False, thinking, budget) == 0


def test_what_each_kind_pays():
    # Thinking of 75, 0 and 110 tokens, and a wrong reply, at a budget of 100.
    paid = {
        kind: [rewards.reward(kind, right, True, n, 100) for right, n in
               ((True, 75), (True, 0), (True, 110), (False, 75))]
        for kind in typing.get_args(Reward)
    }  # fmt: skip
    assert paid["multiplied"] == pytest.approx([1, 0.7, 0.6, 0])
    assert paid["ceiling"] == pytest.approx([1, 1, 0.6, 0])
    assert paid["added"] == pytest.approx([1, 0.85, 0.8, 0.5])


def test_advantages_are_above_the_mean_and_not_divided_by_the_deviation():
    assert rewards.advantages([1, 0, 0, 0]) == [0.75, -0.25, -0.25, -0.25]
    assert rewards.advantages([0.1, 0.1]) == [0, 0]


@pytest.mark.parametrize(
    ("kind", "found", "right", "expected"),
    [
        ("multiplied", [1, 1, 1], [True] * 3, False),
        ("multiplied", [0, 0, 0], [False] * 3, False),
        ("multiplied", [1, 0.7, 1], [True] * 3, True),
        # All wrong, of different lengths: it would teach short wrong answers.
        ("added", [0.5, 0.35, 0.5], [False] * 3, False),
        ("added", [1, 0.85, 1], [True] * 3, False),
        ("added", [1, 0.5, 0.5], [True, False, False], True),
    ],
)
def test_groups_that_teach(kind, found, right, expected):
    assert rewards.teaches(kind, found, right) is expected
