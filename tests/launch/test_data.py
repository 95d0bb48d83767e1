"""From a CSV of tickets to a config that runs, by launch.data alone."""

import io
import json
import subprocess
import sys

import pytest
import tickets
from fake_vendor import KEY, FakeVendor
from rich.console import Console

from bridge_jax.config import io as config_io
from bridge_jax.planning import inspection
from bridge_jax.runs import Run
from tests import tiny
from tests.launch import commands, tiny_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the tickets and a checkpoint."""
    found = tmp_path_factory.mktemp("data")
    tickets.write(found / "tickets.csv")
    tiny.write_checkpoint(found / "checkpoint", max_positions=4096)
    return found


def flags(folder, *more):
    models = [f"--{role}.checkpoint={folder / 'checkpoint'}" for role in ("assistant", "student")]
    return [f"--data.path={folder / 'tickets.csv'}", *models, "--student.keep_layers=0,2", *more]


PRICED = (
    "--teacher.model=big-1",
    "--teacher.usd_per_million_input=1",
    "--teacher.usd_per_million_output=10",
)


@pytest.fixture(scope="module")
def written(folder):
    """The config that is written, and what is printed."""
    config = folder / "config.py"
    code, out, err = commands.run("launch.data", *flags(folder, *PRICED, f"--write={config}"))
    assert code == 0, err
    return config, out


def test_everything_is_told_in_80_columns(written):
    _, out = written
    assert max(map(len, out.splitlines())) <= 80 and "\x1b" not in out
    for said in (
        "Guessed: data.columns=question:text,answer:team",
        "10 of 2,000 rows are bad:",
        "line 500: has 5 cells, but the header has 3 (id, text, team)",
        "122 groups",
        "Proposed: max_prompt_tokens=",
        'Read the text and say which of these labels is its "team".',
        "What the teacher is asked about T00001",
        "What the assistant is asked",
        "⟦(The reasoning of the assistant will go here.)",
        "Answer: delivery<|im_end|>⟧",
    ):
        assert said in out, said
    table = [line.split() for line in out.splitlines()]
    assert ["pool", "1,393"] in table and ["test", "398"] in table
    assert ["delivery", "285", "40", "81"] in table


def test_the_written_config_runs_and_says_what_is_cut(written, folder):
    config = config_io.load(written[0])
    assert config.data.on_bad_row == "skip" and config.on_long_prompt == "cut_end"
    assert config.student.keep_layers == (0, 2) and config.budget.queries == 70
    job = Run(config, folder / "checked")
    job.check()
    (cut,) = [note for note in job.notes() if "prompts were longer" in note]
    of = f"longer than max_prompt_tokens={config.max_prompt_tokens}: the end of their question"
    assert cut.startswith("assistant and student: ") or cut.startswith("assistant: ")
    assert " of 1,791 prompts" in cut and of in cut
    (divided,) = [note for note in job.notes() if note.startswith("no row has a split")]
    assert "1,393 in the pool, 199 in dev and 398 in the test; 122 groups" in divided


@pytest.mark.slow
def test_the_written_config_trains_a_student(folder, tmp_path, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    config = tmp_path / "config.py"
    short = [f"--{name}.steps=2" for name in ("student_training", "labels_training")]
    short += ["--assistant_training.steps=2", "--warmup.train.steps=2", "--instruct.examples=4"]
    short += ["--generation.max_new_tokens=4", "--data.test=6", "--data.pool=60"]
    short += ["--evaluation.student_before=false"]
    with FakeVendor() as vendor:
        vendor.answer = tickets.team_of
        here = [*PRICED, f"--teacher.base_url={vendor.url}/v1", f"--write={config}"]
        code, _, err = commands.run("launch.data", *flags(folder, *here, *short))
        assert code == 0, err
        assert tiny_run.finish(config, tmp_path / "run", "--yes")
        assert len(vendor.bills) == 3  # 5% of a pool of 60.
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["n_test"] == 6 and report["spend"]["queries"] == len(vendor.bills)


@pytest.mark.slow
def test_json_for_programs(folder):
    code, out, _ = commands.run("launch.data", *flags(folder, "--json"))
    found = json.loads(out)
    assert code == 0 and found["rows"] == {"total": 2_000, "bad": 10}
    assert found["splits"] == {"pool": 1_393, "dev": 199, "test": 398}
    assert found["labels"]["pool"]["billing"] == 281
    assert found["proposed"]["max_prompt_tokens"] == found["config"]["max_prompt_tokens"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "error: name a config with --config, or a file of your own with --data.path=FILE"),
        (["--data.path=x.csv", "--write=FILE"], "exists; name another file, or replace it with"),
        (["--data.path=x.csv", "--write=no/config.py"], "there is no folder no"),
        (["--config=FILE", "--write=new.py"], "--write writes a config for data that has none"),
        (["--data.path=none.csv"], "error: data.path=none.csv: no such file"),
    ],
)
def test_wrong_flags_are_named(more, said, tmp_path):
    file = tmp_path / "config.py"
    file.write_text("x = 1")
    more = [each.replace("FILE", str(file)) for each in more]
    code, _, err = commands.run("launch.data", *more)
    assert code == 2 and said in err
    assert file.read_text() == "x = 1"


def test_many_bad_rows_are_listed_in_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [f"{i},\x1b[2J {i} {'so ' * (i % 3)},{'' if i % 2 else 'a'}" for i in range(100)]
    (tmp_path / "rows.csv").write_text("id,question,answer\n" + "\n".join(lines))
    settings = ("data.source=csv", "data.path=rows.csv", "data.kind=label", "data.choices=a,b")
    config = tiny_run.settings(tiny_run.write_config(tmp_path), *settings)
    seen = inspection.inspect(config)
    console = Console(record=True, width=80, file=io.StringIO())
    inspection.show_bad_rows(console, seen.splits.bad, "rows.csv")
    inspection.show(console, seen, 1)
    out = console.export_text()
    assert "50 of 100 rows are bad" in out and out.count("answer has no value") == 21
    assert "and 30 more; the whole list is in rows.csv.bad_rows.jsonl" in out
    assert len((tmp_path / "rows.csv.bad_rows.jsonl").read_text().splitlines()) == 50
    assert "\x1b" not in out and "\\x1b[2J" in out


def test_a_row_shows_what_is_trained(folder):
    config = tiny_run.settings(
        tiny_run.write_config(folder), "data.rationale=medium", "data.domains=triage"
    )
    seen = inspection.inspect(config)
    pieces, padding = inspection.training_row(seen)
    first = seen.splits.pool[0]
    assert [piece.of for piece in pieces[:3]] == ["prompt", "rationale", "answer"]
    assert first.question in pieces[0].text and first.question not in pieces[1].text
    assert pieces[1].text.strip() == first.rationales["medium"]
    assert pieces[2].text.strip() == f"Answer: {first.answer}<|im_end|>"
    assert 0 <= padding < config.student_training.row_tokens


def test_a_mistyped_flag_is_found_before_the_slow_imports():
    code = "import launch.data, sys; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
