"""Where compiled programs are kept."""

import socket

import jax
import pytest

from launch import cluster


@pytest.fixture(autouse=True)
def _restored():
    before = jax.config.values["jax_compilation_cache_dir"]
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_in_the_workdir_unless_there_is_a_place_already(tmp_path):
    jax.config.update("jax_compilation_cache_dir", None)
    cluster.keep_compilations(tmp_path / "first")
    folder = str(tmp_path / "first" / "compilations" / socket.gethostname())
    assert jax.config.values["jax_compilation_cache_dir"] == folder
    cluster.keep_compilations(tmp_path / "second")
    assert jax.config.values["jax_compilation_cache_dir"] == folder
