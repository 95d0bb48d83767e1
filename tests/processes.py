"""Several processes that are one run of JAX, as the hosts of a pod are."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests import xla

ROOT = Path(__file__).parents[1]
BEGIN = """
import sys
import jax

jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
"""


def together(script: str, processes: int, devices: int, arguments: Sequence[str] = ()) -> list[Any]:
    """Runs a script in several processes; returns what the last line of each says, as JSON.

    Args:
      script: Python, which finds the arguments from `sys.argv[4]` on.
      processes: their number.
      devices: of each.
      arguments: of the script.
    """
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    environment = os.environ | {"XLA_FLAGS": xla.flags(devices), "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", BEGIN + script, address, str(processes), str(i), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0] * processes
    return [json.loads(output.splitlines()[-1]) for output in outputs]
