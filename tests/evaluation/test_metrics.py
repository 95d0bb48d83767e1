import math

import pytest

from bridge_jax.errors import UserError
from bridge_jax.evaluation import intervals, metrics


def rows(outcomes: str, first: int = 0):
    """One row per letter: r(ight), w(rong), n(o answer)."""
    return [
        {
            "id": f"q{first + i}",
            "completion": "",
            "answer": None if letter == "n" else "7",
            "correct": letter == "r",
            "tokens": 10 * (i + 1),
        }
        for i, letter in enumerate(outcomes)
    ]


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),  # z² / (n + z²) = 3.8415 / 13.8415
        (10, 10, 0.7225, 1.0),
        (1, 1, 0.2065, 1.0),  # 1 / (1 + z²)
    ],
)
def test_wilson(successes, trials, low, high):
    assert intervals.wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_reaches_its_ends_exactly():
    assert intervals.wilson(0, 7)[0] == 0.0
    assert intervals.wilson(7, 7)[1] == 1.0


def test_summarise():
    result = metrics.summarise(rows("rrrwn"))
    assert result["n"] == 5
    assert result["accuracy"] == 0.6
    assert result["compliance"] == 0.8
    assert result["mean_tokens"] == 30.0
    assert (result["accuracy_low"], result["accuracy_high"]) == intervals.wilson(3, 5)
    assert (result["compliance_low"], result["compliance_high"]) == intervals.wilson(4, 5)


def test_summarise_nothing():
    with pytest.raises(UserError, match="no predictions"):
        metrics.summarise([])


def test_paired_difference():
    # b = 3 only A, c = 1 only B, n = 10: m = 12, centre 2/12, variance 3 + 1 + 1 - 4/12 = 14/3.
    result = intervals.paired_difference(rows("rrrrwwwwrr"), rows("rwwwrwwwrr"))
    half = 1.959964 * math.sqrt(14 / 3) / 12
    assert result["difference"] == pytest.approx(0.2)
    assert result["low"] == pytest.approx(2 / 12 - half, abs=1e-6)
    assert result["high"] == pytest.approx(2 / 12 + half, abs=1e-6)


def test_paired_difference_goes_by_id_and_not_by_order():
    a, b = rows("rrww"), rows("rwrw")
    assert intervals.paired_difference(a, b[::-1]) == intervals.paired_difference(a, b)


def test_two_models_that_never_disagree_are_not_known_to_be_equal():
    result = intervals.paired_difference(rows("rwrw"), rows("rwrw"))
    half = 1.959964 / 6
    assert result["difference"] == 0.0
    assert (result["low"], result["high"]) == pytest.approx((-half, half), abs=1e-6)


def test_paired_difference_stays_a_difference_of_shares():
    result = intervals.paired_difference(rows("r" * 100), rows("w" * 100))
    assert result["difference"] == 1.0
    assert result["high"] == 1.0
    assert result["low"] > 0.9


def test_unpaired_predictions_name_an_odd_id():
    with pytest.raises(UserError, match=r"2 questions.*'q0'"):
        intervals.paired_difference(rows("rw"), rows("rw", first=1))


def test_repeated_ids():
    with pytest.raises(UserError, match="1 of 3 predictions repeat"):
        intervals.paired_difference(rows("rw") + rows("r"), rows("rw"))


def test_mean_over_seeds():
    # s = 0.02, t(0.975, 2) = 4.302653.
    mean, low, high = intervals.mean_over_seeds([0.40, 0.42, 0.44])
    half = 4.302653 * 0.02 / math.sqrt(3)
    assert mean == pytest.approx(0.42)
    assert low == pytest.approx(0.42 - half, abs=1e-6)
    assert high == pytest.approx(0.42 + half, abs=1e-6)


def test_one_seed_has_no_interval():
    assert intervals.mean_over_seeds([0.4]) == (0.4, None, None)
    with pytest.raises(UserError, match="no seed"):
        intervals.mean_over_seeds([])
