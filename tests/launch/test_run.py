"""`launch.run` as its users meet it: from flags to report.json, in a process of its own."""

import json

import pytest

from tests.full_disk import files_up_to
from tests.launch import commands, tiny_run

STAGES = [
    "apprenticeship/warmup",
    "apprenticeship/scores",
    "apprenticeship/selection",
    "apprenticeship/annotations",
    "apprenticeship/assistant",
    "tutoring/instruct",
    "tutoring/completions",
    "tutoring/rationales",
    "tutoring/student",
    "evaluation/student_base",
    "evaluation/student_instruct",
    "evaluation/student",
    "evaluation/assistant_base",
    "evaluation/assistant",
]
ROLES = {"student_base", "student_instruct", "student", "assistant_base", "assistant", "teacher"}


def test_the_report_has_what_design_promises(undisturbed):
    report = tiny_run.report(undisturbed)
    assert set(report["accuracy"]) == set(report["compliance"]) == ROLES
    assert report["accuracy"]["teacher"] == 1.0
    spend = report["spend"]
    assert (spend["queries"], spend["budget_queries"], spend["budget_usd"]) == (10, 10, 0.05)
    assert spend["input_tokens"] > 0
    assert spend["output_tokens"] > 0
    price = (1.25 * spend["input_tokens"] + 10.0 * spend["output_tokens"]) / 1e6
    assert spend["usd"] == pytest.approx(price, abs=1e-9)
    selection = report["selection"]
    assert selection["strategy"] == "diversity"
    assert selection["size"] == len(set(selection["ids"])) == 10
    rationales = report["rationales"]
    assert rationales["written"] == 24
    assert rationales["kept"] + rationales["rejected"] == 24
    assert set(report["seconds"]) == set(STAGES)
    assert all(seconds > 0 for seconds in report["seconds"].values())
    assert report["n_test"] == 8
    time = report["time"]
    assert time["total"] == pytest.approx(sum(report["seconds"].values()))
    assert 0 < time["goodput"] < 1
    # Fourteen stages of seven kinds; a shape that crept in would show here.
    assert 0 < time["compilations"] < 140


def test_trained_and_frozen_parameters_are_reported(undisturbed):
    sizes = tiny_run.report(undisturbed)["parameters"]["apprenticeship/assistant"]
    # Rank 4 on the values of three layers, from 32 to 16: r * (inputs + outputs) each.
    count = 3 * 4 * (32 + 16)
    assert sizes["trained"] == {"parameters": count, "bytes": 4 * count}
    assert sizes["frozen"]["bytes"] == 4 * sizes["frozen"]["parameters"] > 100_000
    student = tiny_run.report(undisturbed)["parameters"]["tutoring/student"]
    assert student["frozen"] == {"parameters": 0, "bytes": 0}


def test_the_workdir_is_laid_out_as_design_says(undisturbed):
    for name in ("config.json", "ledger.sqlite", "report.json", "report.html"):
        assert (undisturbed / name).stat().st_size > 0
    assert (undisturbed / "apprenticeship/annotations/annotations.jsonl").is_file()
    assert (undisturbed / "tutoring/rationales/rationales.jsonl").is_file()
    # Each stage lies under its key, and its name in the workdir is a link to the folder in use.
    keys = json.loads((undisturbed / "stages.json").read_text())
    assert set(keys) == set(STAGES)
    for stage, key in keys.items():
        folder = undisturbed / "stages" / stage / key
        assert (undisturbed / stage).is_symlink() and (undisturbed / stage).samefile(folder)
        assert [path.name for path in folder.parent.iterdir()] == [key]
        manifest = json.loads((folder / "manifest.json").read_text())
        there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        assert set(manifest["files"]) == there - {"manifest.json"}
        assert manifest["made_with"]["devices"] == "1 cpu"
    assert not list(undisturbed.rglob("started.json"))
    set_aside = json.loads((undisturbed / "apprenticeship/selection/selection.json").read_text())
    assert len(set_aside["set_aside"]) == 1  # 5% of 24


def test_again_nothing_is_done(tiny_config, undisturbed, tmp_path):
    workdir = tiny_run.copy(undisturbed, tmp_path / "run")
    written = {path: path.stat().st_mtime_ns for path in workdir.rglob("manifest.json")}
    assert len(written) == 14
    code, out, err = tiny_run.run(tiny_config, workdir)
    assert code == 0, err
    assert tiny_run.stages_run(out) == []
    assert "Trained  assistant 0.0M parameters" in out and "frozen, student" in out
    report, expected = tiny_run.report(workdir), tiny_run.report(undisturbed)
    assert report | {"page": ""} == expected | {"page": ""}
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("manifest.json")} == written


@pytest.mark.slow
def test_direct_and_random_need_no_assistant(tiny_config, tmp_path):
    flags = ["--config.method=direct", "--selection.strategy=random", "--budget.queries", "3"]
    flags += ["--instruct.train.epochs=1", "--student_training.epochs=1"]
    done = tiny_run.finish(tiny_config, tmp_path / "run", *flags)
    assert done == [
        "apprenticeship/selection",
        "apprenticeship/annotations",
        "tutoring/instruct",
        "tutoring/student",
        "evaluation/student_base",
        "evaluation/student_instruct",
        "evaluation/student",
    ]
    report = tiny_run.report(tmp_path / "run")
    assert report["method"] == "direct"
    assert report["selection"]["strategy"] == "random"
    assert len(report["selection"]["ids"]) == report["spend"]["queries"] == 3
    assert set(report["accuracy"]) == ROLES - {"assistant_base", "assistant"}
    assert "rationales" not in report


