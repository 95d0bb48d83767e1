"""Runs a whole study of tiny checkpoints, in processes of its own."""

from pathlib import Path

from tests.launch import commands, tiny_run

HEAD = """
import importlib.util
from bridge_jax.config.io import override
from bridge_jax.study.study import Study, StudyRun

spec = importlib.util.spec_from_file_location("tiny_config", {config!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
"""

STUDY = (
    HEAD
    + """
def run(variant, seed, queries):
    changes = [f"seed={{seed}}", f"selection.strategy={{variant}}", f"budget.queries={{queries}}"]
    changes += [f"{{role}}_training.epochs=1" for role in ("assistant", "student")]
    return StudyRun(variant, override(module.get_config(), changes), float(queries))

def get_study():
    variants, budgets = ("random", "difficulty"), (2, 6)
    runs = tuple(run(v, s, q) for s in range({seeds}) for q in budgets for v in variants)
    return Study("tiny", "Is difficulty better?", runs, "random", "teacher queries")
"""
)


def write(folder: Path, seeds: int = 1) -> Path:
    """Writes a study of 4 runs a seed; returns its path."""
    config = tiny_run.write_config(folder)
    path = folder / f"tiny_study_{seeds}.py"
    path.write_text(STUDY.format(config=str(config), seeds=seeds))
    return path


FAILING = (
    HEAD
    + """
def get_study():
    usd = {{"poor": "1e-7", "rich": "0.05"}}
    blind = ["method=direct", "selection.strategy=random", "instruct.examples=0"]
    runs = tuple(
        StudyRun(variant, override(module.get_config(), [f"budget.usd={{cap}}", *blind]))
        for variant, cap in usd.items()
    )
    return Study("failing", "Does money help?", runs, "rich")
"""
)


def write_failing(folder: Path) -> Path:
    """Writes a study whose first run has too little money; returns its path."""
    path = folder / "failing_study.py"
    path.write_text(FAILING.format(config=str(tiny_run.write_config(folder))))
    return path


def start(study: Path, workdir: Path, *flags: str) -> commands.Started:
    """Starts `python -m launch.study`."""
    return commands.start("launch.study", f"--config={study}", f"--workdir={workdir}", *flags)


def finish(process: commands.Started, code: int = 0) -> str:
    """Waits for a process to end with `code`; returns what it printed."""
    out, err = process.communicate()
    assert process.returncode == code, err + out
    return out
