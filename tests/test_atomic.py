"""Files that are written whole or not at all, and links that somebody has put in their place."""

import json
import os

import pytest

from bridge_jax import atomic
from bridge_jax.errors import UserError
from bridge_jax.ledger.database import Owner, is_alive
from bridge_jax.parallel import hosts
from bridge_jax.pipeline.files import write_rows
from bridge_jax.pipeline.leases import held, lock


@pytest.fixture
def precious(tmp_path):
    path = tmp_path / "elsewhere" / "thesis.txt"
    path.parent.mkdir()
    path.write_text("years of work")
    return path


def test_a_lock_is_no_link_and_empties_nothing(tmp_path, precious):
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / ".lock").symlink_to(precious)
    with pytest.raises(UserError, match=r"run/\.lock: a symbolic link.*remove it"), lock(workdir):
        pass
    with pytest.raises(UserError, match="a symbolic link"), held(workdir / ".lock", wait=True):
        pass
    assert precious.read_text() == "years of work"
    # What is in a file that is no link stays, too.
    (workdir / ".lock").unlink()
    (workdir / ".lock").write_text("a note")
    with lock(workdir):
        assert (workdir / ".lock").read_text() == "a note"


def test_a_dangling_link_is_not_followed_either(tmp_path):
    (tmp_path / ".lock").symlink_to(tmp_path / "made")
    with pytest.raises(UserError, match="a symbolic link"), lock(tmp_path):
        pass
    assert not (tmp_path / "made").exists()


def test_the_lock_of_an_owner_is_no_link(tmp_path, precious, monkeypatch):
    ledger = tmp_path / "ledger.sqlite"
    link = tmp_path / "ledger.sqlite-owner-guessed"
    link.symlink_to(precious)
    assert not is_alive(ledger, "guessed")  # no process made that; what it points to stays
    assert not link.is_symlink()
    link.symlink_to(precious)
    monkeypatch.setattr("uuid.UUID.hex", "guessed")
    with pytest.raises(OSError, match="symbolic link"):
        Owner(ledger)
    assert precious.read_text() == "years of work"


@pytest.mark.parametrize(
    "beside", ["x.json.tmp", f".x.json.{os.getpid()}.part"], ids=["tmp", "part"]
)
def test_a_link_beside_a_file_that_is_written_is_replaced(tmp_path, precious, beside):
    (tmp_path / beside).symlink_to(precious)
    path = tmp_path / "x.json"
    atomic.write_json(path, {"a": 1})
    atomic.replace(path, '{"a": 2}')
    assert json.loads(path.read_text()) == {"a": 2}
    assert precious.read_text() == "years of work"
    assert sorted(p.name for p in tmp_path.iterdir()) in (
        ["elsewhere", "x.json"],
        sorted(["elsewhere", "x.json", beside]),
    )


@pytest.mark.parametrize("write", ["json", "replace", "rows", "beat"])
def test_a_link_in_the_place_of_a_file_is_replaced(tmp_path, precious, write):
    path = tmp_path / "0"
    path.symlink_to(precious)
    if write == "json":
        atomic.write_json(path, 1)
    elif write == "replace":
        atomic.replace(path, "1")
    elif write == "rows":
        write_rows(path, [{"a": 1}])
    else:
        hosts.Heartbeat(tmp_path, "7", 0, 2, 10.0, print).beat()
    assert not path.is_symlink() and "1" in path.read_text()
    assert precious.read_text() == "years of work"


def test_what_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "x.json"
    atomic.write_json(path, [1])
    with pytest.raises(TypeError):
        atomic.write_json(path, [object()])
    with pytest.raises(UnicodeEncodeError):
        atomic.replace(path, "\ud800")
    assert json.loads(path.read_text()) == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
