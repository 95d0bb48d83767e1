"""The numbers of a study that can be counted by hand."""

import json

import fake_run
import fake_study
import numpy as np
import pytest
from fake_study import run

from bridge_jax.errors import UserError
from bridge_jax.methods.evaluation import Prediction
from bridge_jax.study import results, study_page
from tests import declared

R, W = True, False


def two_variants():
    """Random and coverage, two seeds, ten questions; coverage 4 and 2 of 20 ahead."""
    runs = [run(v, seed) for seed in (0, 1) for v in ("random", "coverage")]
    right = {
        ("random", None, 0): {"student": [R] * 4 + [W] * 6, "assistant": [R] * 3 + [W] * 2},
        ("coverage", None, 0): {"student": [R] * 8 + [W] * 2, "assistant": [R] * 5},
        ("random", None, 1): {"student": [R] * 5 + [W] * 5, "assistant": [R] * 4 + [W]},
        ("coverage", None, 1): {"student": [R] * 7 + [W] * 3, "assistant": [R] * 5},
    }
    return fake_study.study(runs, "random"), right


@pytest.fixture
def folder(tmp_path):
    fake_study.write(tmp_path / "study", *two_variants(), shared=("apprenticeship/warmup",))
    return tmp_path / "study"


def test_the_rows_of_the_runs_are_those_that_the_table_declares(folder):
    assert [declared.undeclared(run) for run in (folder / "runs").iterdir()] == [[]] * 4


def test_means_differences_and_gaps(folder):
    found = results.compute(folder)
    random, coverage = found["points"]
    assert (random["variant"], random["seeds"]) == ("random", [0, 1])
    assert random["accuracy"]["student"]["mean"] == pytest.approx(0.45)
    assert coverage["accuracy"]["student"]["seeds"] == {"0": 0.8, "1": 0.7}
    assert random["difference"] is None
    difference = coverage["difference"]
    assert difference["mean"] == pytest.approx(0.3)
    assert difference["seeds"] == pytest.approx({"0": 0.4, "1": 0.2})
    assert 0 <= difference["low"] < 0.3 < difference["high"] < 0.7
    # t(0.975, 1) = 12.706, s = 0.1414: half width 1.27.
    assert difference["t_low"] == pytest.approx(0.3 - 1.2706, abs=1e-3)
    # The oracle is right on all that it was asked.
    gaps = {name: gap["mean"] for name, gap in random["gaps"].items()}
    assert gaps == pytest.approx(
        {"teacher_assistant": 0.3, "assistant_student": 0.25, "teacher_student": 0.55}
    )
    assert random["teacher_on_annotations"]
    assert random["questions"] == 10


def test_the_full_price_of_a_run_and_the_bill_of_all(folder):
    found = results.compute(folder)
    for point in found["points"]:
        cost = point["cost"]
        assert cost["queries"] == 10
        assert cost["usd"] == pytest.approx(10 * fake_study.USD)
        assert cost["teacher_tokens"] == 10 * (120 + 85)
        # Three steps of 2 s at 500 tokens/s; ten rationales of 20 tokens.
        assert (cost["trained_tokens"], cost["written_tokens"]) == (3000, 200)
        assert cost["tokens"] == 2050 + 3000 + 200
    # 120 x $1.25 and 85 x $10 a million, for the ten queries on the ledger.
    assert found["bill"]["usd"] == pytest.approx(0.01)
    assert found["bill"]["queries"] == 10
    assert found["bill"]["unsettled"]["queries"] == 0
    # 20 + 1 + 30 + 40 + 2 x 5 seconds a run; the warm-up is one for each seed.
    assert found["seconds"] == {"alone": 4 * 101.0, "shared": 4 * 81.0 + 2 * 20.0}


def test_free_texts_are_measured_by_their_score(folder):
    assert results.compute(folder)["measure"] == "accuracy"
    for workdir in (folder / "runs").iterdir():
        for role in ("student", "assistant"):
            test = fake_run.evaluation_of(role)
            rows = fake_run.read(workdir, test, Prediction)
            scored = [row | {"score": 0.7 if row["correct"] else 0.3} for row in rows]
            fake_run.change(workdir, test, Prediction, scored)
    found = study_page.write(folder)
    random, coverage = found["points"]
    assert found["measure"] == "ROUGE-L"
    assert random["accuracy"]["student"]["mean"] == pytest.approx(0.45 * 0.7 + 0.55 * 0.3)
    assert coverage["difference"]["mean"] == pytest.approx(0.3 * 0.4)
    assert random["accuracy"].keys() == {"student", "assistant"}  # The teacher's has no score.
    page = (folder / "study.html").read_text()
    assert "ROUGE-L and cost" in page and "answered correctly" not in page
    table = (folder / "table.csv").read_text()
    assert "ROUGE-L_student_low" in table and "accuracy" not in table
    assert "Student, ROUGE-L" in (folder / "table.tex").read_text()


