import signal

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from bridge_jax.errors import UserError
from bridge_jax.parallel import preemption
from bridge_jax.training.checkpoints import load_params, save_params
from tests.full_disk import files_up_to


@pytest.fixture
def saved(tmp_path):
    params = {"embedding": jnp.arange(12.0).reshape(4, 3), "norm": {"scale": jnp.ones(3)}}
    save_params(tmp_path / "stage" / "params", params)
    return tmp_path / "stage" / "params", params


def test_round_trip(saved):
    path, params = saved
    jax.tree.map(np.testing.assert_array_equal, load_params(path, params), params)


def test_missing(tmp_path):
    with pytest.raises(UserError, match="no checkpoint here; run the stage that writes it"):
        load_params(tmp_path / "params", {})


def test_every_kind_of_damage_names_the_folder_to_delete(saved):
    path, params = saved
    files = [f for f in path.rglob("*") if f.is_file()]
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=r"is damaged.*delete the stage's folder .*stage and run"):
        load_params(path, params)


def test_lost_files(saved):
    path, params = saved
    for file in [f for f in path.rglob("*") if f.is_file()]:
        file.unlink()
    with pytest.raises(UserError, match="is damaged"):
        load_params(path, params)


def test_a_notice_while_it_is_read_is_no_damage(saved, monkeypatch):
    read = ocp.PyTreeCheckpointer.restore

    def interrupted(*args, **kwargs):
        signal.raise_signal(signal.SIGTERM)
        return read(*args, **kwargs)

    monkeypatch.setattr(ocp.PyTreeCheckpointer, "restore", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    preemption.stop_at_notice()
    try:
        with pytest.raises(preemption.Preempted):
            load_params(*saved)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_shapes(saved):
    path, params = saved
    other = params | {"embedding": jnp.zeros((5, 3))}
    with pytest.raises(UserError, match="is damaged"):
        load_params(path, other)


LARGE = {"embedding": np.random.default_rng(0).normal(size=(100, 200)).astype(np.float32)}


def half_written(folder):
    return [path.name for path in folder.iterdir() if "tmp" in path.name]


@pytest.mark.parametrize(
    "states, goes_on",
    [([], "it restarts this stage"), (["7", "19", "20.tmp"], "it resumes after step 19")],
)
def test_a_full_disk_is_one_line_and_the_same_call_goes_on(tmp_path, capfd, states, goes_on):
    for name in states:
        (tmp_path / "state" / name).mkdir(parents=True)
    path = tmp_path / "params"
    with files_up_to(20_000), pytest.raises(UserError) as found:
        save_params(path, LARGE)
    assert str(found.value) == (
        f"{path}: File too large: the parameters could not be saved. Free some space or fix the "
        f"disk, then run the same command again: {goes_on}"
    )
    assert not path.exists()
    assert "Traceback" not in "".join(capfd.readouterr())
    save_params(path, LARGE)
    np.testing.assert_array_equal(load_params(path, LARGE)["embedding"], LARGE["embedding"])
    assert half_written(tmp_path) == []


def test_what_a_kill_left_half_written_is_no_obstacle(tmp_path):
    half = tmp_path / "params.orbax-checkpoint-tmp" / "d"
    half.mkdir(parents=True)
    (half / "part").write_bytes(b"x" * 100)
    save_params(tmp_path / "params", LARGE)
    np.testing.assert_array_equal(
        load_params(tmp_path / "params", LARGE)["embedding"], LARGE["embedding"]
    )


def raised_by_orbax(monkeypatch, tmp_path, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(ocp.PyTreeCheckpointer, "save", fail)
    save_params(tmp_path / "params", LARGE)


FULL = "RESOURCE_EXHAUSTED: Error writing \"a/0.0\": No space left on device [os_error_code='28']"


@pytest.mark.parametrize(
    "error, said",
    [
        (ValueError(FULL), "No space left on device"),
        (OSError(122, "Disk quota exceeded"), "Disk quota exceeded"),
    ],
)
def test_what_the_disk_says_is_passed_on(monkeypatch, tmp_path, error, said):
    with pytest.raises(UserError, match=f"params: {said}: the parameters could not be saved"):
        raised_by_orbax(monkeypatch, tmp_path, error)


def test_other_errors_are_not_of_the_disk(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="tree of another shape"):
        raised_by_orbax(monkeypatch, tmp_path, ValueError("tree of another shape"))
