"""Files are known by their content, and read again only when something of them has changed."""

import json
import os

import jax
import numpy as np
import pytest

from bridge_jax.errors import UserError
from bridge_jax.pipeline import content
from bridge_jax.pipeline.content import Hashes

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def old(path, text):
    """Writes a file that has not been changed for a minute."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    minute_ago = path.stat().st_mtime - 60
    os.utime(path, (minute_ago, minute_ago))
    return path


@pytest.fixture
def later(monkeypatch):
    """Lets all files be old enough to be remembered: their change times cannot be set."""
    now = content.time.time_ns()
    monkeypatch.setattr(content.time, "time_ns", lambda: now + 60_000_000_000)


def test_the_hash_is_sha_256(tmp_path):
    assert Hashes().of_file(old(tmp_path / "x", "abc")) == ABC
    assert Hashes().of_file(old(tmp_path / "y", "")) == EMPTY
    with pytest.raises(UserError, match=r"gone: cannot be read \(No such file"):
        Hashes().of_file(tmp_path / "gone")


def test_a_folder_is_told_from_another_wherever_it_is(tmp_path):
    folder = tmp_path / "folder"
    old(folder / "train.jsonl", "a"), old(folder / "inside" / "test.jsonl", "b")
    before = Hashes().of_place(folder)
    assert Hashes().of_place(folder / "train.jsonl") != before != ""
    folder.rename(tmp_path / "moved")
    assert Hashes().of_place(tmp_path / "moved") == before
    assert list(Hashes().of_files(tmp_path / "moved")) == ["inside/test.jsonl", "train.jsonl"]
    (tmp_path / "moved" / "train.jsonl").write_text("c")
    assert Hashes().of_place(tmp_path / "moved") != before
    assert Hashes().of_place(tmp_path / "someone/something") == ""


def test_a_file_is_read_once(tmp_path, later):
    path, kept = old(tmp_path / "x", "abc"), tmp_path / "cache" / "hashes.json"
    first = Hashes(kept)
    assert first.of_file(path) == ABC
    first.save()
    known = json.loads(kept.read_text())
    known[str(path)][-1] = "remembered"  # What was read again would not say this.
    kept.write_text(json.dumps(known))
    assert Hashes(kept).of_file(path) == "remembered"
    link = tmp_path / "link"
    link.symlink_to(path)
    assert Hashes(kept).of_file(link) == "remembered"


@pytest.mark.parametrize("change", ["size", "time", "inode", "content"])
def test_a_changed_file_is_read_again(tmp_path, later, change):
    path, kept = old(tmp_path / "x", "abc"), tmp_path / "hashes.json"
    hashes = Hashes(kept)
    hashes.of_file(path)
    hashes.save()
    kept.write_text(kept.read_text().replace(ABC, "remembered"))
    before = path.stat()
    if change == "size":
        path.write_text("abcd")
    elif change == "time":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    elif change == "inode":
        old(tmp_path / "y", "abc").replace(path)
    else:
        path.write_text("abd")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = Hashes(kept).of_file(path)
    assert found != "remembered"
    assert (found == ABC) == (change in ("time", "inode"))


def test_a_file_that_was_changed_just_now_is_not_remembered(tmp_path):
    """A second change could have the same times."""
    kept = tmp_path / "hashes.json"
    (tmp_path / "x").write_text("abc")
    hashes = Hashes(kept)
    assert hashes.of_file(tmp_path / "x") == ABC
    hashes.save()
    assert not kept.exists()


@pytest.mark.parametrize("damage", ["", "[1]", "{", '{"x": 3}', "[" * 100_000])
def test_a_damaged_memory_costs_only_time(tmp_path, later, damage):
    path, kept = old(tmp_path / "x", "abc"), tmp_path / "hashes.json"
    kept.write_text(damage)
    hashes = Hashes(kept)
    assert hashes.of_file(path) == ABC
    hashes.save()
    assert json.loads(kept.read_text())[str(path)][-1] == ABC


def test_processes_keep_what_others_have_written(tmp_path, later):
    kept = tmp_path / "hashes.json"
    first, second = Hashes(kept), Hashes(kept)
    first.of_file(old(tmp_path / "x", "abc"))
    second.of_file(old(tmp_path / "y", ""))
    first.save()
    second.save()
    assert {entry[-1] for entry in json.loads(kept.read_text()).values()} == {ABC, EMPTY}


def test_rows_are_known_by_their_declared_fields():
    rows = [{"id": "a", "answer": "1", "seconds": 3.0}, {"id": "b", "answer": None}]
    found = content.of_rows(rows, ("answer", "id"))
    assert content.of_rows([{"answer": "1", "id": "a"}, rows[1]], ("id", "answer")) == found
    for changed in ({"id": "c"}, {"answer": "2"}, {"answer": None}):
        assert content.of_rows([rows[0] | changed, rows[1]], ("answer", "id")) != found
    assert content.of_rows(rows[::-1], ("answer", "id")) != found
    assert content.of_rows([{"id": "a"}], ("answer", "id")) != content.of_rows(
        [{"id": "a", "answer": None}], ("answer", "id")
    )


def test_parameters_are_known_by_their_values_and_names():
    params = {"a": jax.numpy.arange(6.0).reshape(2, 3), "b": jax.numpy.zeros(2, np.int32)}
    found = content.of_params(params)
    assert content.of_params(dict(reversed(params.items()))) == found
    for changed in (
        {"a": params["a"].at[1, 2].set(5.0000005)},
        {"a": params["a"].reshape(3, 2)},
        {"a": params["a"].astype(jax.numpy.bfloat16)},
        {"b": jax.numpy.zeros(3, np.int32)},
    ):
        assert content.of_params(params | changed) != found
    assert content.of_params({"c": params["a"], "b": params["b"]}) != found


def test_copies_count_once():
    mesh = jax.make_mesh((8,), ("x",))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    array = jax.numpy.arange(8.0)
    assert content.of_params([jax.device_put(array, whole)]) == content.of_params([array])
