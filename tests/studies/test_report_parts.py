"""What is left of the report when parts of the run are missing, unfinished or damaged."""

import io
import json
import shutil

import numpy as np
import pytest
from fake_run import write_json, write_rows
from rich.console import Console

from bridge_jax.config import RunConfig
from bridge_jax.config_io import to_json
from bridge_jax.errors import UserError
from bridge_jax.studies import examples, report, terminal, wording
from bridge_jax.studies.workdir import load


def test_only_the_apprenticeship(workdir):
    shutil.rmtree(workdir / "tutoring")
    shutil.rmtree(workdir / "evaluation")
    result = report.write(workdir)
    assert result["accuracy"] == {"teacher": 0.75}
    assert result["n_test"] == 0
    assert "rationales" not in result
    assert result["gaps"] == {}
    page = (workdir / "report.html").read_text()
    assert "The teacher gave 3 teacher answers" not in page
    assert "The teacher gave 3 answers worth keeping; no model has been tested yet." in page
    assert "What was selected" in page


@pytest.mark.parametrize("shown", [False, True])
def test_an_answer_that_the_assistant_was_shown_is_not_called_right(workdir, shown):
    path = workdir / "tutoring/rationales/rationales.jsonl"
    rows = [json.loads(line) | {"shown_gold": shown} for line in path.read_text().splitlines()]
    rows[1]["answer"] = "8"  # That of p1, which the teacher was asked about.
    write_rows(path, rows)
    assert report.write(workdir)["rationales"]["shown_gold"] == shown
    page = (workdir / "report.html").read_text()
    assert ("“Shown” is an answer that the assistant was given" in page) == shown
    assert ("rationales of answers that it was shown kept" in page) == shown
    found = examples.choose(load(workdir))
    texts = {e["id"]: e["texts"][1]["verdict"] for e in found if e["split"] == "pool"}
    assert texts == {"p1": "wrong", "p5": "shown" if shown else "right"}


def test_the_direct_method(workdir):
    write_json(workdir / "config.json", to_json(RunConfig(name="tiny", method="direct")))
    shutil.rmtree(workdir / "tutoring")
    for role in ("assistant_base", "assistant", "student", "student_instruct"):
        shutil.rmtree(workdir / "evaluation" / role)
    for part in ("scores", "warmup"):
        shutil.rmtree(workdir / "apprenticeship" / part)
    result = report.write(workdir)
    assert result["accuracy"] == {"teacher": 0.75, "student_base": 0.0, "student_direct": 0.2}
    assert result["gaps"] == pytest.approx({"teacher_student_direct": 0.55})
    assert "pool" not in result
    page = (workdir / "report.html").read_text()
    assert (
        "Trained directly on 3 teacher answers, the student answers 20% of 10 test questions "
        "correctly; before training it answered 0%."
    ) in page
    assert "Trained directly on 3" in wording.headline(result)


@pytest.mark.parametrize(
    "path",
    [
        "config.json",
        "apprenticeship/scores",
        "apprenticeship/scores/embeddings.npy",
        "apprenticeship/selection",
        "apprenticeship/annotations",
        "apprenticeship/annotations/spend.json",
        "evaluation/assistant",
        "evaluation/student",
        "tutoring/rationales",
    ],
)
def test_any_part_may_be_missing(workdir, path):
    missing = workdir / path
    shutil.rmtree(missing) if missing.is_dir() else missing.unlink()
    result = report.write(workdir)
    terminal.print_summary(result, Console(file=io.StringIO()))


def test_stages_of_another_config_are_left_out(workdir):
    chosen = workdir / "apprenticeship" / "selection" / "manifest.json"
    write_json(chosen, {"stage": "apprenticeship/selection", "seconds": 0.5})
    predictions = workdir / "evaluation" / "student" / "manifest.json"
    write_json(predictions, {"stage": "evaluation/student", "seconds": 1.0})
    prints = {}
    for number, manifest in enumerate(sorted(workdir.glob("*/*/manifest.json"))):
        name = manifest.parent.relative_to(workdir).as_posix()
        prints[name] = f"print{number}"
        write_json(manifest, json.loads(manifest.read_text()) | {"fingerprint": prints[name]})
    write_json(workdir / "stages.json", prints)
    before = report.write(workdir)
    assert "selection" in before and "student" in before["accuracy"]
    assert "student_direct" not in before["accuracy"]  # its folder has no manifest: not finished
    # The config changed: the student's training and the selection are of the one before.
    for name in ("tutoring/student", "apprenticeship/selection"):
        prints[name] = "another"
    write_json(workdir / "stages.json", prints)
    after = report.write(workdir)
    assert "selection" not in after and "student" in after["accuracy"]
    gone = set(before["seconds"]) - set(after["seconds"])
    assert gone == {"tutoring/student", "apprenticeship/selection"}


def test_a_config_alone(workdir):
    for part in ("apprenticeship", "tutoring", "evaluation"):
        shutil.rmtree(workdir / part)
    assert report.write(workdir)["accuracy"] == {}
    assert "No model has been tested yet." in (workdir / "report.html").read_text()


def test_a_row_that_is_still_being_written_is_left_for_later(workdir):
    path = workdir / "tutoring" / "student" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "lo')
    report.write(workdir)
    path.write_text('{"step": 1, "lo\n' + path.read_text())
    with pytest.raises(UserError, match=r"metrics.jsonl: row 1 is not JSON"):
        report.write(workdir)


@pytest.mark.parametrize(
    "file",
    [
        *("config.json", "stages.json", "tutoring/student/manifest.json"),
        *("apprenticeship/selection/selection.json", "apprenticeship/annotations/spend.json"),
    ],
)
@pytest.mark.parametrize("content", ["[1]", "3", '{"a": ', "[" * 100_000], ids=range(4))
def test_a_damaged_file_is_named(workdir, file, content):
    (workdir / file).write_text(content)
    folder = "delete the folder .*selection and " if "selection.json" in file else ""
    with pytest.raises(UserError, match=rf"{file}: (damaged|not JSON).*; {folder}run the command"):
        report.write(workdir)


def test_annotations_that_lost_a_row_are_not_counted(workdir):
    path = workdir / "apprenticeship/annotations/annotations.jsonl"
    rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join(rows[:1] + rows[2:]))
    with pytest.raises(UserError, match=r"annotations\.jsonl: 3 rows, which are not .* 4 selected"):
        report.write(workdir)
    path.write_text("".join(rows)[:-5])
    (path.parent / "manifest.json").write_text('{"seconds": 1.0}')
    with pytest.raises(UserError, match=r"annotations\.jsonl: row 4 is not JSON.*which mends it"):
        report.write(workdir)


def test_folders_that_are_no_run(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        report.write(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no run"):
        report.write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_embeddings_of_another_pool(workdir):
    np.save(workdir / "apprenticeship/scores/embeddings.npy", np.zeros((3, 5), np.float32))
    with pytest.raises(UserError, match="3 embeddings for 20 scores"):
        report.write(workdir)
