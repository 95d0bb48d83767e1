"""Asks a teacher through its vendor's batch mode, at half the price and within a day.

A job is on the ledger before it is submitted, under a name that the vendor stores with it. So it
outlives this process: the next run of the same command collects it. If a run was killed after it
submitted a job but before it recorded the vendor's id, the next run finds the job by its name.
"""

import contextlib
import dataclasses
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import tenacity

from bridge_jax.errors import UserError
from bridge_jax.ledger.ledger import BatchJob, Ledger
from bridge_jax.ledger.prices import BudgetExceeded
from bridge_jax.ledger.requests import Failure, Tally, TeacherReply, TeacherRequest
from bridge_jax.teachers.annotate import ATTEMPTS, LONGEST_SECONDS, Outcomes, seconds_to_wait
from bridge_jax.teachers.protocol import BatchTeacher, JobRefused, JobState, TeacherError

T = TypeVar("T")

# Below the vendors' limits per job: OpenAI's 50,000 requests and 200 MB, Gemini's 20 MB inline.
REQUESTS_PER_JOB, BYTES_PER_JOB = 10_000, 15_000_000

_log = logging.getLogger(__name__)


def annotate_in_batches(
    teacher: BatchTeacher,
    ledger: Ledger,
    requests: Sequence[TeacherRequest],
    poll_seconds: float,
    on_reply: Callable[[int, int], None] | None = None,
    attempts: int = ATTEMPTS,
    optional: bool = False,
    tally: Tally | None = None,
) -> list[TeacherReply | Failure]:
    """Returns the reply to each request, or its failure, in order, as `annotate` does.

    Jobs that an earlier process left open are collected first. Requests that failed but may succeed
    later (after an expired job or an overload) go into another job, up to `attempts` jobs.

    Args:
      teacher: answers the requests.
      ledger: pays for them.
      requests: the requests; equal ones are asked once.
      poll_seconds: seconds between two polls of the open jobs.
      on_reply: called with (requests done, requests in all).
      attempts: the most jobs per request.
      optional: whether a request that no longer fits the caps is a `Failure` instead of an error.
      tally: counts the outcomes; updated before each call of `on_reply`.

    Raises:
      BudgetExceeded: a cap is reached; the requests that fit it have been collected.
      UserError: a job was refused, the vendor cannot be reached, or the ledger cannot be written.
    """
    outcomes = Outcomes(requests, on_reply, tally or Tally())
    work = _Batches(teacher, ledger, outcomes, poll_seconds)
    work.collect(work.left_open())
    exceeded: BudgetExceeded | None = None
    for _ in range(attempts):
        jobs, exceeded = work.submit()
        if not jobs:
            break
        work.collect(jobs)
    not_asked = Failure(f"not asked: {exceeded}", "not_asked")
    for key in outcomes.missing():
        outcomes.record(key, not_asked if exceeded else Failure(work.reasons[key]))
    outcomes.report()
    if exceeded and not optional:
        raise BudgetExceeded(f"{exceeded}; run the same command again to continue") from exceeded
    return outcomes.in_order()


def collect_left_open(teacher: BatchTeacher, ledger: Ledger, poll_seconds: float) -> None:
    """Waits for jobs that an earlier process of this run left open, and records their results.

    This is for a run without batch mode: requests that it is about to make may be in such a job.

    Raises:
      UserError: a job was refused, or the vendor cannot be asked about it.
    """
    work = _Batches(teacher, ledger, Outcomes([], None, Tally()), poll_seconds)
    if jobs := work.left_open():
        _log.warning(
            "%s: %d batch jobs from an earlier start are open; they are collected first, which "
            "may take a day: %s",
            teacher.name,
            len(jobs),
            ", ".join(str(job.id) for job in jobs),
        )
        work.collect(jobs)


