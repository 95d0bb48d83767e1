"""Reinforcement learning by two processes."""

import pytest

from bridge_jax.pipeline.files import read_rows
from tests.launch import tiny_run
from tests.launch.test_hosts import start
from tests.methods.test_reinforcement import SETTINGS

FIGURES = ("entropy", "thinking_4", "thinking_12", "compliance", "accuracy", "groups_asked", "loss")


@pytest.mark.slow
def test_two_processes_ask_and_write_what_one_does(tiny_config, tmp_path):
    """The tiny model earns no reward, so nothing is learned from the replies."""
    flags = [f"--config.{each}" for each in SETTINGS]
    found = []
    for processes in (2, 1):
        workdir = tmp_path / str(processes)
        if processes == 2:
            started = start(tiny_config, workdir, *flags)
        else:
            started = [tiny_run.start(tiny_config, workdir, *flags, devices=2)]
        outputs = [process.communicate(timeout=600) for process in started]
        assert [process.returncode for process in started] == [0] * processes, outputs
        (metrics,) = (workdir / "budgets" / "reinforced").glob("metrics.jsonl")
        found.append([[row.get(name) for name in FIGURES] for row in read_rows(metrics)])
    two, one = found
    assert len(one) == 3 and one[0][0] > 1  # nats a token: the replies are not all the same
    for row, expected in zip(two, one, strict=True):
        assert row == pytest.approx(expected, abs=1e-6)
