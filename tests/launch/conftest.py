"""One undisturbed tiny run that the tests of this folder share, in all of pytest's workers."""

import os

import pytest

from bridge_jax.pipeline.leases import held
from tests.launch import tiny_run


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder of this test session that its workers have in common. Read only."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"


@pytest.fixture(scope="session")
def tiny_config(shared):
    with held(shared / ".config.lock", wait=True):
        path = shared / "tiny_config.py"
        return path if path.exists() else tiny_run.write_config(shared)


@pytest.fixture(scope="session")
def undisturbed(tiny_config, shared):
    workdir = shared / "undisturbed"
    with held(shared / ".undisturbed.lock", wait=True):
        if not (workdir / "report.json").exists():
            assert len(tiny_run.finish(tiny_config, workdir)) == 14
    return workdir
