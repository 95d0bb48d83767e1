"""A method that is added by one file (tests/methods/toy_method.py): all know it."""

import json
from io import StringIO

import pytest
from rich.console import Console

from bridge_jax import methods
from bridge_jax.errors import UserError
from bridge_jax.methods.checks import validate
from bridge_jax.parallel import chips
from bridge_jax.pipeline.content import Hashes
from bridge_jax.planning.plan import plan_study
from bridge_jax.planning.workload import list_work, opened
from bridge_jax.runs import Run
from bridge_jax.study.study import Study, StudyRun, check, in_folder
from launch.study_runs import Runs, take_turns
from tests.launch import tiny_run
from tests.methods import toy_method


@pytest.fixture(scope="module", autouse=True)
def toy():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(methods.METHODS, "toy", toy_method.METHOD)
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    found = tiny_run.settings(tiny_run.write_config(tmp_path_factory.mktemp("toy")))
    return tiny_run.override(
        found, "method=toy", "student_training.epochs=1", "warmup.fraction=0.5"
    )


@pytest.fixture(scope="module")
def study(config, tmp_path_factory):
    """A finished study of two shares."""
    runs = tuple(
        StudyRun("toy", tiny_run.override(config, f"warmup.fraction={share}"), 100 * share)
        for share in (0.25, 0.5)
    )
    workdir = tmp_path_factory.mktemp("study")
    made = in_folder(check(Study("toy", "Are more better?", runs, "toy", "share in %")), workdir)
    (workdir / "runs.json").write_text(json.dumps(made.to_json()))
    printed = StringIO()
    runs = Runs(made, workdir, True, Console(file=printed, width=120))
    assert take_turns(made.runs, runs.attempt) == [] and not runs.failed
    runs.write_result()
    return made, workdir, printed.getvalue()


def test_it_runs_and_is_reported(study):
    _, workdir, _ = study
    folder = workdir / "runs/toy-50-seed0"
    report = tiny_run.report(folder)
    assert report["accuracy"].keys() == {"student_base", "student_drilled"}
    assert list(report["seconds"]) == [stage.name for stage in toy_method.METHOD.artifacts]
    short = (folder / "toy/short/short.jsonl").read_text().splitlines()
    assert len(short) == 12  # half of 24
    page = (folder / "report.html").read_text()
    assert "Choosing short questions" in page and "after its drill" in page


def test_it_is_in_the_study(study):
    _, workdir, printed = study
    found = json.loads((workdir / "study.json").read_text())
    assert [point["x"] for point in found["points"]] == [25, 50]
    assert all("student_drilled" in point["accuracy"] for point in found["points"])
    assert "toy/drill" in printed
    # Both runs test the same untrained student, once.
    bases = list((workdir / "stages/evaluation/student_base").glob("*/manifest.json"))
    assert len(bases) == 1


def test_it_is_planned(study, config):
    works = list_work(*opened(config, hashes=Hashes()))
    assert [work.stage for work in works] == [
        "toy/drill",
        "evaluation/student_base",
        "evaluation/student_drilled",
    ]
    planned = plan_study([run.config for run in study[0].runs], None, chips.CHIPS["v5e"])
    made = {name: (total.runs, total.made) for name, total in planned.stages.items()}
    assert made == {
        "toy/drill": (2, 2),
        "evaluation/student_base": (2, 1),
        "evaluation/student_drilled": (2, 2),
    }
    assert planned.teacher["queries"] == 0


def test_a_second_start_runs_nothing_and_a_change_its_readers(study):
    made, workdir, _ = study
    job = Run(made.runs[1].config, workdir / "runs/toy-50-seed0", shared=workdir)
    assert job.is_whole(careful=True)
    other = tiny_run.override(made.runs[1].config, "student_training.epochs=2")
    deep = Run(other, workdir / "runs/other", shared=workdir).deep
    assert [name for name in deep if deep[name] != job.deep[name]] == [
        "toy/drill",
        "evaluation/student_drilled",
    ]


def test_its_config_is_checked(config):
    with pytest.raises(UserError, match=r"student_training\.accumulate=3 does not divide"):
        validate(tiny_run.override(config, "student_training.accumulate=3"))
    with pytest.raises(
        UserError,
        match=r"method=tpy is unknown; choose one of bridge, .*, budgeted, bard, toy",
    ):
        validate(tiny_run.override(config, "method=tpy"))
