"""A study goes on after a run that fails, whatever the reason quotes."""

import io

import pytest
from rich.console import Console

from bridge_jax.config import RunConfig
from bridge_jax.errors import UserError
from bridge_jax.study.study import Study, StudyRun
from launch import study_runs


@pytest.mark.parametrize("quoted", ["[/b]", "[/INST]", "[bold]", "a\x1b[2J\r", ":bug:"])
def test_a_reason_is_printed_as_it_is(tmp_path, monkeypatch, quoted):
    class Failing:
        def __init__(self, config, workdir, shared):
            pass

        def is_whole(self, careful):
            return False

        def run(self, console, heading, quiet):
            raise UserError(f"the server says {quoted}")

    monkeypatch.setattr(study_runs, "Run", Failing)
    cell = StudyRun("a", RunConfig())
    console = Console(file=io.StringIO(), width=200)
    runs = study_runs.Runs(Study("s", "?", (cell,), "a"), tmp_path, True, console)
    assert runs.attempt(cell) == "done"
    written_out = quoted.replace("\x1b", r"\x1b").replace("\r", r"\r")
    assert console.file.getvalue() == f"  a-seed0: the server says {written_out}\n"
    assert runs.failed == {"a-seed0": f"the server says {quoted}"}
