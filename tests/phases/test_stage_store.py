"""Runs that share a store: a stage is made once, by whoever comes first, and lost by nobody."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bridge_jax.errors import UserError
from bridge_jax.phases import stages as stages_module
from bridge_jax.phases.stages import Stage, StageBusy, drop_model, execute, fingerprints, finished
from bridge_jax.pipeline.leases import WorkdirBusy, held, lock

ROOT = Path(__file__).parents[2]


class Study:
    """Runs of first -> model -> last; `model` reads "b": runs that differ in it share `first`."""

    def __init__(self, root):
        self.root, self.store, self.made = root, root / "stages", []

    def stages(self):
        def make(name):
            def run(workdir, out):
                self.made.append(f"{workdir.name}:{name}")
                (out / "value.json").write_text(json.dumps(workdir.name))
                (out / "params").mkdir(exist_ok=True)
                (out / "params" / "w").write_text("weights")
                if (
                    name == "last"
                ):  # It reads what the stage before it left, through the run's folder.
                    assert (workdir / "p/model/params/w").read_text() == "weights"

            return run

        return [
            Stage("p/first", make("first"), ("a",)),
            Stage("p/model", make("model"), ("b",), ("p/first",)),
            Stage("q/last", make("last"), ("c",), ("p/model",)),
        ]

    def run(self, name, stages=None, **config):
        config = {"a": 1, "b": 2, "c": 3} | config
        workdir = self.root / "runs" / name
        workdir.mkdir(parents=True, exist_ok=True)
        stages = stages or self.stages()
        prints = fingerprints(stages, config.get)
        (workdir / "stages.json").write_text(json.dumps(prints))
        self.made.clear()
        done = execute(stages, workdir, workdir, config.get, self.store)
        outcomes = {outcome.name[2:]: outcome.cached for outcome in done}
        assert all(finished(workdir, name) for name in prints)
        return outcomes, list(self.made), prints


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path / "study")


def test_a_stage_is_made_once_for_all_runs(study):
    assert study.run("one")[1] == ["one:first", "one:model", "one:last"]
    assert study.run("two", c=4)[:2] == (
        {"first": True, "model": True, "last": False},
        ["two:last"],
    )
    assert study.run("three", b=5)[1] == ["three:model", "three:last"]
    assert study.run("one")[1] == []
    runs = study.root / "runs"
    assert json.loads((runs / "two/p/first/value.json").read_text()) == "one"
    assert len(list((study.store / "p/model").glob("*/manifest.json"))) == 2


def test_the_links_are_relative_so_that_a_study_can_be_moved(study):
    study.run("one")
    moved = study.root.with_name("elsewhere")
    study.root.rename(moved)
    assert json.loads((moved / "runs/one/q/last/value.json").read_text()) == "one"
    link = (moved / "runs/one/p/first").readlink()
    assert link.parts[:-1] == ("..", "..", "..", "stages", "p", "first")


def test_a_changed_config_turns_the_link_and_keeps_the_other_stage(study):
    study.run("one")
    study.run("one", b=5)
    assert study.made == ["one:model", "one:last"]
    assert study.run("two")[1] == []


def test_what_another_process_is_at_is_not_waited_for(study):
    study.run("one")
    busy = fingerprints(study.stages(), {"a": 1, "b": 7, "c": 3}.get)["p/model"]
    with held(study.store / "p/model" / f"{busy}.lock") as ours:
        assert ours
        with pytest.raises(StageBusy, match="p/model"):
            study.run("two", b=7)
        assert study.run("one")[1] == []  # what is whole needs no lock
    assert study.run("two", b=7)[1] == ["two:model", "two:last"]


def test_another_run_goes_on_with_what_a_killed_one_began(study):
    def stop(workdir, out):
        (out / "half").write_text(workdir.name)
        raise KeyboardInterrupt

    def finish(workdir, out):
        study.made.append((out / "half").read_text())

    first = Stage("p/first", stop, ("a",))
    with pytest.raises(KeyboardInterrupt):
        study.run("one", [first])
    assert not (study.root / "runs/one/p/first").exists()
    assert study.run("two", [Stage("p/first", finish, ("a",))])[1] == ["one"]


def test_a_folder_of_its_own_gives_way_to_the_link_and_back(study):
    workdir = study.root / "runs" / "one"
    config = {"a": 1, "b": 2, "c": 3}
    list(execute(study.stages(), workdir, workdir, config.get))
    assert not (workdir / "p/first").is_symlink()
    study.run("one")
    assert (workdir / "p/first").is_symlink()
    study.made.clear()
    list(execute(study.stages(), workdir, workdir, (config | {"b": 9}).get))
    assert study.made == ["one:model", "one:last"]
    assert (workdir / "p/first").is_symlink() and not (workdir / "p/model").is_symlink()
    assert study.run("two")[1] == []  # the store's are untouched


def test_a_dropped_model_is_made_again_only_when_it_is_read(study):
    study.run("one")
    for folder in study.store.glob("p/*/*"):
        if folder.is_dir():
            drop_model(folder)
    assert not list(study.store.glob("p/*/*/params"))
    assert study.run("one")[1] == []
    # `last` reads the model, and the model's stage reads the one before it.
    assert study.run("two", c=4)[1] == ["two:first", "two:model", "two:last"]
    assert study.run("one")[1] == []


def test_killed_while_a_model_is_dropped_it_counts_as_dropped(study, monkeypatch):
    study.run("one")
    (folder,) = (path for path in study.store.glob("p/model/*") if path.is_dir())

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(stages_module.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        drop_model(folder)
    monkeypatch.undo()
    assert study.run("two", c=4)[1] == ["two:model", "two:last"]


HOLD = """
import sys, time
from pathlib import Path
from bridge_jax.pipeline.leases import held
with held(Path(sys.argv[1])) as ours:
    print(ours, flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_killed_process_does_not_block(tmp_path):
    file = tmp_path / "deep" / "x.lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "True\n"
    with held(file) as ours:
        assert not ours
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    began = time.monotonic()
    with held(file, wait=True) as ours:
        assert ours
    assert time.monotonic() - began < 30


def test_a_busy_workdir_is_told_from_one_that_cannot_be_made(tmp_path):
    with (
        lock(tmp_path),
        pytest.raises(WorkdirBusy, match="another run is writing here"),
        lock(tmp_path),
    ):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Not a directory"), lock(tmp_path / "file" / "x"):
        pass
