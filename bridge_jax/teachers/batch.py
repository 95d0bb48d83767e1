"""Asks a teacher through its vendor's batch mode: at half the price, within a day.

A job is on the ledger before it is submitted, under a name that the vendor keeps with it. So it
outlives this process: whoever runs the same command next collects it, and one that was killed
between submitting and noting the vendor's id finds the job by its name.
"""

import contextlib
import dataclasses
import itertools
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import tenacity

from bridge_jax.errors import UserError
from bridge_jax.ledger.ledger import Job, Ledger
from bridge_jax.ledger.prices import BudgetExceeded
from bridge_jax.ledger.requests import Tally
from bridge_jax.teachers import retrying
from bridge_jax.teachers.batch_protocol import BatchTeacher, JobRefused, State
from bridge_jax.teachers.protocol import Failure, Reply, Request, TeacherError

T = TypeVar("T")

# Below what the vendors take in one job: OpenAI 50,000 requests and 200 MB, Gemini 20 MB inline.
REQUESTS_PER_JOB, BYTES_PER_JOB = 10_000, 15_000_000

_log = logging.getLogger(__name__)


def annotate_in_batches(
    teacher: BatchTeacher,
    ledger: Ledger,
    requests: Sequence[Request],
    poll_seconds: float,
    on_reply: Callable[[int, int], None] | None = None,
    attempts: int = retrying.ATTEMPTS,
    optional: bool = False,
    tally: Tally | None = None,
) -> list[Reply | Failure]:
    """Returns what came of each request, in order, as `annotate` does.

    Jobs that an earlier process left open are collected first. What failed and may succeed later
    (a job that expired, an overload) goes into a further job, `attempts` in all.

    Args:
      teacher: who is asked.
      ledger: who pays.
      requests: equal ones are asked once.
      poll_seconds: between two questions for a job's state.
      on_reply: called with (requests done, requests in all).
      attempts: jobs per request at most.
      optional: a request that no longer fits the caps is a `Failure`, not an error.
      tally: counts the outcomes, before each call of `on_reply`.

    Raises:
      BudgetExceeded: a cap is reached, after those that fitted were collected.
      UserError: a job was refused, or the ledger cannot be written.
    """
    unique = {r.key: r for r in requests}
    work = _Batches(teacher, ledger, unique, poll_seconds, on_reply, tally or Tally())
    work.collect(work.left_open())
    exceeded: BudgetExceeded | None = None
    for _ in range(attempts):
        jobs, exceeded = work.submit()
        if not jobs:
            break
        work.collect(jobs)
    for key in work.missing():
        kind = "not_asked" if exceeded else "failed"
        work.record(key, Failure(f"not asked: {exceeded}" if exceeded else work.reasons[key], kind))
    work.show(0)
    if exceeded and not optional:
        raise BudgetExceeded(f"{exceeded}; run the same command again to continue") from exceeded
    return [work.outcomes[request.key] for request in requests]


def collect_left_open(teacher: BatchTeacher, ledger: Ledger, poll_seconds: float) -> None:
    """Waits for the jobs that an earlier process of this run left open, and writes what came of it.

    For a run that asks without batch mode now: what it is about to ask may be in such a job.

    Raises:
      UserError: a job was refused, or cannot be looked for.
    """
    work = _Batches(teacher, ledger, {}, poll_seconds, None)
    if jobs := work.left_open():
        _log.warning(
            "%s: %d batch jobs of an earlier start are open; they are collected first, which may "
            "take a day: %s",
            *(teacher.name, len(jobs), ", ".join(str(job.id) for job in jobs)),
        )
        work.collect(jobs)


