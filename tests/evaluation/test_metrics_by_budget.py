"""Figures of budgets, against numbers computed by hand."""

import pytest

from bridge_jax.evaluation import metrics
from bridge_jax.evaluation.intervals import wilson


def row(name, budget, thinking, answer, repeat=0):
    spent = thinking + 3
    return {"id": name, "budget": budget, "thinking": thinking, "answer": answer, "repeat": repeat,
            "correct": answer == "4", "tokens": spent}  # fmt: skip


def test_figures_of_each_budget():
    rows = [
        row("a", 10, 8, "4"),
        row("b", 10, 15, "5"),
        row("a", 20, 20, "4"),
        row("b", 20, 10, "4"),
    ]
    found = metrics.by_budget(rows)
    assert list(found) == [10, 20]
    low, high = wilson(1, 2)
    assert found[10] == {
        "n": 2, "accuracy": 0.5, "low": low, "high": high, "thinking": 11.5, "over": 0.5,
        "deviation": pytest.approx((0.2 + 0.5) / 2), "tokens": 14.5,
    }  # fmt: skip
    # At the budget is not over it.
    assert (found[20]["over"], found[20]["accuracy"], found[20]["deviation"]) == (0.0, 1.0, 0.25)
    assert metrics.spread_of_thinking(found) == 15 / 11.5


def test_the_commonest_of_several_samples_counts_and_all_of_them_are_spent():
    rows = [row("a", 8, 2, text) for text in ("5", "4", None, "4")]
    rows += [row("b", 8, 2, text) for text in ("4", "5", "5", "4")]  # The first of a tie counts.
    rows += [row("c", 8, 3, None) for _ in range(4)]
    found = metrics.by_budget(rows)[8]
    assert (found["n"], found["accuracy"]) == (3, pytest.approx(2 / 3))
    assert found["tokens"] == pytest.approx((20 + 20 + 24) / 3)
    # Their thinking adds up, and is compared with the whole budget.
    assert found["thinking"] == pytest.approx((8 + 8 + 12) / 3)
    assert found["over"] == pytest.approx(1 / 3)


def test_the_mean_of_several_repeats_counts():
    rows = [row("a", 8, 2, text, repeat=n) for n, text in enumerate(("5", "4", None, "4"))]
    rows += [row("b", 8, 4, "4", repeat=n) for n in range(4)]
    found = metrics.by_budget(rows)[8]
    assert (found["n"], found["accuracy"]) == (2, 0.75)
    assert (found["low"], found["high"]) == wilson(1.5, 2)
    assert (found["tokens"], found["thinking"]) == (6, 3)  # of a reply


def test_the_anytime_index_is_the_area_under_accuracy():
    levels = {level: {"accuracy": share} for level, share in ((16, 0.0), (32, 0.5), (128, 1.0))}
    # Trapezoids over log2: (0 + .5) / 2 * 1 + (.5 + 1) / 2 * 2, of a width of 3.
    assert metrics.anytime_index(levels) == pytest.approx((0.25 + 1.5) / 3)
    assert metrics.anytime_index({64: {"accuracy": 0.7}}) == 0.7
