"""Runs that share a store: a stage is made once, by whoever comes first, and lost by nobody."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bridge_jax.errors import UserError
from bridge_jax.pipeline import storage
from bridge_jax.pipeline.execution import StageBusy
from bridge_jax.pipeline.leases import WorkdirBusy, held, lock
from bridge_jax.pipeline.stages import Stage, deep_keys
from bridge_jax.pipeline.storage import Store, drop_model, finished
from tests.pipeline.toy_stages import Calls

ROOT = Path(__file__).parents[2]


class Study(Calls):
    """Runs of first -> model -> last; `model` reads "b": runs that differ in it share `first`."""

    def __init__(self, root):
        super().__init__(root)
        self.root, self.store = root, Store(root / "stages", shared=True)
        self.name, self.now = "", dict(self.config)

    def stages(self):
        def make(name):
            def run(params, out, **read):
                self.made.append(f"{self.name}:{name}")
                out.write_record("value.json", {"value": [self.name, params.number]})
                (out.path / "params").mkdir(exist_ok=True)
                (out.path / "params" / "w").write_text("weights")
                if name == "last":
                    assert (read["model"].path / "params/w").read_text() == "weights"

            return run

        return [
            self.stage("p/first", "a", (), make("first")),
            self.stage("p/model", "b", ["p/first"], make("model")),
            self.stage("q/last", "c", ["p/model"], make("last")),
        ]

    def run_as(self, name, stages=None, **config):
        self.config, self.name = {"a": 1, "b": 2, "c": 3} | config, name
        workdir = self.root / "runs" / name
        workdir.mkdir(parents=True, exist_ok=True)
        stages = stages() if stages else self.stages()
        self.made.clear()
        done = self.execution(stages, workdir=workdir, store=self.store).run()
        outcomes = {outcome.name[2:]: outcome.cached for outcome in done}
        assert all(finished(workdir, stage.name) for stage in stages)
        return outcomes, list(self.made)


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path / "study")


def test_a_stage_is_made_once_for_all_runs(study):
    assert study.run_as("one")[1] == ["one:first", "one:model", "one:last"]
    assert study.run_as("two", c=4)[:2] == (
        {"first": True, "model": True, "last": False},
        ["two:last"],
    )
    assert study.run_as("three", b=5)[1] == ["three:model", "three:last"]
    assert study.run_as("one")[1] == []
    runs = study.root / "runs"
    assert json.loads((runs / "two/p/first/value.json").read_text()) == {"value": ["one", 1]}
    assert len(list((study.store.root / "p/model").glob("*/manifest.json"))) == 2


def test_what_has_equal_inputs_is_shared_whatever_made_them(study):
    def stages():
        first, model, last = study.stages()

        def same(_, out, **read):
            study.made.append(f"{study.name}:model")
            out.write_record("value.json", {"value": "the same"})
            (out.path / "params").mkdir(exist_ok=True)
            (out.path / "params" / "w").write_text("weights")

        return [first, Stage(model.artifact, same, model.params, model.reads), last]

    study.run_as("one", stages)
    assert study.run_as("two", stages, b=5)[1] == ["two:model"]
    link = (study.root / "runs/two/q/last").resolve()
    assert link == (study.root / "runs/one/q/last").resolve()
    assert study.run_as("two", stages, b=5)[1] == []


def test_the_links_are_relative_so_that_a_study_can_be_moved(study):
    study.run_as("one")
    moved = study.root.with_name("elsewhere")
    study.root.rename(moved)
    assert json.loads((moved / "runs/one/q/last/value.json").read_text())["value"][0] == "one"
    link = (moved / "runs/one/p/first").readlink()
    assert link.parts[:-1] == ("..", "..", "..", "stages", "p", "first")


def test_a_changed_config_turns_the_link_and_keeps_the_other_stage(study):
    study.run_as("one")
    study.run_as("one", b=5)
    assert study.made == ["one:model", "one:last"]
    assert study.run_as("two")[1] == []


def test_what_another_process_is_at_is_not_waited_for(study):
    study.run_as("one")
    study.config = {"a": 1, "b": 7, "c": 3}
    busy = deep_keys(study.stages(), {})["p/model"]
    with held(study.store.root / "p/model" / f"{busy}.lock") as ours:
        assert ours
        with pytest.raises(StageBusy, match="p/model"):
            study.run_as("two", b=7)
        assert study.run_as("one")[1] == []  # what is whole needs no lock
    assert study.run_as("two", b=7)[1] == ["two:model", "two:last"]


def test_another_run_goes_on_with_what_a_killed_one_began(study):
    def stop(_, out):
        (out.path / "half").write_text(study.name)
        raise KeyboardInterrupt

    def finish(_, out):
        study.made.append((out.path / "half").read_text())
        out.write_record("value.json", {"value": 1})

    with pytest.raises(KeyboardInterrupt):
        study.run_as("one", lambda: [study.stage("p/first", "a", (), stop)])
    assert not (study.root / "runs/one/p/first").exists()
    assert study.run_as("two", lambda: [study.stage("p/first", "a", (), finish)])[1] == ["one"]


def test_a_folder_in_place_of_the_link_gives_way_to_it(study):
    study.run_as("one")
    link = study.root / "runs/one/p/first"
    there = link.resolve()
    link.unlink()
    shutil.copytree(there, link)
    assert study.run_as("one")[1] == []
    assert link.is_symlink() and link.resolve() == there


def test_a_dropped_model_is_made_again_only_when_it_is_read(study):
    study.run_as("one")
    for folder in study.store.root.glob("p/*/*"):
        if folder.is_dir():
            drop_model(folder)
    assert not list(study.store.root.glob("p/*/*/params"))
    assert study.run_as("one")[1] == []
    # `last` reads the model, and the model's stage reads the one before it.
    assert study.run_as("two", c=4)[1] == ["two:first", "two:model", "two:last"]


def test_killed_while_a_model_is_dropped_it_counts_as_dropped(study, monkeypatch):
    study.run_as("one")
    (folder,) = (path for path in study.store.root.glob("p/model/*") if path.is_dir())

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(storage.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        drop_model(folder)
    monkeypatch.undo()
    assert study.run_as("two", c=4)[1] == ["two:model", "two:last"]


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
