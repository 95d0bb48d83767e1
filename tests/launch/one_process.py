"""Several commands of a launcher in one process: the imports take most of the time."""

import json
import subprocess
import sys
from collections.abc import Sequence

from tests.launch import tiny_run

DRIVER = """
import contextlib, importlib, io, json, sys
from absl import flags
from launch import overrides

name, commands = sys.argv[1], json.loads(sys.argv[2])
launcher = importlib.import_module(name)
found = []
for command in commands:
    for flag in flags.FLAGS:
        flags.FLAGS[flag].unparse()
    flags.FLAGS.unparse_flags()
    sys.argv[:] = [name, *command]
    with contextlib.redirect_stderr(io.StringIO()) as err:
        code = None
        try:
            overrides.run_main(launcher.main)
        except SystemExit as end:
            code = end.code
    found.append([code, err.getvalue()])
print(json.dumps(found))
"""


def run_all(launcher: str, commands: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
    """Returns (exit code, stderr) of each command of `python -m launcher`."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, launcher, json.dumps(commands)],
        cwd=tiny_run.ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [(code, err) for code, err in json.loads(done.stdout.splitlines()[-1])]
