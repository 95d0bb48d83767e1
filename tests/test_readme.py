"""The commands of the README are accepted as they stand, and those that need no key are run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bridge_jax.config import io as config_io
from bridge_jax.methods.checks import validate
from bridge_jax.study.study import Study, override
from launch import overrides
from tests import xla
from tests.launch import commands as processes

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/studies.md", "docs/baselines.md")


def commands():
    """Returns the commands of the pages, a list of arguments each."""
    found = {}
    for page in PAGES:
        text = (ROOT / page).read_text().replace("\\\n", " ")
        blocks = re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL)
        for block in (body for language, body in blocks if language in ("", "bash")):
            for line in block.splitlines():
                _, python, rest = line.partition("python -m launch.")
                if python and "..." not in rest:
                    rest = re.sub(r"[\[\]]", "", rest.split(" #")[0].split(" &")[0])
                    module, *flags = shlex.split(rest)
                    found[f"{page}: launch.{module} {' '.join(flags)}"] = [
                        f"launch.{module}",
                        *flags,
                    ]
    return found


COMMANDS = commands()


def test_there_are_commands():
    assert len(COMMANDS) > 10
    assert {command[0] for command in COMMANDS.values()} == {
        *("launch.run", "launch.plan", "launch.study", "launch.report", "launch.export"),
        *("launch.chat", "launch.convert", "launch.data", "launch.predict", "launch.trim"),
    }


@pytest.fixture(scope="module")
def accepted():
    """Returns the exit codes of all commands that only read their flags, of several at once."""
    started = {
        name: processes.start(*command, "--only_check_args") for name, command in COMMANDS.items()
    }
    return {
        name: (process.communicate()[1], process.returncode) for name, process in started.items()
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_flags_that_there_are(accepted, name):
    errors, code = accepted[name]
    assert code == 0, errors


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, command in COMMANDS.items()
        if command[0] in ("launch.run", "launch.plan", "launch.study")
        # `launch.data` writes it: tests/launch/test_data.py.
        and "--config=tickets_config.py" not in command
    ],
)
def test_a_command_has_a_config_that_can_work(name, tmp_path, monkeypatch):
    for file in ("tickets.jsonl", "my.jsonl", "task.toml"):
        (tmp_path / file).write_text('instruction = "Which team?"\n')
    flags, assignments = overrides.split(COMMANDS[name][1:])
    (path,) = (flag.removeprefix("--config=") for flag in flags if flag.startswith("--config="))
    found = config_io.load(ROOT / path, "get_config", "get_study")
    monkeypatch.chdir(tmp_path)
    if isinstance(found, Study):
        assert override(found, assignments).runs
    else:
        config = config_io.override(found, assignments)
        has_data = config.data.source == "practice" or bool(config.data.path)
        assert validate(config, has_data) is config


SMALL = (
    "--data.pool=24 --data.test=4 --budget.queries=6 --selection.parts=2 --warmup.train.steps=2 "
    "--assistant_training.steps=2 --instruct.examples=4 --student_training.steps=2 "
    "--config.compare=labels --labels_training.steps=2 --evaluation.assistant_examples=4 "
    "--generation.max_new_tokens=8 --generation.batch_size=8 "
    "--assistant.keep_layers=0,29 --student.keep_layers=0,29"
)


@pytest.mark.slow
def test_the_commands_of_a_run_of_ones_own(tmp_path):
    """In the README's order: run, report, bill, export, chat; with less of everything."""

    def do(first, more="", says=""):
        (command,) = (c for n, c in COMMANDS.items() if n.startswith(f"README.md: {first}"))
        shrunk = [each.replace("runs/quickstart", "runs/mine") for each in command]
        done = subprocess.run(
            [sys.executable, "-m", *shrunk, *more.split()],
            cwd=tmp_path,
            env=os.environ | {"XLA_FLAGS": xla.flags(1), "PYTHONPATH": str(ROOT)},
            input="How are you?\n",
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert says in done.stdout

    for name in ("bridge_jax", "launch", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    do("launch.run --config=configs/quickstart.py --workdir=runs/mine", SMALL, "Report   ")
    do("launch.report --workdir=runs/mine --ledger", says="6 of 6 queries")
    assert (tmp_path / "bill.csv").stat().st_size > 0
    do("launch.export --workdir=runs/quickstart", says="models/student")
    do("launch.chat --model=models/student", "--max_new_tokens=8")