@pytest.mark.slow
def test_eight_devices_select_what_one_selects(tiny_config, undisturbed, tmp_path):
    """Direct distillation has the same warm-up and scores, and stops there for this phase."""
    flags = ["--phase=apprenticeship", "--config.method=direct"]
    assert tiny_run.finish(tiny_config, tmp_path, *flags, devices=8) == STAGES[:4]
    found = [
        json.loads((path / "apprenticeship/selection/selection.json").read_text())
        for path in (tmp_path, undisturbed)
    ]
    assert found[0] == found[1]


@pytest.mark.slow
def test_after_a_full_disk_the_same_command_runs_what_depends_on_a_change(
    tiny_config, undisturbed, tmp_path
):
    workdir = tiny_run.copy(undisturbed, tmp_path / "run")
    change = "--config.student_training.epochs=1"
    with files_up_to(60_000):  # Room for all but the student.
        code, _, err = tiny_run.run(tiny_config, workdir, change)
    assert code == 2, err
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith(f"error: {workdir}/stages/tutoring/student/"), err
    assert "File too large" in last and "run the same command again: it " in last
    again = tiny_run.finish(tiny_config, workdir, change)
    assert again == ["tutoring/student", "evaluation/student"]
    assert len((workdir / "tutoring/student/metrics.jsonl").read_text().splitlines()) < len(
        (undisturbed / "tutoring/student/metrics.jsonl").read_text().splitlines()
    )


LONG_ROWS = " ".join(
    f"--{name}_training.row_tokens=999" for name in ("assistant", "student", "direct")
)
MISTAKES = {
    "--config.budget.querys=3": "unknown config key 'budget.querys'; did you mean 'budget.queries'",
    "--budget.queries=25": "budget.queries=25 exceeds the pool of 24 examples",
    "--budget.queries=24": "exceeds the pool of 24 examples less 1 set aside",
    "--budget.queries=0": "budget.queries=0: ask the teacher at least once",
    "--config.max_prompt_tokens=60": "its prompt has",
    "--config.data.source=jsonl --teacher.kind=replay": "data.path is empty",
    "--data.source=jsonl --teacher.kind=replay --data.path=gone.jsonl": "gone.jsonl: no such file",
    "--student.checkpoint=gone": "checkpoint 'gone': no such folder or file",
    "--student.keep_layers=0,7": "keep_layers=[7]",
    "--student_training.row_tokens=128": "student_training.row_tokens=128 is too short",
    "--assistant_training.row_tokens=128": "assistant_training.row_tokens=128 is too short",
    "--config.compare=direct --direct_training.row_tokens=128": "direct_training.row_tokens=",
    f"--generation.max_new_tokens=500 {LONG_ROWS}": "context of 512; lower",
    "--assistant.lora.targets=attention/q": "assistant.lora.targets=attention/q: matches none of",
    "--student.lora.base=int8": "student.lora.base=int8: an integer base cannot be trained",
    "--assistant.lora.dropout=1": "assistant.lora.dropout=1.0: 0 to below 1",
    "--student.checkpoint=[/INST]\x1b[2J": r"checkpoint '[/INST]\x1b[2J': no such folder or file",
    "--student_training.learning_rate=nan": "learning_rate=nan: a finite number",
    "--teacher.base_url=localhost:8000": "teacher.base_url=localhost:8000: not a server address",
    "--config.method": "method= is unknown; choose one of bridge, on_policy, direct, self",
}


@pytest.fixture(scope="module")
def mistakes(tiny_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("mistakes") / "run"
    common = [f"--config={tiny_config}", f"--workdir={workdir}"]
    given = [[*common, *mistake.split()] for mistake in MISTAKES]
    ends = commands.run_all("launch.run", given)
    found = {mistake: (end.code, end.err) for mistake, end in zip(MISTAKES, ends, strict=True)}
    assert not list(workdir.rglob("started.json")), "a stage was begun"
    assert not (workdir / "ledger.sqlite").exists()
    return found


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_begun(mistakes, mistake):
    code, err = mistakes[mistake]
    assert code == 2, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert MISTAKES[mistake] in err


def test_a_long_prompt_names_the_example_and_the_way_out(mistakes):
    _, err = mistakes["--config.max_prompt_tokens=60"]
    assert "error: example '" in err
    assert "max_prompt_tokens is 60" in err
    assert "--config.on_long_prompt=cut_end, cut_beginning or cut_middle" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--phase=tutorin"], "--stop_after=tutorin: not part of this run; did you mean tutoring?"),
        (["--stop_after=selecton"], "did you mean selection? Choose one of all, apprenticeship, "),
        (["--pahse=all"], "Unknown command line flag 'pahse'"),
    ],
)
def test_a_mistyped_flag_of_the_launcher(tiny_config, tmp_path, flags, message):
    code, _, err = tiny_run.run(tiny_config, tmp_path, *flags)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_a_mistake_in_a_real_process(tiny_config, tmp_path):
    code, out, err = tiny_run.run(tiny_config, tmp_path, "--config.budgt.queries=3")
    assert (code, out) == (2, "")
    assert err == "error: unknown config key 'budgt.queries'; did you mean 'budget.queries'?\n"
