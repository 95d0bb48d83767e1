"""A selection by two processes is that of one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import xla

ROOT = Path(__file__).parents[2]


def chosen(processes):
    """Returns the last line of each process, of two devices."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "XLA_FLAGS": xla.flags(2),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, str(Path(__file__).with_name("on_hosts.py"))]
    started = [
        subprocess.Popen(
            [*command, str(port), str(processes), str(i)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0] * processes
    return [json.loads(output.splitlines()[-1]) for output in outputs]


@pytest.mark.slow
def test_two_processes_choose_what_one_chooses():
    (alone,), (one, other) = chosen(1), chosen(2)
    assert (alone["devices"], one["devices"]) == (2, 4)
    assert alone["chosen"] == one["chosen"] == other["chosen"]
