"""What runs again after a change, end to end, and that the report is that of a fresh run."""

import dataclasses
import json
import shutil
from io import StringIO

import pytest
from rich.console import Console

from bridge_jax.config import DataConfig, TeacherConfig
from bridge_jax.methods import fitting
from bridge_jax.runs import Run
from tests.launch import tiny_run

pytestmark = pytest.mark.slow  # Whole runs, one after the other.

LABELS = ("late", "lost")
TIMED = ("seconds", "time", "training", "spend", "page", "made_with")
ALL_TESTS = [
    f"evaluation/{name}"
    for name in ("student_base", "student_instruct", "student", "assistant_base", "assistant")
]


def rows(pool=24, test=8, dev=2):
    splits = ["train"] * pool + ["dev"] * dev + ["test"] * test
    return [
        {
            "id": f"r{i}",
            "question": f"Order {i}, day {i % 7}?",
            "answer": LABELS[i % 2],
            "split": split,
            "rationale": f"Day {i % 7} was a while ago.\nAnswer: {LABELS[i % 2]}",
        }
        for i, split in enumerate(splits)
    ]


def write_rows(path, found):
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("changes")
    write_rows(folder / "rows.jsonl", rows())
    return folder


@pytest.fixture(scope="module")
def config(home):
    found = tiny_run.settings(tiny_run.write_config(home))
    data = DataConfig(
        "jsonl",
        str(home / "rows.jsonl"),
        kind="label",
        choices=LABELS,
        instruction="Late or lost?",
        rationale="rationale",
    )
    teacher = TeacherConfig(kind="replay")
    found = dataclasses.replace(found, data=data, teacher=teacher)
    # Room for other selections.
    return tiny_run.override(found, "budget.queries=60", "selection.size=10")


@pytest.fixture(scope="module")
def done(home, config):
    """A finished run."""
    finish(config, home / "run")
    return home / "run"


def finish(config, workdir, phase="all"):
    """Runs to the end; returns (the report, the stages that ran, what was printed)."""
    job, printed = Run(config, workdir, phase=phase), StringIO()
    with tiny_run.one_device():
        report = job.run(Console(file=printed, width=200))
    lines = [line.split(maxsplit=1) for line in printed.getvalue().splitlines()]
    stages = {stage.name for stage in job.stages}
    ran = [line[0] for line in lines if line and line[0] in stages and line[1] != "done before"]
    return report, ran, printed.getvalue()


@pytest.fixture
def workdir(done, tmp_path):
    return shutil.copytree(done, tmp_path / "run", symlinks=True)


def without_times(report):
    return {key: value for key, value in report.items() if key not in TIMED}


def moved(config, path):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, path=str(path)))


def test_more_test_rows_run_the_evaluation_alone(config, workdir, tmp_path):
    more = [*rows(), *({**row, "id": row["id"] + "b"} for row in rows(0, 2, 0))]
    more[-1]["question"], more[-2]["question"] = "Where?", "When?"
    other = moved(config, write_rows(tmp_path / "rows.jsonl", more))
    report, ran, _ = finish(other, workdir)
    assert ran == ALL_TESTS
    assert report["n_test"] == 10


@pytest.mark.parametrize("phase", ["all", "evaluate"])
def test_another_test_file_runs_the_evaluation_alone(config, workdir, tmp_path, phase):
    """Also with a price and thresholds, which the filter by gold answers does not use."""
    new = [{"question": f"Parcel {i}?", "answer": LABELS[i % 2], "id": f"new{i}"} for i in range(5)]
    other = tiny_run.override(
        config,
        f"data.test_path={write_rows(tmp_path / 'new.jsonl', new)}",
        "teacher.usd_per_million_output=20.0",
        "rationales.min_mean_logprob=-9",
        "rationales.min_step_logprob=-9",
        "rationales.min_agreement=0.9",
    )
    report, ran, _ = finish(other, workdir, phase)
    # The rationales are judged again, in a moment, with the same result.
    judged = ["tutoring/rationales"] if phase == "all" else []
    assert ran == judged + ALL_TESTS
    assert report["n_test"] == 5
    assert report["rationales"]["written"] == 24
    # And back again.
    report, ran, _ = finish(config, workdir)
    assert ran == judged + ALL_TESTS
    assert report["n_test"] == 8


def test_a_test_file_a_price_and_thresholds_train_no_step(config, workdir, tmp_path, monkeypatch):
    """Of trust, and of a filter that is not in use; one in use trains where it keeps others."""
    steps = []
    monkeypatch.setattr(fitting, "train", lambda *_, **__: steps.append(1))
    new = [{"question": f"Box {i}?", "answer": LABELS[i % 2], "id": f"box{i}"} for i in range(5)]
    path = write_rows(tmp_path / "new.jsonl", new)
    before = (workdir / "tutoring/student").resolve()
    for change, ran in {
        f"data.test_path={path}": ALL_TESTS,
        "teacher.usd_per_million_output=20.0": [],
        "evaluation.least_confidence=0.9": [],
        "rationales.min_mean_logprob=-9": ["tutoring/rationales"],
    }.items():
        config = tiny_run.override(config, change)
        report, found, _ = finish(config, workdir)
        assert found == ran, change
    assert steps == [] and (workdir / "tutoring/student").resolve() == before
    assert report["confidence"]["least_confidence"] == 0.9
    (row,) = [row for row in report["confidence"]["thresholds"] if row["least"] == 0.9]
    assert row["test"]["n"] == report["n_test"] == 5