def test_what_is_missing_or_of_another_config_is_not_counted(tmp_path):
    study, right = two_variants()
    del right["coverage", None, 1]
    folder = tmp_path / "study"
    fake_study.write(folder, study, right)
    stale = folder / "runs" / "random-seed1" / "config.json"
    config = json.loads(stale.read_text())
    stale.write_text(json.dumps(config | {"max_prompt_tokens": 99}))
    halfway = folder / "runs" / "coverage-seed0" / "tutoring" / "student" / "manifest.json"
    halfway.unlink()
    begun = folder / "runs" / "coverage-seed1"
    begun.mkdir()
    (begun / "config.json").write_text("{}")
    found = results.compute(folder)
    assert found["runs"] == {
        "total": 4,
        "done": 1,
        "missing": ["coverage-seed0", "random-seed1", "coverage-seed1"],
    }
    assert [(p["variant"], p["seeds"]) for p in found["points"]] == [("random", [0])]
    page = study_page.write(folder)["page"]
    assert page.endswith("study.html")


def test_a_difference_is_over_the_seeds_that_both_have(tmp_path):
    study, right = two_variants()
    del right["random", None, 1]
    fake_study.write(tmp_path / "study", study, right)
    coverage = results.compute(tmp_path / "study")["points"][1]
    assert coverage["seeds"] == [0, 1]
    assert coverage["difference"]["seeds"] == pytest.approx({"0": 0.4})


def test_nothing_is_done_yet(tmp_path):
    fake_study.write(tmp_path / "study", two_variants()[0], {})
    found = study_page.write(tmp_path / "study")
    assert found["points"] == [] and found["runs"]["done"] == 0
    with pytest.raises(UserError, match=r"holds no study; launch\.study writes one"):
        results.compute(tmp_path)


def point(usd, accuracy):
    return {"cost": {"usd": usd}, "accuracy": {"student": {"mean": accuracy}}}


def test_the_frontier_is_what_nothing_beats():
    points = [
        point(1, 0.5),
        point(2, 0.4),  # dearer and worse than the first
        point(2, 0.6),
        point(2, 0.6),  # the same: both stay
        point(3, 0.6),  # dearer, no better
        point(0, 0.1),
        {"cost": {"usd": 0}, "accuracy": {}},
    ]
    assert results.efficient(points, "usd") == [0, 2, 3, 5]


def test_the_frontier_against_every_pair():
    rng = np.random.default_rng(0)
    points = [point(*rng.integers(0, 6, 2).tolist()) for _ in range(60)]
    found = set(results.efficient(points, "usd"))
    for i, one in enumerate(points):
        beaten = any(
            other["cost"]["usd"] <= one["cost"]["usd"]
            and other["accuracy"]["student"]["mean"] >= one["accuracy"]["student"]["mean"]
            and other != one
            for other in points
        )
        assert (i in found) != beaten


def test_signatures_are_named_with_their_seeds(tmp_path):
    study, right = two_variants()
    right["coverage", None, 1]["student"] = [R] * 6 + [None] * 4
    fake_study.write(tmp_path / "study", study, right)
    coverage = results.compute(tmp_path / "study")["points"][1]
    assert coverage["failures"] == {"Instruction blindness": [1]}
    assert coverage["compliance"]["student"] == pytest.approx(0.8)


def test_a_study_over_budgets_asks_the_advisor(tmp_path):
    fake_study.scaling(tmp_path / "study", questions=60, seeds=2, variants=("random", "coverage"))
    found = results.compute(tmp_path / "study")
    assert set(found["advice"]) == {"random", "coverage"}
    advice = found["advice"]["coverage"]
    assert advice["budgets"] == [1, 3, 16, 32, 64]
    assert advice["held_out"]["queries"] == 64
    by_x = [p["accuracy"]["student"]["mean"] for p in found["points"] if p["variant"] == "coverage"]
    assert advice["accuracy"] == pytest.approx(by_x)
    again = results.compute(tmp_path / "study")
    assert again == found


def test_a_damaged_file_of_a_run_is_named(folder):
    file = folder / "runs/random-seed1/evaluation/student/predictions.jsonl"
    file.write_text(file.read_text().replace("true", "false"))
    message = r"random-seed1/evaluation/student: predictions\.jsonl does not match its checksum"
    with pytest.raises(UserError, match=message):
        results.compute(folder)