@dataclasses.dataclass
class _Batches:
    """One call of `annotate_in_batches`."""

    teacher: BatchTeacher
    ledger: Ledger
    outcomes: Outcomes
    poll_seconds: float
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)

    def left_open(self) -> list[BatchJob]:
        """Returns the jobs that earlier processes left open; drops those never submitted.

        Jobs of other vendors are skipped and stay open.

        Raises:
          UserError: the vendor cannot be asked about a job.
        """
        jobs = []
        for job in self.ledger.open_jobs():
            if job.vendor != self.teacher.vendor:
                _log.warning("batch job %s belongs to %s: it stays open", job.name, job.vendor)
                continue
            with _stays_open(job):
                job_id = job.id or self._insist(self.teacher.find, job.name)
            if job_id is None:
                self._forget(job)
                continue
            self.ledger.record_job(job.name, job_id)
            jobs.append(dataclasses.replace(job, id=job_id))
        return jobs

    def submit(self) -> tuple[list[BatchJob], BudgetExceeded | None]:
        """Submits the requests without an outcome, as the caps allow; records stored replies."""
        reserved: dict[str, TeacherRequest] = {}
        exceeded = None
        for key in self.outcomes.missing():
            request = self.outcomes.requests[key]
            estimate = self.teacher.estimate_input_tokens(request)
            try:
                stored = self.ledger.reserve(request, estimate, batch=True)
            except BudgetExceeded as error:
                exceeded = error
                break
            if stored is None:
                reserved[key] = request
            else:
                self.outcomes.record(key, stored)
        self.outcomes.report()
        return [self._submit_one(part) for part in _parts(reserved)], exceeded

    def collect(self, jobs: Sequence[BatchJob]) -> None:
        """Waits for jobs and writes their results to the ledger."""
        waiting = list(jobs)
        while waiting:
            states: dict[str, JobState] = {}
            for job in waiting:
                with _stays_open(job):
                    states[job.name] = self._insist(self.teacher.state, str(job.id))
            for job in [job for job in waiting if states[job.name].ended]:
                self._settle(job)
                waiting.remove(job)
            self.outcomes.report(sum(states[job.name].done for job in waiting))
            if waiting:
                words = {f"{job.id}: {states[job.name].words}" for job in waiting}
                _log.info("%s is working on %s", self.teacher.name, "; ".join(sorted(words)))
                time.sleep(self.poll_seconds)

    def _submit_one(self, requests: Mapping[str, TeacherRequest]) -> BatchJob:
        name, vendor = f"bridge-{uuid.uuid4().hex}", self.teacher.vendor
        self.ledger.begin_job(name, vendor, list(requests))
        waiting = tuple(requests.values())
        job = BatchJob(name, None, vendor, waiting)
        tries = 0

        def submit() -> str:
            # A vendor that says "try again" may have created the job anyway.
            nonlocal tries
            tries += 1
            found = self.teacher.find(name) if tries > 1 else None
            return found or self.teacher.submit(name, requests)

        with _stays_open(job):
            try:
                job_id = self._insist(submit, passing=("transient",))
            except TeacherError as error:
                if tries > 1 or error.trouble not in ("fatal", "rejected"):
                    raise
                self._forget(job)
                raise JobRefused(str(error)) from None
        self.ledger.record_job(name, job_id)
        return dataclasses.replace(job, id=job_id)

    def _settle(self, job: BatchJob) -> None:
        # All requests of the job: those that this run no longer makes are paid for too.
        requests = {request.key: request for request in job.waiting}
        try:
            with _stays_open(job):
                results = self._insist(self.teacher.results, str(job.id), requests)
        except JobRefused:
            self._forget(job)
            raise
        for key, request in requests.items():
            outcome = results.get(key)
            if isinstance(outcome, TeacherReply):
                self.ledger.settle(request, outcome)
                self.outcomes.record(key, outcome)
                continue
            self.reasons[key] = str(outcome or f"batch job {job.id} has no result for it")
            if outcome and outcome.trouble != "unknown":
                self.ledger.release(request)
            if outcome and outcome.trouble in ("rejected", "fatal"):
                kind = "refused" if outcome.trouble == "rejected" else "failed"
                self.outcomes.record(key, Failure(str(outcome), kind))
        # A request without any result may be billed: it becomes unknown and keeps counting.
        self.ledger.close_job(job.name)

    def _forget(self, job: BatchJob) -> None:
        """Releases the reservations of a job that the vendor refused or never got."""
        for request in job.waiting:
            self.ledger.release(request)
        self.ledger.close_job(job.name)

    def _insist(
        self,
        call: Callable[..., T],
        *what: object,
        passing: Sequence[str] = ("transient", "unknown"),
    ) -> T:
        """Calls the vendor; retries for half an hour on the kinds of trouble in `passing`.

        By default these include a lost answer, since reading costs nothing.
        """
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, TeacherError) and error.trouble in passing
            ),
            stop=tenacity.stop_after_delay(1800),
            wait=lambda state: min(seconds_to_wait(state), LONGEST_SECONDS),
            before_sleep=tenacity.before_sleep_log(_log, logging.WARNING),
            reraise=True,
        )(call, *what)


@contextlib.contextmanager
def _stays_open(job: BatchJob) -> Iterator[None]:
    """Turns a `TeacherError` into a `UserError` that says how to collect the job, maybe billed."""
    try:
        yield
    except JobRefused:
        raise
    except TeacherError as error:
        raise UserError(
            f"{error}; batch job {job.id or job.name} may be done and billed, so it stays on the "
            "ledger: run the same command again to collect it; or, if the vendor has deleted it, "
            "write it off: launch.report --workdir=DIR "
            f"--write_off={job.id or job.name}"
        ) from error


def _parts(requests: Mapping[str, TeacherRequest]) -> list[dict[str, TeacherRequest]]:
    """Splits requests into jobs within the vendors' limits."""
    parts: dict[tuple[int, int], dict[str, TeacherRequest]] = {}
    size = 0
    for place, (key, request) in enumerate(requests.items()):
        size += len(request.to_json().encode())
        number = (place // REQUESTS_PER_JOB, size // BYTES_PER_JOB)
        parts.setdefault(number, {})[key] = request
    return list(parts.values())
