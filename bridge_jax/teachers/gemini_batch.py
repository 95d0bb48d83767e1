"""Gemini's batch mode, with the requests and the answers in the job itself.

It has no files for jobs above 20 MB: `batch` splits them into several jobs.
"""

import contextlib
import functools
from collections.abc import Mapping
from typing import Any

from bridge_jax.ledger.requests import Reply, Request
from bridge_jax.teachers import http
from bridge_jax.teachers.batch import read_results
from bridge_jax.teachers.gemini_teacher import GeminiTeacher, GoogleGenai, contents_of
from bridge_jax.teachers.http import UNREADABLE, items, mapping
from bridge_jax.teachers.protocol import JobRefused, JobState, TeacherError

_ENDED = {"SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "EXPIRED", "CANCELLED"}
# Codes of google.rpc.Code for the vendor's own trouble, which may pass.
_PASSING = (4, 8, 10, 13, 14)


class GeminiBatches(GeminiTeacher):
    """The teacher, with jobs in place of calls (`protocol.BatchTeacher`)."""

    @functools.cached_property
    def blocking(self) -> Any:
        """The SDK's blocking client, because jobs are few."""
        return self._genai.client()

    @property
    def _genai(self) -> GoogleGenai:
        assert isinstance(self.sdk, GoogleGenai)  # methods.checks: the other SDK has no jobs.
        return self.sdk

    def submit(self, name: str, requests: Mapping[str, Request]) -> str:
        """Returns the id of a new job."""
        inline = []
        for key, request in requests.items():
            system, contents = contents_of(request)
            config = self._genai.config(request, system)
            inline.append({"contents": contents, "config": config, "metadata": {"key": key}})
        model = next(iter(requests.values())).model
        with self.explained(*UNREADABLE):
            jobs = self.blocking.batches
            return jobs.create(model=model, src=inline, config={"display_name": name}).name

    def find(self, name: str) -> str | None:
        """Returns the id of the job that was submitted as `name`."""
        with self.explained(*UNREADABLE):
            listed = self.blocking.batches.list(config={"page_size": 100})
            return next((job.name for job in listed if job.display_name == name), None)

    def state(self, job_id: str) -> JobState:
        """Returns the state of a job; Gemini does not say how many requests are done."""
        words = _words(self._job(job_id))
        if not words:
            raise self.errors.unusable(f"batch job {job_id} without a state")
        return JobState(words, 0, words in _ENDED)

    def results(
        self, job_id: str, requests: Mapping[str, Request]
    ) -> Mapping[str, Reply | TeacherError]:
        """Returns the results of the requests of a job that has ended."""
        job = self._job(job_id)
        words = _words(job)
        output = mapping(mapping(job.get("metadata")).get("output"))
        answers = items(mapping(output.get("inlinedResponses")).get("inlinedResponses"))
        if words == "FAILED" and not answers:
            said = mapping(job.get("error")).get("message") or "it does not say why"
            raise JobRefused(self.secret.hide(f"{self.name} refused batch job {job_id}: {said}"))
        # Answers come in the order of the job, of which `requests` may be a part.
        in_order = list(requests) if len(requests) == len(answers) else [None] * len(answers)
        rows = [
            (mapping(mapping(row).get("metadata")).get("key") or key, mapping(row))
            for row, key in zip(answers, in_order)
        ]
        is_cut = words in ("EXPIRED", "CANCELLED")
        unfinished = f"batch job {job_id} {words.lower()} before it" if is_cut else ""
        return read_results(rows, requests, self._result, unfinished)

    def _job(self, job_id: str) -> Mapping[str, Any]:
        """Returns a job as the vendor writes it, also where the SDK cannot read an answer in it."""
        with self.explained(*UNREADABLE):
            self._genai.last_body = b""
            with contextlib.suppress(*UNREADABLE):
                self.blocking.batches.get(name=job_id)
            return http.objects(self._genai.last_body)[0]

    def _result(self, request: Request, answer: Mapping[str, Any]) -> Reply:
        if answer.get("error"):
            error = mapping(answer["error"])
            code, said = error.get("code"), error.get("message") or answer["error"]
            if code in _PASSING:
                raise TeacherError(self.secret.hide(f"{self.name}: {said}"), "transient")
            status = 401 if code in (7, 16) else 400
            raise self.errors.refused(status, {}, {"message": said})
        return self.reply(request, mapping(answer["response"]))


def _words(job: Mapping[str, Any]) -> str:
    state = str(mapping(job.get("metadata")).get("state") or job.get("state") or "")
    return state.removeprefix("JOB_STATE_").removeprefix("BATCH_STATE_")
