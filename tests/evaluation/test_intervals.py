"""Bootstrap intervals against what is known of binomials, pairs and seeds."""

import numpy as np
import pytest

from bridge_jax.evaluation import intervals
from bridge_jax.evaluation.intervals import Resampling, estimate


def answers(n, share, seed=0):
    right = np.random.default_rng(seed).permutation(n) < share * n
    return {f"q{i}": bool(ok) for i, ok in enumerate(right)}


def test_questions_scatter_as_a_binomial_does():
    correct = answers(400, 0.3)
    drawn = Resampling().accuracy(list(correct), correct)
    assert drawn.mean() == pytest.approx(0.3, abs=0.002)
    assert drawn.std() == pytest.approx(np.sqrt(0.3 * 0.7 / 400), rel=0.05)


def test_models_on_the_same_questions_are_paired():
    draws, correct = Resampling(), answers(100, 0.5)
    better = correct | dict.fromkeys(list(correct)[:5], True)
    test = list(correct)
    difference = draws.accuracy(test, better) - draws.accuracy(test, correct)
    gained = sum(better[name] != correct[name] for name in test)
    assert difference.mean() == pytest.approx(gained / 100, abs=0.005)
    # The variance of gained / 100 alone: the other 95 questions cancel.
    assert difference.std() == pytest.approx(np.sqrt(gained) / 100, rel=0.1)


def test_a_part_of_the_questions_shares_the_draws_of_the_whole():
    draws, correct = Resampling(), answers(200, 0.5)
    test = list(correct)
    half = {name: correct[name] for name in test[:100]}
    part, whole = draws.accuracy(test, half), draws.accuracy(test, correct)
    assert part.mean() == pytest.approx(np.mean(list(half.values())), abs=0.004)
    assert np.corrcoef(part, whole)[0, 1] == pytest.approx(np.sqrt(0.5), abs=0.06)


def test_seeds_with_the_same_questions_draw_the_same_ones_and_others_their_own():
    draws, correct = Resampling(), answers(100, 0.5)
    renamed = {f"other {name}": ok for name, ok in correct.items()}
    one, again = (draws.accuracy(list(correct), correct) for _ in range(2))
    apart = draws.accuracy(list(renamed), renamed)
    assert (one == again).all()
    assert abs(np.corrcoef(one, apart)[0, 1]) < 0.06
    # Crossed: the questions' share of the variance does not shrink with seeds. Nested: it halves.
    crossed = draws.over_seeds({0: one, 1: again}).var()
    nested = draws.over_seeds({0: one, 1: apart}).var()
    assert crossed == pytest.approx(one.var(), rel=0.05)
    assert 0.6 < nested / crossed < 0.9  # half, and more where one seed is drawn twice


def test_seeds_that_differ_widen_the_interval():
    draws = Resampling()
    flat = {seed: np.full(intervals.REPLICATES, 0.5) for seed in range(3)}
    spread = {
        seed: np.full(intervals.REPLICATES, value) for seed, value in enumerate((0.4, 0.5, 0.6))
    }
    assert draws.over_seeds(flat).std() < 1e-12
    # The bootstrap's standard error of a mean over n = 3: sqrt((n - 1) / n) s / sqrt(n).
    assert draws.over_seeds(spread).std() == pytest.approx(
        np.sqrt(2 / 3) * 0.1 / np.sqrt(3), rel=0.05
    )


def test_the_draws_are_those_of_every_process():
    correct = answers(50, 0.4)
    first, second = (Resampling().accuracy(list(correct), correct) for _ in range(2))
    assert (first == second).all()


def test_an_estimate_has_both_intervals():
    found = estimate({1: 0.4, 0: 0.6, 2: 0.5}, np.linspace(0, 1, 1001))
    assert found["mean"] == pytest.approx(0.5)
    assert (found["low"], found["high"]) == pytest.approx((0.025, 0.975))
    # s = 0.1, t(0.975, 2) = 4.3027: 0.2484.
    assert (found["t_low"], found["t_high"]) == pytest.approx((0.2516, 0.7484), abs=1e-4)
    assert found["seeds"] == {"0": 0.6, "1": 0.4, "2": 0.5}
    assert estimate({0: 0.5}, np.full(10, 0.5))["t_low"] is None


def test_a_replicate_without_any_of_a_few_questions_is_no_division_by_nothing():
    test = [f"q{i}" for i in range(50)]
    drawn = Resampling().accuracy(test, {"q0": True})
    assert (drawn == 1).all()


def test_the_questions_that_a_difference_needs():
    """They disagree on 5 of 10, with a half more in each count on 6 of 12: d = 0.5, D = 0.2.

    (1.959964 sqrt(.5) + .841621 sqrt(.5 - .04))² / .04 = (1.385904 + .570816)² / .04 = 95.7.
    """
    a = [{"id": i, "correct": i < 6} for i in range(10)]
    b = [{"id": i, "correct": 3 <= i < 8} for i in range(10)]
    assert intervals.questions_needed(a, b, 0.2) == 96
    assert intervals.questions_needed(a, b, -0.2) == 96
    # A quarter of the difference needs about sixteen times as many.
    assert intervals.questions_needed(a, b, 0.05) == 1568
    # Models that never disagree: d is at least D = .5, (1.386 + .841621 x .5)² / .25 = 13.05.
    assert intervals.questions_needed(a, a, 0.5) == 14


def test_the_seeds_that_a_mean_needs():
    """Mean 2, variance 4: 7.848879 x 4 / 4 = 7.85."""
    assert intervals.seeds_needed([0.0, 2.0, 4.0]) == 8
    assert intervals.seeds_needed([2.0, 2.0]) == 2
    assert intervals.seeds_needed([2.0]) is None
    assert intervals.seeds_needed([-1.0, 1.0]) is None
