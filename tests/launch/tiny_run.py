"""Runs a tiny checkpoint through all stages, in a process of its own or in this one."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from rich.console import Console

from bridge_jax.config import RunConfig
from bridge_jax.config import io as config_io
from bridge_jax.runs import Run
from tests import tiny
from tests.launch import commands

ROOT = commands.ROOT

CONFIG = """
from bridge_jax.config import *

def get_config():
    train = TrainConfig(epochs=2, batch_rows=8, row_tokens=192, learning_rate=1e-3,
                        checkpoint_every=1)
    return RunConfig(
        name="tiny",
        compare=(),
        max_prompt_tokens=128,
        data=DataConfig(pool=24, dev=2, test=8, max_steps=1, rationale="short"),
        budget=BudgetConfig(queries=10, usd=0.05),
        # An adapter of one projection is traced in half the time of one of all.
        assistant=ModelConfig(
            {checkpoint!r}, lora=LoraConfig(4, dropout=0.1, targets=("attention/value",))
        ),
        student=ModelConfig({checkpoint!r}, keep_layers=(0, 2)),
        warmup=WarmupConfig(0.25, train),
        selection=SelectionConfig(
            strategy="diversity", noise_fraction=0.05, batch_tokens=2048
        ),
        assistant_training=train,
        instruct=InstructConfig(8, train),
        student_training=train,
        direct_training=train,
        labels_training=train,
        generation=GenerationConfig(max_new_tokens=4, batch_size=8),
    )
"""


def write_config(folder: Path) -> Path:
    """Writes the checkpoint and a config that names it; returns the config's path."""
    checkpoint = tiny.write_checkpoint(folder / "checkpoint")
    path = folder / "tiny_config.py"
    path.write_text(CONFIG.format(checkpoint=str(checkpoint)))
    return path


def start(config: Path, workdir: Path, *flags: str, devices: int = 1) -> commands.Started:
    """Starts `python -m launch.run`."""
    return commands.start(
        "launch.run", f"--config={config}", f"--workdir={workdir}", *flags, devices=devices
    )


def run(config: Path, workdir: Path, *flags: str, devices: int = 1) -> tuple[int, str, str]:
    """Returns (exit code, stdout, stderr) of a run."""
    settings = f"--config={config}", f"--workdir={workdir}", *flags
    return commands.run("launch.run", *settings, devices=devices)


def finish(config: Path, workdir: Path, *flags: str, devices: int = 1) -> list[str]:
    """Runs to the end; returns the stages that were not cached."""
    code, out, err = run(config, workdir, *flags, devices=devices)
    assert code == 0, err
    return stages_run(out)


def stages_run(out: str) -> list[str]:
    """Returns the stages that were not cached, from what a run printed."""
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    return [
        line[0] for line in lines if len(line) == 2 and "/" in line[0] and line[1] != "done before"
    ]


def settings(config: Path, *assignments: str) -> RunConfig:
    """Returns the config at a path with assignments as after `--config.`."""
    return config_io.override(config_io.load(config), assignments)


def override(config: RunConfig, *assignments: str) -> RunConfig:
    """Returns the config with assignments as after `--config.`."""
    return config_io.override(config, assignments)


def finish_here(config: RunConfig, workdir: Path, phase: str = "all") -> dict:
    """Runs to the end in this process, on one device; returns the report."""
    with one_device():
        return Run(config, workdir, phase=phase).run(Console(quiet=True))


@contextlib.contextmanager
def one_device() -> Iterator[None]:
    """Hides all devices but the first: what is compiled is that of a process with one."""
    first = jax.devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda: first)
        patch.setattr(jax, "device_count", lambda: 1)
        yield


def report(workdir: Path) -> dict:
    """Returns `report.json`."""
    return json.loads((workdir / "report.json").read_text())


def begun(workdir: Path, stage: str) -> Path | None:
    """Returns the folder of a stage that has begun and is not finished."""
    found = (workdir / "stages" / stage).glob("*/started.json")
    return next((path.parent for path in found), None)


def copy(workdir: Path, to: Path) -> Path:
    """Copies a workdir with its links; returns the copy."""
    return shutil.copytree(workdir, to, symlinks=True)