@dataclasses.dataclass
class _Batches:
    """One call of `annotate_in_batches`."""

    teacher: BatchTeacher
    ledger: Ledger
    requests: Mapping[str, Request]
    poll_seconds: float
    on_reply: Callable[[int, int], None] | None
    tally: Tally = dataclasses.field(default_factory=Tally)
    outcomes: dict[str, Reply | Failure] = dataclasses.field(default_factory=dict)
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)

    def missing(self) -> list[str]:
        """Returns the keys that have no outcome yet, in order."""
        return [key for key in self.requests if key not in self.outcomes]

    def record(self, key: str, outcome: Reply | Failure) -> None:
        """Notes what came of a request; those that this run no longer asks are not counted."""
        if key in self.requests and key not in self.outcomes:
            self.tally.add(outcome)
        self.outcomes[key] = outcome

    def left_open(self) -> list[Job]:
        """Returns the vendor's jobs of an earlier process; forgets those that it never submitted.

        Raises:
          UserError: one cannot be looked for.
        """
        jobs = []
        for job in self.ledger.open_jobs():
            if job.vendor != self.teacher.vendor:
                _log.warning("batch job %s is %s's: it stays open", job.name, job.vendor)
                continue
            with _stays_open(job):
                job_id = job.id or self._insist(self.teacher.find, job.name)
            if job_id is None:
                self._forget(job)
                continue
            self.ledger.record_job(job.name, job_id)
            jobs.append(dataclasses.replace(job, id=job_id))
        return jobs

    def submit(self) -> tuple[list[Job], BudgetExceeded | None]:
        """Submits what has no outcome yet, as far as the caps allow; takes what is stored."""
        reserved: dict[str, Request] = {}
        exceeded = None
        for key in self.missing():
            request = self.requests[key]
            estimate = self.teacher.estimate_input_tokens(request)
            try:
                stored = self.ledger.reserve(request, estimate, batch=True)
            except BudgetExceeded as error:
                exceeded = error
                break
            if stored is None:
                reserved[key] = request
            else:
                self.record(key, stored)
        self.show(0)
        return [self._submit_one(part) for part in _parts(reserved)], exceeded

    def collect(self, jobs: Sequence[Job]) -> None:
        """Waits for jobs and writes what came of them to the ledger."""
        waiting = list(jobs)
        while waiting:
            states = {job.name: self._state(job) for job in waiting}
            for job in [job for job in waiting if states[job.name].ended]:
                self._settle(job)
                waiting.remove(job)
            self.show(sum(states[job.name].done for job in waiting))
            if waiting:
                words = {f"{job.id}: {states[job.name].words}" for job in waiting}
                _log.info("%s works on %s", self.teacher.name, "; ".join(sorted(words)))
                time.sleep(self.poll_seconds)

    def _submit_one(self, requests: Mapping[str, Request]) -> Job:
        name, vendor = f"bridge-{uuid.uuid4().hex}", self.teacher.vendor
        self.ledger.begin_job(name, vendor, list(requests))
        waiting = tuple(requests.values())
        job = Job(name, None, vendor, tuple(requests), time.time(), waiting)
        tries = 0

        def submit() -> str:
            # A vendor that says "try again" may have made the job all the same.
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
                refusal = error
            else:
                refusal = None
        if refusal:
            self._forget(job)
            raise refusal
        self.ledger.record_job(name, job_id)
        return dataclasses.replace(job, id=job_id)

    def _state(self, job: Job) -> State:
        with _stays_open(job):
            return self._insist(self.teacher.state, str(job.id))

    def _settle(self, job: Job) -> None:
        # Also of those that this run no longer asks: they are paid for all the same.
        requests = {request.key: request for request in job.waiting}
        try:
            with _stays_open(job):
                results = self._insist(self.teacher.results, str(job.id), requests)
        except JobRefused:
            self._forget(job)
            raise
        for key, request in requests.items():
            outcome = results.get(key)
            if isinstance(outcome, Reply):
                self.ledger.settle(request, outcome)
                self.record(key, outcome)
            elif outcome is not None:
                if outcome.trouble != "unknown":
                    self.ledger.release(request)
                self.reasons[key] = str(outcome)
                if outcome.trouble in ("rejected", "fatal"):
                    kind = "refused" if outcome.trouble == "rejected" else "failed"
                    self.record(key, Failure(str(outcome), kind))
            else:
                self.reasons[key] = f"batch job {job.id} has no result for it"
        # What has no result at all may be billed: it becomes unknown, and counts.
        self.ledger.close_job(job.name)

    def _forget(self, job: Job) -> None:
        """Takes back the reservations of a job that the vendor does not have."""
        for request in job.waiting:
            self.ledger.release(request)
        self.ledger.close_job(job.name)

    def _insist(
        self,
        call: Callable[..., T],
        *what: object,
        passing: Sequence[str] = ("transient", "unknown"),
    ) -> T:
        """Returns what the vendor says; tries again while it cannot be reached, for half an hour.

        Reading costs nothing, so an answer that was lost is asked for again.
        """
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, TeacherError) and error.trouble in passing
            ),
            stop=tenacity.stop_after_delay(1800),
            wait=lambda state: min(retrying.seconds_to_wait(state), retrying.LONGEST_SECONDS),
            before_sleep=tenacity.before_sleep_log(_log, logging.WARNING),
            reraise=True,
        )(call, *what)

    def show(self, in_jobs: int) -> None:
        """Calls `on_reply`, where `in_jobs` requests are done that are not collected yet."""
        if self.on_reply:
            self.on_reply(len(self.outcomes) + in_jobs, len(self.requests))


@contextlib.contextmanager
def _stays_open(job: Job) -> Iterator[None]:
    """Says in an error that the job, which may be paid for, is still to be collected."""
    try:
        yield
    except JobRefused:
        raise
    except TeacherError as error:
        raise UserError(
            f"{error}; whether batch job {job.id or job.name} is done and billed is unknown, so it "
            "stays on the ledger: run the same command again, which collects it; or, if the vendor "
            "has deleted it, write it off: launch.report --workdir=DIR "
            f"--write_off={job.id or job.name}"
        ) from error


def _parts(requests: Mapping[str, Request]) -> list[dict[str, Request]]:
    """Splits requests into as many jobs as the vendors' limits make necessary."""
    size = 0

    def number(place: int, request: Request) -> tuple[int, int]:
        nonlocal size
        size += len(request.to_json().encode())
        return place // REQUESTS_PER_JOB, size // BYTES_PER_JOB

    placed = [(number(i, request), key) for i, (key, request) in enumerate(requests.items())]
    return [
        {key: requests[key] for _, key in part}
        for _, part in itertools.groupby(placed, key=lambda item: item[0])
    ]
