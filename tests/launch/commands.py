"""Runs the launchers' commands in processes that need not import JAX again.

Each process is forked by a server that has imported what the launchers import, and has started no
backend. A process has its own devices, files and signals, and can be killed.
"""

import atexit
import dataclasses
import importlib
import json
import multiprocessing
import os
import resource
import runpy
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from tests import xla

ROOT = Path(__file__).parents[2]
_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(
    [
        "pytest",
        "bridge_jax.runs",
        "bridge_jax.report.page",
        "bridge_jax.planning.plan",
        "bridge_jax.serving.predict",
        __name__,
    ]
)


class Started:
    """A command that runs; it is used as `subprocess.Popen` is."""

    def __init__(self, function, module, argument, devices, cwd, text, environment):
        self._folder = tempfile.TemporaryDirectory(prefix="command-")
        folder = Path(self._folder.name)
        (folder / "in").write_text(text)
        for name in ("out", "err"):
            (folder / name).touch()
        environment = dict(os.environ if environment is None else environment)
        environment["XLA_FLAGS"] = xla.flags(devices)
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        arguments = (function, module, argument, environment, str(cwd), folder, limit)
        self._process = _FORKED.Process(target=_begin, args=arguments)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code; minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Returns the exit code, or None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 600) -> tuple[str, str]:
        """Waits for the end; returns what went to stdout and stderr."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.kill()
            raise TimeoutError(f"the command took more than {timeout} s")
        folder = Path(self._folder.name)
        return (folder / "out").read_text(), (folder / "err").read_text()


def start(
    module: str,
    *flags: str,
    devices: int = 1,
    cwd: Path = ROOT,
    text: str = "",
    environment: Mapping[str, str] | None = None,
) -> Started:
    """Starts `python -m module`; `text` is its standard input."""
    return Started(_run_module, module, list(map(str, flags)), devices, cwd, text, environment)


def run(module: str, *flags: str, **how) -> tuple[int, str, str]:
    """Returns (exit code, stdout, stderr) of `python -m module`."""
    process = start(module, *flags, **how)
    out, err = process.communicate()
    assert process.returncode is not None
    return process.returncode, out, err


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | None
    out: str
    err: str


def run_all(module: str, commands: Sequence[Sequence[str]], text: str = "") -> list[Ended]:
    """Runs commands of one launcher, which ends in `run_main`, one after the other in one process.

    Args:
      module: the launcher.
      commands: the flags of each.
      text: the standard input of each.
    """
    process = Started(_run_several, module, (commands, text), 1, ROOT, "", None)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return [Ended(**end) for end in json.loads(out.splitlines()[-1])]


def _begin(function, module, argument, environment, cwd, folder, limit):
    """Makes the forked process one of its own, and runs `function(module, argument)` in it."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    _redirect(folder)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    try:
        function(module, argument)
    finally:
        # multiprocessing leaves out what JAX does at the end of a process.
        atexit._run_exitfuncs()


def _redirect(folder: Path) -> None:
    """Makes files of `folder` the standard streams of this process."""
    sys.stdout.flush()
    sys.stderr.flush()
    for number, (name, mode) in enumerate(
        (("in", os.O_RDONLY), ("out", os.O_WRONLY), ("err", os.O_WRONLY))
    ):
        file = os.open(folder / name, mode)
        os.dup2(file, number)
        os.close(file)


def _run_module(module: str, arguments: list[str]) -> None:
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _run_several(module: str, given: tuple[Sequence[Sequence[str]], str]) -> None:
    from launch import overrides

    (commands, text), ended = given, []
    launcher, out = importlib.import_module(module), os.dup(1)
    for command in commands:
        for flag in flags.FLAGS:
            flags.FLAGS[flag].unparse()
        flags.FLAGS.unparse_flags()
        sys.argv = [module, *command]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "in").write_text(text)
            for stream in ("out", "err"):
                (folder / stream).touch()
            _redirect(folder)
            code = None
            try:
                overrides.run_main(launcher.main)
            except SystemExit as end:
                code = end.code
            sys.stdout.flush()
            sys.stderr.flush()
            ended.append(
                {"code": code}
                | {stream: (folder / stream).read_text() for stream in ("out", "err")}
            )
    os.dup2(out, 1)
    print(json.dumps(ended))
