"""Stages: cached, continued, run again, and killed between their last steps."""

import errno
import json

import pytest

from bridge_jax.errors import UserError
from bridge_jax.phases import stages as stages_module
from bridge_jax.pipeline.files import read_rows, write_json, write_rows
from bridge_jax.phases.stages import (
    Stage,
    drop_model,
    execute,
    fingerprints,
    finished,
    is_done,
)

CONFIG = {"a": 1, "b": 2, "c": 3}


class Calls:
    """A diamond of stages first -> left, right -> last that note who ran with what."""

    def __init__(self, workdir):
        self.workdir, self.config, self.made = workdir, dict(CONFIG), []

    def make(self, name):
        def run(context, out):
            assert context is self
            self.made.append(name)
            (out / "value.json").write_text(json.dumps(self.config))

        return run

    def stages(self):
        return [
            Stage("p/first", self.make("first"), ("a",)),
            Stage("p/left", self.make("left"), ("b",), ("p/first",)),
            Stage("p/right", self.make("right"), (), ("p/first",)),
            Stage("q/last", self.make("last"), ("c",), ("p/left",)),
        ]

    def run(self, stages=None):
        """Returns (stages that were cached, stages that ran)."""
        self.made.clear()
        outcomes = list(
            execute(stages or self.stages(), self, self.workdir, lambda key: self.config[key])
        )
        return [o.name[2:] for o in outcomes if o.cached], list(self.made)


@pytest.fixture
def calls(tmp_path):
    return Calls(tmp_path)


ALL = ["first", "left", "right", "last"]


def test_what_is_done_is_not_done_again(calls):
    assert calls.run() == ([], ALL)
    assert calls.run() == (ALL, [])
    manifest = json.loads((calls.workdir / "p/first/manifest.json").read_text())
    assert manifest["stage"] == "p/first"
    assert manifest["seconds"] >= 0
    assert not list(calls.workdir.rglob("*.partial"))
    assert not list(calls.workdir.rglob("started.json"))


@pytest.mark.parametrize(
    ("key", "again"),
    [("a", ALL), ("b", ["left", "last"]), ("c", ["last"])],
)
def test_a_changed_key_runs_its_readers_and_what_follows_them(calls, key, again):
    calls.run()
    calls.config[key] = 10
    assert calls.run() == ([name for name in ALL if name not in again], again)
    assert json.loads((calls.workdir / "q/last/value.json").read_text())[key] == 10
    assert calls.run() == (ALL, [])


def test_going_back_runs_again(calls):
    calls.run()
    calls.config["c"] = 10
    calls.run()
    calls.config["c"] = 3
    assert calls.run()[1] == ["last"]


def test_the_fingerprint_is_of_name_config_and_ancestors(calls):
    stages = calls.stages()
    before = fingerprints(stages, CONFIG.get)
    assert fingerprints(stages, CONFIG.get) == before
    assert len(set(before.values())) == 4
    after = fingerprints(stages, {**CONFIG, "b": 0}.get)
    assert [name for name in before if before[name] != after[name]] == ["p/left", "q/last"]


def interrupt(stage, text, error=KeyboardInterrupt):
    """Returns a stage that writes a file and is interrupted."""

    def run(context, out):
        (out / "half.txt").write_text(text)
        raise error

    return Stage(stage.name, run, stage.reads, stage.after)


def finish(stage, seen):
    """Returns a stage that notes what it finds in its folder."""

    def run(context, out):
        half = out / "half.txt"
        seen.append(half.read_text() if half.exists() else None)

    return Stage(stage.name, run, stage.reads, stage.after)


def test_an_interrupted_stage_continues_in_its_folder(calls):
    stage, seen = calls.stages()[0], []
    with pytest.raises(KeyboardInterrupt):
        calls.run([interrupt(stage, "so far")])
    assert not (calls.workdir / "p/first").exists()
    first = json.loads((calls.workdir / "p/first.partial/started.json").read_text())["seconds"]
    assert first > 0
    calls.run([finish(stage, seen)])
    assert seen == ["so far"]
    # The seconds are those of both attempts.
    assert json.loads((calls.workdir / "p/first/manifest.json").read_text())["seconds"] > first


def test_a_changed_config_discards_what_was_begun(calls):
    stage, seen = calls.stages()[0], []
    with pytest.raises(KeyboardInterrupt):
        calls.run([interrupt(stage, "of another config")])
    calls.config["a"] = 10
    calls.run([finish(stage, seen)])
    assert seen == [None]


def test_the_old_result_stays_until_the_new_one_is_whole(calls):
    calls.run()
    calls.config["a"] = 10
    with pytest.raises(KeyboardInterrupt):
        calls.run([interrupt(calls.stages()[0], "")])
    assert json.loads((calls.workdir / "p/first/value.json").read_text())["a"] == 1


@pytest.mark.parametrize("old", [False, True], ids=["first time", "over an old result"])
@pytest.mark.parametrize("started", [False, True])
def test_killed_between_manifest_and_rename(calls, old, started):
    calls.run()
    final = calls.workdir / "q/last"
    partial = final.with_name("last.partial")
    if old:
        calls.config["c"] = 10
        calls.run()
        # As a kill would leave it: the new result whole beside the old one.
        final.rename(partial)
        final.mkdir()
        write_json(final / "manifest.json", {"stage": "q/last", "fingerprint": "old"})
    else:
        final.rename(partial)
    if started:
        write_json(partial / "started.json", {"fingerprint": "any", "seconds": 0})
    assert calls.run() == (ALL, [])
    assert final.is_dir()
    assert not partial.exists()
    assert json.loads((final / "value.json").read_text())["c"] == calls.config["c"]


