"""What a user is told about rows that cannot be used, and where the whole list of them is."""

import json

import pytest

from bridge_jax.config import DataConfig, RunConfig
from bridge_jax.errors import UserError
from bridge_jax.pipeline.files import read_rows
from bridge_jax.runs import Run, bad_rows_listed
from bridge_jax.study import study as studies
from tests.launch import tiny_run


def rows(good, bad):
    made = [{"question": f"Good {i}?", "answer": str(i)} for i in range(good)]
    made += [{"question": f"Bad {i}?", "answer": "[/b] none"} for i in range(bad)]
    return [{**row, "split": "train" if i % 2 else "test"} for i, row in enumerate(made)]


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "rows.jsonl"
    assignments = ("data.source=jsonl", f"data.path={path}", "method=labels", "data.pool=0")

    def write(some_rows, *more):
        path.write_text("\n".join(map(json.dumps, some_rows)))
        config = tmp_path / "tiny_config.py"
        config = config if config.exists() else tiny_run.write_config(tmp_path)
        return tiny_run.settings(config, *assignments, *more)

    return write


def test_an_error_shows_ten_and_names_the_file_of_all(settings, tmp_path):
    workdir = tmp_path / "run"
    with pytest.raises(UserError) as error:
        tiny_run.finish_here(settings(rows(20, 15)), workdir)
    said = str(error.value).split("\n")
    assert said[0] == f"{tmp_path}/rows.jsonl: 15 of 35 rows are bad:"
    assert said[1] == f"  {tmp_path}/rows.jsonl, line 21: answer='[/b] none' is not a number"
    assert said[10].startswith(f"  {tmp_path}/rows.jsonl, line 30: ")
    assert said[11] == "  and 5 more"
    assert said[-1] == f"the whole list is in {workdir}/bad_rows.jsonl"
    listed = read_rows(workdir / "bad_rows.jsonl")
    assert [row["row"] for row in listed] == [f"line {i}" for i in range(21, 36)]
    assert listed[14] == {
        "file": f"{tmp_path}/rows.jsonl",
        "row": "line 35",
        "reason": "answer='[/b] none' is not a number",
    }
    assert not (workdir / "config.json").exists()


def test_skipped_rows_are_counted_by_reason_and_listed(settings, tmp_path):
    half = {"question": "Half \ud83d?", "answer": "1", "split": "train"}
    config = settings(
        [*rows(20, 3), half, rows(1, 0)[0] | {"split": "huh"}], "data.on_bad_row=skip"
    )
    job = Run(config, tmp_path / "run")
    job.check()
    assert list(job.notes()) == [
        "4 of 25 rows are bad and were skipped: 3 x answer is not a number, "
        f"1 x split is not train, dev or test ({tmp_path}/run/bad_rows.jsonl)",
        "data.test=8: 8 of 10 rows, a random sample; 0 takes all",
        "rows with invalid characters (lone surrogates or NUL), now replaced by U+FFFD: 1",
    ]
    assert len(read_rows(tmp_path / "run/bad_rows.jsonl")) == 4


def test_the_list_is_of_the_data_of_now(settings, tmp_path):
    Run(settings(rows(20, 3), "data.on_bad_row=skip"), tmp_path / "run").check()
    assert (tmp_path / "run/bad_rows.jsonl").exists()
    Run(settings(rows(20, 0)), tmp_path / "run").check()
    assert not (tmp_path / "run/bad_rows.jsonl").exists()


def test_rows_that_a_limit_leaves_out_are_counted(settings, tmp_path):
    config = settings(rows(20, 0), "data.pool=5")
    job = Run(config, tmp_path / "run")
    assert len(job.inputs.pool) == 5 and job.inputs.splits.cut == {"pool": 10, "test": 10}
    said = "data.pool=5: 5 of 10 rows, a random sample; 0 takes all"
    assert said in list(job.notes())


def test_most_rows_failing_alike_is_said_where_they_are_skipped(settings, tmp_path):
    config = settings(rows(10, 11), "data.on_bad_row=skip")
    _, note, *_ = Run(config, tmp_path / "run").notes()
    assert note.startswith(
        "11 of 21 rows fail the same way: answer is not a number; data.kind=numeric reads"
    )


def test_a_study_lists_them_in_its_folder(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows(4, 12))))
    config = RunConfig(data=DataConfig(source="jsonl", path=str(path)))
    made = studies.Study("s", "?", (studies.StudyRun("a", config, None),), "a", "")
    named = pytest.raises(UserError, match=r"whole list is in .*study/bad_rows\.jsonl")
    with named, bad_rows_listed(tmp_path / "study"):
        studies.check_tests(made)
    assert len(read_rows(tmp_path / "study/bad_rows.jsonl")) == 12
