import io

import pytest
from rich.console import Console

from bridge_jax.studies import comparison

REPORTS = {
    "seed0": {"accuracy": {"student": 0.50, "student_direct": 0.30, "teacher": 1.0}},
    "seed1": {"accuracy": {"student": 0.60, "student_direct": 0.20}},
    "seed2": {"accuracy": {"student": 0.55, "student_direct": 0.40}},
}


def test_means_and_paired_difference_are_over_the_runs_that_have_them():
    result = comparison.compare(REPORTS)
    assert result["accuracy"]["student"]["mean"] == pytest.approx(0.55)
    assert result["accuracy"]["teacher"] == {
        "runs": {"seed0": 1.0}, "mean": 1.0, "low": None, "high": None
    }  # fmt: skip
    gain = result["bridge_minus_direct"]
    assert gain["runs"] == pytest.approx({"seed0": 0.2, "seed1": 0.4, "seed2": 0.15})
    # mean 0.25, standard deviation 0.1323, t(0.975, 2) = 4.3027: half width 0.3286.
    assert (gain["mean"], gain["low"], gain["high"]) == pytest.approx(
        (0.25, -0.0786, 0.5786), abs=1e-4
    )


def test_table_shows_each_run_and_the_interval():
    console = Console(file=io.StringIO(), width=120)
    comparison.print_table(comparison.compare(REPORTS), console)
    lines = console.file.getvalue().splitlines()
    gain = next(line for line in lines if "bridge minus direct" in line)
    assert gain.split() == [
        "bridge",
        "minus",
        "direct",
        "20.0%",
        "40.0%",
        "15.0%",
        "25.0%",
        "-7.9%",
        "to",
        "57.9%",
    ]


def test_without_a_direct_student_there_is_no_difference():
    assert "bridge_minus_direct" not in comparison.compare({"a": {"accuracy": {"student": 0.5}}})
