import fake_run
import pytest


@pytest.fixture
def workdir(tmp_path):
    fake_run.write(tmp_path / "run")
    return tmp_path / "run"
