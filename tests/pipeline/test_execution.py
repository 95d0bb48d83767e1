"""Stages: cached, continued, run again, cut off early, and killed between their last steps."""

import errno
import json
import os

import pytest

from bridge_jax.errors import UserError
from bridge_jax.pipeline import execution, files, storage
from bridge_jax.pipeline.files import read_rows, write_json, write_rows
from bridge_jax.pipeline.stages import Stage, deep_keys
from bridge_jax.pipeline.storage import drop_model, finished
from tests.pipeline.toy_stages import Calls, Number, artifact, text


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
    assert manifest["made_with"]["backend"] == "cpu"
    assert list(manifest["files"]) == ["value.json"]
    assert not list(calls.workdir.rglob("started.json"))


@pytest.mark.parametrize(
    ("key", "again"),
    [("a", ALL), ("b", ["left", "last"]), ("c", ["last"])],
)
def test_a_changed_parameter_runs_its_readers_and_what_follows_them(calls, key, again):
    calls.run()
    calls.config[key] = 10
    assert calls.run() == ([name for name in ALL if name not in again], again)
    assert calls.value("q/last") == [calls.config["c"], [calls.config["b"], [calls.config["a"]]]]
    assert calls.run() == (ALL, [])


def test_after_an_equal_result_no_later_stage_reruns(calls):
    calls.flat = {"left"}
    calls.run()
    calls.config["b"] = 10
    assert calls.run() == (["first", "right", "last"], ["left"])
    assert calls.run() == (ALL, [])
    # Its key is another, so that a plan would count it as new; by its inputs it is the same.
    deep = deep_keys(calls.stages(), {})
    assert json.loads((calls.workdir / "q/last/manifest.json").read_text())["key"] != deep["q/last"]
    used = storage.current(calls.workdir)
    assert used["p/left"] == deep["p/left"] and used["q/last"] != deep["q/last"]
    assert all(finished(calls.workdir, stage.name) for stage in calls.stages())


def test_going_back_runs_again(calls):
    calls.run()
    calls.config["c"] = 10
    calls.run()
    calls.config["c"] = 3
    assert calls.run()[1] == ["last"]
    assert len(list((calls.workdir / "stages/q/last").iterdir())) == 1


def test_a_changed_input_runs_what_reads_it(calls):
    def note(_, out, data):
        calls.made.append(data)
        out.write_record("value.json", {"value": data})

    def stages():
        first = Stage(artifact("p/first"), note, Number(), {"data": "data/pool"})
        keyed = Stage(artifact("p/keyed"), calls.make("keyed"), Number(), keyed_by=("data/pool",))
        return [first, keyed, calls.stage("p/right", "b")]

    one, two = ({"data/pool": text(content)} for content in ("one", "two"))
    assert calls.run(stages(), inputs=one)[1] == ["one", "keyed", "right"]
    assert calls.run(stages(), inputs=one)[1] == []
    assert calls.run(stages(), inputs=two)[1] == ["two", "keyed"]


def interrupt(stage, written, error=KeyboardInterrupt):
    """Returns a stage that writes a file and is interrupted."""

    def run(_, out, **read):
        (out.path / "half.txt").write_text(written)
        raise error

    return Stage(stage.artifact, run, stage.params, stage.reads)


def finish(stage, seen):
    """Returns a stage that notes what it finds in its folder."""

    def run(params, out, **read):
        half = out.path / "half.txt"
        seen.append(half.read_text() if half.exists() else None)
        out.write_record("value.json", {"value": [params.number]})

    return Stage(stage.artifact, run, stage.params, stage.reads)


def started_in(calls):
    (found,) = calls.workdir.glob("stages/*/*/*/started.json")
    return found


def test_an_interrupted_stage_continues_in_its_folder(calls):
    stage, seen = calls.stages()[0], []
    with pytest.raises(KeyboardInterrupt):
        calls.run([interrupt(stage, "so far")])
    assert not (calls.workdir / "p/first").exists()
    first = json.loads(started_in(calls).read_text())["seconds"]
    assert first > 0
    calls.run([finish(stage, seen)])
    assert seen == ["so far"]
    # The seconds are those of both attempts.
    manifest = json.loads((calls.workdir / "p/first/manifest.json").read_text())
    assert manifest["seconds"] > first and manifest["restarts"] == 1