def test_other_dev_rows_run_nothing(config, workdir, tmp_path):
    found = [row | {"question": "How?"} if row["id"] == "r24" else row for row in rows()]
    assert found != rows()
    assert finish(moved(config, write_rows(tmp_path / "rows.jsonl", found)), workdir)[1] == []


def test_what_changes_speed_or_caps_runs_nothing(config, workdir):
    """Each alone changes no key (tests/methods/test_keys.py); here all of them at once."""
    other = tiny_run.override(
        config,
        "selection.batch_tokens=512",
        "student_training.checkpoint_every=7",
        "teacher.concurrency=1",
        "teacher.timeout=5.0",
        "student_training.remat=none",
        "student.attention=plain",
        "name=other",
        "budget.usd=0.06",
    )
    assert finish(other, workdir)[1] == []


def test_another_price_asks_nobody_and_the_report_says_both(config, workdir, done):
    other = tiny_run.override(config, "teacher.usd_per_million_output=20.0")
    before = json.loads((done / "report.json").read_text())["spend"]
    report, ran, _ = finish(other, workdir)
    assert ran == []
    spend = report["spend"]
    assert spend["usd"] == before["usd"]
    at_present = (1.25 * spend["input_tokens"] + 20.0 * spend["output_tokens"]) / 1e6
    assert spend["at_present_prices"] == pytest.approx(at_present, abs=1e-9)


def test_evaluation_trains_nothing_whatever_the_pool_is_by_now(config, workdir, tmp_path):
    found = [row | {"question": row["question"] + "!"} for row in rows()]
    other = moved(config, write_rows(tmp_path / "rows.jsonl", found))
    report, ran, printed = finish(other, workdir, phase="evaluate")
    assert ran == ALL_TESTS
    assert "tutoring/student: reused as is, although made with other data or settings" in printed
    assert report["rationales"]["written"] == 24  # What made the student is still told.
    # Without the phase it is another run, and the models are trained anew.
    ran = finish(other, workdir)[1]
    assert "apprenticeship/warmup" in ran and "tutoring/student" in ran


def test_a_corrected_rationale_is_what_the_teacher_says_now(config, workdir, tmp_path):
    """Also where the ledger has an answer to the same question."""
    found = [row | {"rationale": "Corrected. " + row["rationale"]} for row in rows()]
    _, ran, _ = finish(moved(config, write_rows(tmp_path / "rows.jsonl", found)), workdir)
    assert ran[0] == "apprenticeship/annotations"
    said = (workdir / "apprenticeship/annotations/annotations.jsonl").read_text().splitlines()
    assert len(said) == 10
    assert all(json.loads(row)["rationale"].startswith("Corrected. Day") for row in said)


def test_annotations_cut_in_their_last_row_are_seen_and_said(config, workdir, caplog):
    path = (workdir / "apprenticeship/annotations").resolve() / "annotations.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    _, ran, _ = finish(config, workdir)
    assert ran == []
    assert path.read_bytes() == whole
    assert "the file is rewritten from" in caplog.text


def test_a_damaged_score_is_made_again_with_a_line_that_says_why(config, workdir):
    path = (workdir / "apprenticeship/scores").resolve() / "scores.jsonl"
    path.write_text(path.read_text().replace('"nll": ', '"nll": 1', 1))
    _, ran, printed = finish(config, workdir)
    assert ran == ["apprenticeship/scores"]
    assert "apprenticeship/scores: scores.jsonl does not match its checksum; reran it" in printed


# One after the other on one workdir, and the first stage that runs again: from late stages to early
# ones, with stages that come and go. That each field reaches its stage, and which, is in
# tests/methods/test_keys.py.
CHANGES = {
    "rationales.corruption=0.5": "tutoring/rationales",
    "rationales.filter=consistency": "tutoring/samples",
    "logits.weight=0.5": "tutoring/logits",
    "compare=direct,labels": "baselines/direct",
    "assistant_training.epochs=1": "apprenticeship/assistant",
    "selection.strategy=badge": "apprenticeship/gradients",
    "warmup.fraction=0.3": "apprenticeship/warmup",
    "data.labelled=false": "apprenticeship/pseudo_labels",
}
COMPARED = ("selection.strategy=badge", "data.labelled=false")
# What a change cannot do without.
BESIDE = {
    "rationales.filter=consistency": (
        "rationales.min_mean_logprob=-99",
        "rationales.min_step_logprob=-99",
        "rationales.min_agreement=0",
    ),
    "data.labelled=false": (
        "compare=direct",
        "teacher.keep_wrong=true",
        "selection.difficulty=entropy",
        "rationales.corruption_kind=wrong_reasoning",
    ),
}


def test_after_a_change_the_report_is_that_of_a_fresh_run(config, workdir, tmp_path):
    for change, first in CHANGES.items():
        config = tiny_run.override(config, change, *BESIDE.get(change, ()))
        again, ran, _ = finish(config, workdir)
        assert ran[0] == first, change
        if change not in COMPARED:  # What was wrongly left out stays so until the next of them.
            continue
        fresh, everything, _ = finish(config, tmp_path / change)
        assert set(ran) <= set(everything), change
        assert without_times(again) == without_times(fresh), change
        # What was paid for earlier selections stays on the bill.
        assert again["spend"]["queries"] >= fresh["spend"]["queries"], change
