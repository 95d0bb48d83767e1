"""OpenAI's batch mode: a file of requests, a job, a file of answers and one of errors."""

import copy
import functools
import json
from collections.abc import Mapping
from typing import Any

from bridge_jax.ledger.requests import Reply, Request
from bridge_jax.teachers import http
from bridge_jax.teachers.batch import read_results
from bridge_jax.teachers.http import UNREADABLE, mapping
from bridge_jax.teachers.openai_teacher import Dialect, OpenAITeacher
from bridge_jax.teachers.protocol import JobRefused, JobState, TeacherError

_ENDPOINT = "/v1/chat/completions"
_ENDED = {"completed", "failed", "expired", "cancelled"}


class OpenAIBatches(OpenAITeacher):
    """The teacher, with jobs in place of calls (`protocol.BatchTeacher`)."""

    @functools.cached_property
    def blocking(self) -> Any:
        """The SDK's blocking client, because jobs are few."""
        client = self.sdk.DefaultHttpxClient(follow_redirects=False)
        return self.sdk.OpenAI(**self._settings(), http_client=client)

    @functools.cached_property
    def _sent_as(self) -> dict[str, Dialect]:
        """The dialect of each job's requests."""
        return {}

    def submit(self, name: str, requests: Mapping[str, Request]) -> str:
        """Returns the id of a new job."""
        row = {"method": "POST", "url": _ENDPOINT}
        lines = [
            json.dumps({"custom_id": key, **row, "body": self.body(request)}) + "\n"
            for key, request in requests.items()
        ]
        content = "".join(lines).encode()
        try:
            with self.explained(*UNREADABLE):
                file = self.blocking.files.create(file=(f"{name}.jsonl", content), purpose="batch")
        except TeacherError as error:
            if error.trouble == "unknown":  # A file that was uploaded twice costs nothing.
                raise TeacherError(str(error), "transient") from None
            raise
        with self.explained(*UNREADABLE):
            job = self.blocking.batches.create(
                input_file_id=file.id,
                endpoint=_ENDPOINT,
                completion_window="24h",
                metadata={"name": name},
            )
        self._sent_as[job.id] = copy.deepcopy(self._dialect)
        return job.id

    def find(self, name: str) -> str | None:
        """Returns the id of the job that was submitted as `name`."""
        with self.explained(*UNREADABLE):
            jobs = self.blocking.batches.list(limit=100)
            named = (job for job in jobs if mapping(job.metadata).get("name") == name)
            return next((job.id for job in named), None)

    def state(self, job_id: str) -> JobState:
        """Returns the state of a job."""
        job = self._job(job_id)
        if not isinstance(job.status, str):
            raise self.errors.unusable(f"batch job {job_id} without a state")
        done = getattr(job.request_counts, "completed", None)
        return JobState(job.status, http.tokens(done) or 0, job.status in _ENDED)

    def results(
        self, job_id: str, requests: Mapping[str, Request]
    ) -> Mapping[str, Reply | TeacherError]:
        """Returns the results of the requests of a job that has ended."""
        job = self._job(job_id)
        files = [file for file in (job.output_file_id, job.error_file_id) if file]
        if job.status == "failed" and not files:
            errors = getattr(job.errors, "data", None) or []
            said = "; ".join(str(getattr(error, "message", error)) for error in errors)
            said = said or "it does not say why"
            raise JobRefused(self.secret.hide(f"{self.name} refused batch job {job_id}: {said}"))
        lines: list[bytes] = []
        for file in files:
            with self.explained(*UNREADABLE):
                # Not splitlines(): an answer may hold U+2028, which JSON leaves unescaped.
                lines += self.blocking.files.content(file).content.split(b"\n")
        rows = [mapping(http.json_or_text(line)) for line in lines if line]
        sent_as = self._sent_as.get(job_id) or self._first_dialect()
        is_cut = job.status in ("expired", "cancelled")
        return read_results(
            [(row.get("custom_id"), row) for row in rows],
            requests,
            functools.partial(self._result, sent_as),
            f"batch job {job_id} was {job.status} before it" if is_cut else "",
        )

    def _job(self, job_id: str) -> Any:
        with self.explained(*UNREADABLE):
            return self.blocking.batches.retrieve(job_id)

    def _result(self, sent_as: Dialect, request: Request, row: Mapping[str, Any]) -> Reply:
        if error := row.get("error"):
            code = mapping(error).get("code")
            said = f"{self.name}: {mapping(error).get('message') or code or error}"
            passing = code in ("batch_expired", "batch_cancelled")
            raise TeacherError(self.secret.hide(said), "transient" if passing else "rejected")
        response = mapping(row.get("response"))
        status, body = response.get("status_code"), response.get("body")
        # Without a valid status, the body says what it is.
        if isinstance(status, int) and status != 200:
            if self._dialect.learn(sent_as.body(request), status, body):
                said = f"{self.name} refuses the form of the request, which changes: {body}"
                raise TeacherError(self.secret.hide(said)[:500], "transient")
            raise self.errors.refused(status, {}, body)
        return self.reply(request, mapping(body))
