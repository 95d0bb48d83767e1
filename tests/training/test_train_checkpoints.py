import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.errors import UserError
from bridge_jax.training.checkpoints import load_params, save_params


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


def test_other_shapes(saved):
    path, params = saved
    other = params | {"embedding": jnp.zeros((5, 3))}
    with pytest.raises(UserError, match="is damaged"):
        load_params(path, other)
