"""One undisturbed tiny run that the tests of this folder share. Read only."""

import pytest

from tests.launch import tiny_run


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory):
    return tiny_run.write_config(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def undisturbed(tiny_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    assert len(tiny_run.finish(tiny_config, workdir)) == 14
    return workdir