def test_a_whole_partial_folder_of_another_config_is_not_used(calls):
    calls.run()
    final = calls.workdir / "q/last"
    final.rename(final.with_name("last.partial"))
    calls.config["c"] = 10
    assert calls.run()[1] == ["last"]


DAMAGED = {
    "cut short": b'{"stage": "p/l',
    "empty": b"",
    "a list": b"[1]",
    "a string": b'"manifest"',
    "null": b"null",
    "not UTF-8": b'{"stage": "\xff"}',
    "nested too deeply": b"[" * 100_000,
    "a number of 5,000 digits": b'{"seconds": %s}' % (b"9" * 5000),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_manifest_runs_the_stage_again(calls, content):
    calls.run()
    prints = fingerprints(calls.stages(), lambda key: calls.config[key])
    write_json(calls.workdir / "stages.json", prints)
    manifest = calls.workdir / "p/left/manifest.json"
    manifest.write_bytes(content)
    assert not finished(calls.workdir, "p/left")
    assert not is_done(calls.workdir, "p/left", prints["p/left"])
    drop_model(manifest.parent)
    assert calls.run() == (["first", "right", "last"], ["left"])
    assert finished(calls.workdir, "p/left")
    (calls.workdir / "stages.json").write_bytes(content)
    assert not finished(calls.workdir, "p/left")


@pytest.mark.parametrize(
    "change",
    [
        *({"fingerprint": 1}, {"seconds": "soon"}, {"seconds": -1.0}, {"seconds": float("inf")}),
        *({"seconds": True}, {"seconds": None}, {"restarts": "twice"}),
    ],
    ids=str,
)
def test_a_manifest_with_values_of_other_types_is_damaged(calls, change):
    calls.run()
    manifest = calls.workdir / "p/left/manifest.json"
    write_json(manifest, json.loads(manifest.read_text()) | change)
    assert calls.run() == (["first", "right", "last"], ["left"])


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_of_what_was_begun_begins_anew(calls, content):
    stage, seen = calls.stages()[0], []
    with pytest.raises(KeyboardInterrupt):
        calls.run([interrupt(stage, "so far")])
    (calls.workdir / "p/first.partial/started.json").write_bytes(content)
    calls.run([finish(stage, seen)])
    assert seen == [None]


def test_rows_of_a_finished_stage_are_whole(tmp_path):
    path = tmp_path / "stage" / "rows.jsonl"
    with pytest.raises(UserError, match=r"rows\.jsonl: cannot be read .*delete the folder"):
        read_rows(path)
    path.parent.mkdir()
    rows = [{"id": "a", "text": "U+2028\u2028"}, {"id": "b"}]
    write_rows(path, rows)
    assert read_rows(path) == rows
    whole = path.read_bytes()
    for damage, line in (
        (whole[:-2], 2),  # in the last row
        (whole[:-1], 2),  # only the line break is missing: nobody knows what else is
        (whole.replace(b'{"id": "a"', b'{"id": "a'), 1),
        (b"[1]\n" + whole, 1),
        (whole + b"\n", 3),
        (b"[" * 100_000 + b"\n", 1),
    ):
        path.write_bytes(damage)
        with pytest.raises(UserError, match=rf"rows\.jsonl: line {line} is damaged"):
            read_rows(path)


def test_a_full_disk_names_the_stage_and_keeps_the_rest(calls):
    stages, seen = calls.stages(), []
    full = OSError(errno.ENOSPC, "No space left on device", "/disk/file")
    stages[1] = interrupt(stages[1], "so far", full)
    with pytest.raises(UserError, match=r"stage p/left: No space left on device \(/disk/file\)"):
        calls.run(stages)
    assert calls.run([calls.stages()[0], finish(stages[1], seen)])[0] == ["first"]
    assert seen == ["so far"]


def test_a_full_disk_at_the_manifest_keeps_the_work(calls, monkeypatch):
    write_json = stages_module.write_json

    def full(path, value):
        if path.name == "manifest.json" and path.parent.name == "left.partial":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_json(path, value)

    monkeypatch.setattr(stages_module, "write_json", full)
    with pytest.raises(UserError, match=r"stage p/left: No space left on device \(.*manifest.json"):
        calls.run()
    monkeypatch.undo()
    assert (calls.workdir / "p/left.partial/value.json").is_file()
    assert calls.run() == (["first"], ["left", "right", "last"])


def test_a_folder_that_cannot_be_written_names_the_stage(calls):
    (calls.workdir / "p").write_text("a file where a folder has to be")
    with pytest.raises(UserError, match="stage p/first: Not a directory"):
        calls.run()


def test_other_errors_pass_as_they_are(calls):
    with pytest.raises(ZeroDivisionError):
        calls.run([interrupt(calls.stages()[0], "", ZeroDivisionError)])


def test_write_json_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
