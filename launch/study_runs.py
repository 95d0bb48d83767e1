"""Executes the runs of a study that no other process is running."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import jax
from rich.console import Console

from bridge_jax import display
from bridge_jax.errors import UserError
from bridge_jax.ledger.consent import Quote
from bridge_jax.methods.teacher import is_paid
from bridge_jax.parallel import hosts
from bridge_jax.pipeline import storage
from bridge_jax.pipeline.artifacts import PARAMS
from bridge_jax.pipeline.execution import StageBusy
from bridge_jax.pipeline.leases import WorkdirBusy, held
from bridge_jax.pipeline.storage import STAGES, drop_model, lock_of, manifest
from bridge_jax.progress import duration
from bridge_jax.runs import Run
from bridge_jax.study import RUNS, study_page
from bridge_jax.study.study import Study, StudyRun

POLL_SECONDS = 2.0

Attempt = Literal["done", "taken", "waits"]
T = TypeVar("T")


def take_turns(
    runs: Sequence[T],
    attempt: Callable[[T], Attempt],
    wait: Callable[[], None] = lambda: time.sleep(POLL_SECONDS),
) -> list[T]:
    """Attempts the runs until all are done, or other processes are running the rest.

    Args:
      runs: the runs, in the order in which they are tried.
      attempt: returns `done`; `taken` if another process is running the run; or `waits` if the run
        needs a stage that another process is running, so that it is tried again.
      wait: called after a round in which no run was done and at least one waits.

    Returns:
      The runs that other processes are running.
    """
    left = list(runs)
    while left:
        states = [attempt(run) for run in left]
        left = [run for run, state in zip(left, states) if state != "done"]
        if "waits" not in states and "done" not in states:
            break
        if "done" not in states:
            wait()
    return left


class Runs:
    """Attempts the runs of a study, and writes its result.

    Args:
      study: checked, with its shared ledger.
      workdir: the folder of the study.
      keep_models: whether to keep the parameters that no run needs any more.
      console: where progress is printed.

    Attributes:
      failed: folder -> the reason, for the runs that failed here.
    """

    def __init__(self, study: Study, workdir: Path, keep_models: bool, console: Console):
        self.study, self.workdir, self.keep_models = study, workdir, keep_models
        self.console = console
        self.failed: dict[str, str] = {}
        self._begun: set[str] = set()
        self._told: set[str] = set()
        self._number = {run.folder: i for i, run in enumerate(study.runs, 1)}

    def confirm(
        self, chosen: Sequence[StudyRun], agree: Callable[[Mapping[str, Quote]], None]
    ) -> None:
        """Asks the user to agree, once, to what the teacher may cost in all of the chosen runs.

        Runs that share their answers count once.
        """
        quotes: dict[str, Quote] = {}
        for run in chosen:
            if is_paid(run.config.teacher) and not run.config.teacher.free:
                with contextlib.suppress(UserError):  # It is reported when the run is attempted.
                    quotes |= self._prepared(run).quotes()
        if quotes and hosts.is_first():
            agree(quotes)

    def attempt(self, run: StudyRun) -> Attempt:
        """Executes a run, unless another process is running it or a stage that it needs."""
        job, began = self._prepared(run), time.perf_counter()
        try:
            if job.is_whole(careful=True):
                return "done"
            heading = None if run.folder in self._begun else lambda: self._heading(run)
            report = job.run(self.console, heading, quiet=True)
        except WorkdirBusy:
            self._tell_once(f"  another process is running {run.folder}")
            return "taken"
        except StageBusy as busy:
            self._tell_once(f"  {run.folder} waits for {busy}, which another process is running")
            return "waits"
        except UserError as error:
            if jax.process_count() > 1:
                raise  # The other processes of this run cannot be told, so they end with this one.
            self.failed[run.folder] = str(error)
            display.say(self.console, (f"  {run.folder}: {error}", "red"))
            return "done"
        accuracy = report["accuracy"].get("student")
        said = "" if accuracy is None else f"student {accuracy:.1%}, "
        took = duration(time.perf_counter() - began)
        display.say(self.console, f"  {run.folder}: {said}{took}")
        if not self.keep_models:
            self._drop_models()
        return "done"

    def write_result(self) -> None:
        """Writes and prints the result of all finished runs."""
        if not hosts.is_first():
            return
        with held(self.workdir / ".lock", wait=True):
            result = study_page.write(self.workdir)
        study_page.print_study(result, self.console)

    def _heading(self, run: StudyRun) -> list[display.Part]:
        self._begun.add(run.folder)
        return [(run.folder, "bold"), f" ({self._number[run.folder]} of {len(self.study.runs)})"]

    def _tell_once(self, words: str) -> None:
        if words not in self._told:
            self._told.add(words)
            display.say(self.console, words)

    def _prepared(self, run: StudyRun) -> Run:
        return Run(run.config, self.workdir / RUNS / run.folder, shared=self.workdir)

    def _drop_models(self) -> None:
        """Removes the parameters in the store that no unfinished run uses.

        All processes of a run agree on which runs are finished; only the first one removes files.
        """
        needed = set()
        for run in self.study.runs:
            job = self._prepared(run)
            with contextlib.suppress(UserError):  # It is reported when the run is attempted.
                if job.is_whole():
                    continue
                needed.update(job.deep.items())
            needed.update(storage.current(job.workdir).items())  # Reused for equal inputs.
        if not hosts.is_first():
            return
        for params in (self.workdir / STAGES).glob(f"*/*/*/{PARAMS.name}"):
            folder = params.parent
            name = folder.parent.relative_to(self.workdir / STAGES).as_posix()
            if (name, folder.name) in needed or not manifest(folder):
                continue
            with held(lock_of(folder)) as ours, contextlib.suppress(FileNotFoundError):
                if ours and manifest(folder):  # No other process is rerunning this stage.
                    drop_model(folder)
