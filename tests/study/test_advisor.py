"""The advisor against curves that are known, an oracle's least squares, and honest refusals."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from bridge_jax.study import advisor
from bridge_jax.study.advisor import Curve

BUDGETS = np.array([1.0, 4, 20, 40, 80])


def pilot(truth, noise=0.01, budgets=BUDGETS, seed=0):
    """Points on `truth` with normal noise, and replicates that scatter as much around them."""
    rng = np.random.default_rng(seed)
    exact = np.array([truth(b) for b in budgets])
    measured = exact + noise * rng.normal(size=len(exact))
    return budgets, measured, measured + noise * rng.normal(size=(2000, len(exact)))


def power(a, b, c):
    return lambda budget: a - b * (budget + 1) ** -c


@given(
    st.floats(0.3, 1.0), st.floats(0.05, 0.8), st.floats(0.1, 2.0), st.integers(0, 2**32 - 1)
)  # fmt: skip
@example(1.0, 0.0625, 1.0, 2428061)  # a mean above 1
@example(1.0, 0.75, 2.0, 100331)  # the best rate is between the largest two of the grid
@example(0.5, 0.75, 0.5, 13931)  # the best rate is between those of the grid
@settings(max_examples=30, deadline=None)
def test_no_other_curve_within_the_bounds_fits_better(a, b, c, seed):
    noise = np.random.default_rng(seed).normal(size=len(BUDGETS)) * 0.03
    y = np.array([power(a, b, c)(budget) for budget in BUDGETS]) + noise
    ours = advisor.fit(BUDGETS, y)
    error = ((ours.a - ours.b * (BUDGETS + 1) ** -ours.c - y) ** 2).sum()

    def residuals(p):
        return p[0] - p[1] * (BUDGETS + 1) ** -p[2] - y

    starts = [(min(0.99, y.max()), 0.2, rate) for rate in (0.05, 0.3, 1.0, 2.5)]
    bounds = ([-np.inf, 0, 0.03], [1, np.inf, 3])
    best = min(2 * least_squares(residuals, start, bounds=bounds).cost for start in starts)
    assert error <= best + 1e-8
    assert ours.a <= 1 and ours.b >= 0


def test_an_exact_curve_is_found_again():
    truth = power(0.8, 0.5, 0.5)
    found = advisor.fit(BUDGETS, np.array([truth(b) for b in BUDGETS]))
    assert (found.a, found.b, found.c) == pytest.approx((0.8, 0.5, 0.5), abs=1e-6)
    # 0.8 - 0.5 (B + 1)^-0.5 = 0.7 where B + 1 = 25.
    assert found.budget(0.7) == pytest.approx(24, rel=1e-4)
    assert found.budget(0.81) == np.inf
    assert Curve(*np.array([0.8, 0.5, 0.5])).budget(0.8) == np.inf  # the asymptote itself
    assert found.budget(0.1) == 0


def test_budget_and_accuracy_are_each_others_inverse():
    advice = advisor.advise(*pilot(power(0.8, 0.5, 0.5), noise=0.005))
    asked = advisor.budget_for(advice, 0.70)
    assert asked["status"] == "within"
    assert asked["low"] < asked["queries"] < asked["high"]
    assert asked["low"] < 24 < asked["high"]  # 5**2 - 1
    back = advisor.accuracy_for(advice, asked["queries"])
    assert back["accuracy"] == pytest.approx(0.70, abs=1e-3)
    assert back["status"] == "within" and back["low"] < 0.70 < back["high"]


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_says():
    truth = power(0.75, 0.4, 0.6)
    inside = 0
    for seed in range(100):
        said = advisor.accuracy_for(advisor.advise(*pilot(truth, 0.02, seed=seed)), 40)
        inside += said["low"] <= truth(40) <= said["high"]
    assert inside >= 80  # 90 expected; 3 standard deviations below


def test_what_was_not_measured_is_called_so():
    advice = advisor.advise(*pilot(power(0.8, 0.5, 0.5), noise=0.002))
    assert advisor.accuracy_for(advice, 500)["status"] == "beyond"
    assert advisor.budget_for(advice, 0.77)["status"] == "beyond"  # about 276 queries
    never = advisor.budget_for(advice, 0.95)
    assert (never["status"], never["queries"], never["high"]) == ("never", None, None)


def test_a_flat_curve_and_too_few_points_give_no_number():
    flat = advisor.advise(*pilot(lambda budget: 0.5, noise=0.03))
    falling = advisor.advise(*pilot(lambda budget: 0.6 - 0.002 * budget, noise=0.01))
    few = advisor.advise(*pilot(power(0.8, 0.5, 0.5), budgets=BUDGETS[:3]))
    assert (flat["status"], falling["status"], few["status"]) == ("flat", "flat", "few")
    for advice in (flat, falling, few):
        assert advisor.budget_for(advice, 0.6) == {"status": advice["status"]}
        assert advisor.accuracy_for(advice, 10) == {"status": advice["status"]}


def test_the_largest_budget_is_predicted_from_the_others():
    held = advisor.advise(*pilot(power(0.8, 0.5, 0.5), noise=0.01))["held_out"]
    assert held["queries"] == 80
    assert held["inside"] and held["low"] < held["predicted"] < held["high"]

    def breaks(budget):  # a collapse that no smaller budget shows
        return power(0.8, 0.5, 0.5)(budget) - 0.3 * (budget == 80)

    wrong = advisor.advise(*pilot(breaks, noise=0.005))
    assert wrong["status"] == "flat" or not wrong["held_out"]["inside"]
    four = advisor.advise(*pilot(power(0.8, 0.5, 0.5), budgets=BUDGETS[:4]))
    assert four["held_out"] is None


def test_the_band_is_around_the_curve():
    advice = advisor.advise(*pilot(power(0.8, 0.5, 0.5)))
    band = advisor.band(advice, [1, 10, 80])
    assert band.shape == (3, 3)
    assert (band[:, 1] < band[:, 0]).all() and (band[:, 0] < band[:, 2]).all()
    one = Curve(*(np.array(advice["curves"][k][0]) for k in "abc"))
    assert band[1, 0] == pytest.approx(float(one.accuracy(10)))