def test_a_changed_parameter_does_not_go_on_with_what_was_begun(calls):
    seen = []
    with pytest.raises(KeyboardInterrupt):
        calls.run([interrupt(calls.stages()[0], "of another config")])
    calls.config["a"] = 10
    calls.run([finish(calls.stages()[0], seen)])
    assert seen == [None]


def test_the_old_result_stays_until_the_new_one_is_whole(calls):
    calls.run()
    calls.config["a"] = 10
    with pytest.raises(KeyboardInterrupt):
        calls.run([interrupt(calls.stages()[0], "")])
    assert calls.value("p/first") == [1]
    calls.config["a"] = 1
    assert calls.run() == (ALL, [])


def test_killed_before_the_manifest_it_goes_on(calls, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(execution.storage, "commit", killed)
    with pytest.raises(KeyboardInterrupt):
        calls.run()
    monkeypatch.undo()
    assert calls.run() == ([], ALL)


def test_killed_right_after_the_manifest_it_is_done(calls, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(execution.storage, "link", killed)
    with pytest.raises(KeyboardInterrupt):
        calls.run([calls.stages()[0]])
    monkeypatch.undo()
    folder = next((calls.workdir / "stages/p/first").iterdir())
    key = json.loads((folder / "manifest.json").read_text())["shallow"]
    write_json(folder / "started.json", {"shallow": key, "seconds": 0})
    assert calls.run() == (["first"], ["left", "right", "last"])


def test_what_was_whole_and_is_damaged_is_not_gone_on_with(calls):
    """Also where a kill has left the record of its beginning beside the manifest."""
    calls.run()
    folder, seen = calls.folder("p/left"), []
    key = json.loads((folder / "manifest.json").read_text())["shallow"]
    write_json(folder / "started.json", {"shallow": key, "seconds": 0})
    (folder / "value.json").write_text("{}")
    (folder / "half.txt").write_text("of before")
    stages = calls.stages()
    left = stages[1]

    def run(params, out, **read):
        seen.append((out.path / "half.txt").exists())
        left.run(params, out, **read)

    stages[1] = Stage(left.artifact, run, left.params, left.reads)
    calls.run(stages)
    assert seen == [False]


def test_a_stage_that_leaves_out_a_result_is_an_error(calls):
    stage = calls.stages()[0]
    silent = Stage(stage.artifact, lambda params, out: None, stage.params)
    with pytest.raises(UserError, match=r"p/first: the stage did not write it .*value\.json"):
        calls.run([silent])
    assert calls.run()[1] == ALL


def test_another_rounding_runs_nothing_that_follows(calls):
    """The same work on the same inputs is known by the same content, whatever comes out."""
    calls.run()
    (calls.folder("p/first") / "value.json").write_text("{}")
    first, *rest = calls.stages()

    def run(params, out):
        calls.made.append("first")
        out.write_record("value.json", {"value": [1.0000001]})

    outcome = calls.run([Stage(first.artifact, run, first.params), *rest])
    assert outcome == (["left", "right", "last"], ["first"])
    assert calls.run() == (ALL, [])


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
    manifest = calls.folder("p/left") / "manifest.json"
    manifest.write_bytes(content)
    assert not finished(calls.workdir, "p/left")
    assert not calls.execution().is_done()
    drop_model(manifest.parent)
    # The result is the same as before, so what follows is not run.
    calls.made.clear()
    outcomes = list(calls.execution().run())
    assert calls.made == ["left"]
    assert [o.why for o in outcomes if not o.cached] == ["manifest.json is damaged; reran it"]
    assert finished(calls.workdir, "p/left")
    (calls.workdir / "stages.json").write_bytes(content)
    assert not finished(calls.workdir, "p/left")
    assert calls.run() == (ALL, [])


@pytest.mark.parametrize(
    "change",
    [
        {"key": 1},
        {"shallow": None},
        {"files": {"value.json": 3}},
        {"files": 7},
        {"seconds": "soon"},
        {"seconds": -1.0},
        {"seconds": float("inf")},
        {"seconds": True},
        {"seconds": None},
        {"seconds": 10**400},
        {"restarts": "twice"},
        {"compilations": None},
        {"spans": [1]},
        {"spans": {"compile": "x"}},
        {"made_with": {"jax": {"a": 1}}},
        {"made_with": {"jax": "\ud800"}},
        {"dropped": "no"},
    ],
    ids=str,
)
def test_a_manifest_with_values_of_other_types_is_damaged(calls, change):
    calls.run()
    manifest = calls.folder("p/left") / "manifest.json"
    write_json(manifest, json.loads(manifest.read_text()) | change)
    assert calls.run() == (["first", "right", "last"], ["left"])


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_of_what_was_begun_begins_anew(calls, content):
    stage, seen = calls.stages()[0], []
    with pytest.raises(KeyboardInterrupt):
        calls.run([interrupt(stage, "so far")])
    started_in(calls).write_bytes(content)
    calls.run([finish(stage, seen)])
    assert seen == [None]


@pytest.mark.parametrize("damage", ["changed", "cut short", "gone"])
def test_a_damaged_result_is_made_again_with_a_line_that_says_why(calls, damage):
    calls.run()
    file = calls.folder("p/left") / "value.json"
    whole = file.read_text()
    if damage == "gone":
        file.unlink()
    else:
        file.write_text(whole[:-3] if damage == "cut short" else whole.replace("2", "7"))
    calls.made.clear()
    outcomes = list(calls.execution().run())
    why = "is missing" if damage == "gone" else "does not match its checksum"
    assert [(o.name, o.why) for o in outcomes if o.why] == [
        ("p/left", f"value.json {why}; reran it")
    ]
    assert calls.made == ["left"]  # What follows reads the same as before.
    assert calls.value("p/left") == [2, [1]]
    assert calls.run() == (ALL, [])


def test_the_same_size_and_time_do_not_hide_another_content(calls):
    """The inode and the change time do not lie when the modification time is set back."""
    calls.run()
    file = calls.folder("p/left") / "value.json"
    before = file.stat()
    file.write_text(file.read_text().replace("2", "7"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert calls.run()[1] == ["left"]


def test_a_stage_that_can_mend_its_files_does_not_run_again(calls):
    seen = []

    def repair(params, place, damaged, **read):
        assert damaged == {"value.json"}
        seen.append((params.number, list(read)))
        place.write_record("value.json", {"value": [2, [1]]})
        return True

    def stages():
        first, left, *rest = calls.stages()
        return [
            first,
            Stage(left.artifact, left.run, left.params, left.reads, repair=repair),
            *rest,
        ]

    calls.run(stages())
    (calls.folder("p/left") / "value.json").write_text("{")
    assert calls.run(stages()) == (ALL, [])
    assert seen == [(2, ["first"])]
    assert calls.run(stages()) == (ALL, [])
    assert len(seen) == 1


def test_finished_stages_can_be_taken_as_they_are(calls):
    calls.run()
    calls.config |= {"a": 10, "b": 20, "c": 30}
    last, left = calls.stages()[3], calls.stages()[1]
    outcomes = list(calls.execution([left, last], as_they_are=["p/left"]).run())
    assert [(o.name, o.cached) for o in outcomes] == [("p/left", True), ("q/last", False)]
    assert outcomes[0].why == "reused as is, although made with other data or settings"
    assert calls.value("q/last") == [30, [2, [1]]]


def test_rows_of_a_finished_stage_are_whole(tmp_path):
    path = tmp_path / "stage" / "rows.jsonl"
    with pytest.raises(UserError, match=r"rows\.jsonl: cannot be read"):
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
    write = files.write_json

    def full(path, value):
        if path.name == "manifest.json" and path.parent.parent.name == "left":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, value)

    monkeypatch.setattr(files, "write_json", full)
    with pytest.raises(UserError, match=r"stage p/left: No space left on device \(.*manifest.json"):
        calls.run()
    monkeypatch.undo()
    assert (started_in(calls).parent / "value.json").is_file()
    assert calls.run() == (["first"], ["left", "right", "last"])


def test_a_folder_that_cannot_be_written_names_the_stage(calls):
    (calls.workdir / "stages").write_text("a file where a folder has to be")
    with pytest.raises(UserError, match="stage p/first: Not a directory"):
        calls.run()


def test_a_name_that_cannot_be_linked_names_the_stage(calls):
    (calls.workdir / "p").write_text("a file where a folder has to be")
    with pytest.raises(UserError, match="stage p/first: "):
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


@pytest.mark.parametrize("place", ["gs://bucket/run", "s3://b", "hdfs://x/y"])
def test_a_workdir_in_a_bucket_is_refused_with_the_way_out(place):
    scheme = place.split("//")[0] + "//"
    with pytest.raises(UserError, match=f"--workdir={place}: {scheme} cannot be written yet; use"):
        storage.local(place, "--workdir")
