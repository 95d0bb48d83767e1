"""OpenAI's batch mode: a file of requests, a job, a file of answers and one of errors."""

import functools
import json
from collections.abc import Mapping
from typing import Any

from bridge_jax.teachers import calls, openai_replies, wire
from bridge_jax.teachers.batch_protocol import JobRefused, Rows, State
from bridge_jax.teachers.openai_dialect import Dialect
from bridge_jax.teachers.openai_teacher import OpenAITeacher
from bridge_jax.teachers.protocol import Reply, Request, TeacherError
from bridge_jax.teachers.wire import mapping

_ENDPOINT = "/v1/chat/completions"
_ENDED = {"completed", "failed", "expired", "cancelled"}


class OpenAIBatches(OpenAITeacher):
    """The teacher, with jobs in place of calls (`batch_protocol.BatchTeacher`)."""

    @functools.cached_property
    def blocking(self) -> Any:
        """The SDK's client that blocks: jobs are few."""
        sdk = self.sdk()
        http = sdk.DefaultHttpxClient(follow_redirects=False)
        return sdk.OpenAI(**self.settings(), http_client=http)

    @functools.cached_property
    def _sent_as(self) -> dict[str, Dialect]:
        """The dialect of each job's requests."""
        return {}

    def submit(self, name: str, requests: Mapping[str, Request]) -> str:
        """Returns the id of a new job."""
        lines = (
            json.dumps(
                {
                    "custom_id": key,
                    "method": "POST",
                    "url": _ENDPOINT,
                    "body": self.body(request),
                }
            )
            for key, request in requests.items()
        )
        content = ("\n".join(lines) + "\n").encode()
        try:
            with self.explained(*calls.UNREADABLE):
                file = self.blocking.files.create(file=(f"{name}.jsonl", content), purpose="batch")
        except TeacherError as error:
            if error.trouble == "unknown":  # A file that was uploaded twice costs nothing.
                raise TeacherError(str(error), "transient") from None
            raise
        with self.explained(*calls.UNREADABLE):
            job = self.blocking.batches.create(
                input_file_id=file.id,
                endpoint=_ENDPOINT,
                completion_window="24h",
                metadata={"name": name},
            )
        self._sent_as[job.id] = self._dialect.copy()
        return job.id

    def find(self, name: str) -> str | None:
        """Returns the id of the job that was submitted as `name`."""
        with self.explained(*calls.UNREADABLE):
            jobs = self.blocking.batches.list(limit=100)
            named = (job for job in jobs if mapping(job.metadata).get("name") == name)
            return next((job.id for job in named), None)

    def state(self, job_id: str) -> State:
        """Returns where a job is."""
        job = self._job(job_id)
        if not isinstance(job.status, str):
            raise calls.unusable(self.name, self.secret, f"batch job {job_id} without a state")
        done = getattr(job.request_counts, "completed", None)
        return State(job.status, wire.tokens(done) or 0, job.status in _ENDED)

    def results(
        self, job_id: str, requests: Mapping[str, Request]
    ) -> Mapping[str, Reply | TeacherError]:
        """Returns what came of the requests of a job that has ended."""
        job = self._job(job_id)
        files = [file for file in (job.output_file_id, job.error_file_id) if file]
        if job.status == "failed" and not files:
            errors = getattr(job.errors, "data", None) or []
            said = "; ".join(str(getattr(error, "message", error)) for error in errors)
            said = said or "it does not say why"
            raise JobRefused(self.secret.hide(f"{self.name} refused batch job {job_id}: {said}"))
        sent_as = self._sent_as.get(job_id) or self._first_dialect()
        rows = Rows(requests)
        for file in files:
            with self.explained(*calls.UNREADABLE):
                content = self.blocking.files.content(file).content
            # Not splitlines(): an answer may hold U+2028, which JSON leaves unescaped.
            for line in filter(None, content.split(b"\n")):
                with rows.reading() as about:
                    row = mapping(wire.parsed(line))
                    request = about(row["custom_id"])
                    # What says neither may be billed.
                    if request and (row.get("error") or row.get("response")):
                        rows.found[request.key] = self._result(request, row, sent_as)
        if job.status in ("expired", "cancelled"):
            rows.release_the_rest(f"batch job {job_id} was {job.status} before it")
        return rows.found

    def _job(self, job_id: str) -> Any:
        with self.explained(*calls.UNREADABLE):
            return self.blocking.batches.retrieve(job_id)

    def _result(
        self, request: Request, row: Mapping[str, Any], sent_as: Dialect
    ) -> Reply | TeacherError:
        if error := row.get("error"):
            code = mapping(error).get("code")
            said = f"{self.name}: {mapping(error).get('message') or code or error}"
            passing = code in ("batch_expired", "batch_cancelled")
            return TeacherError(self.secret.hide(said), "transient" if passing else "rejected")
        response = mapping(row.get("response"))
        status, body = response.get("status_code"), response.get("body")
        # Without a status that is one, the body says what it is.
        if isinstance(status, int) and status != 200:
            if self._dialect.learn(sent_as.body(request), status, body):
                said = f"{self.name} refuses the form of the request, which changes: {body}"
                return TeacherError(self.secret.hide(said)[:500], "transient")
            return calls.refused(self.name, self.secret, status, {}, body)
        try:
            return self.reply(request, openai_replies.merged([mapping(body)]))
        except TeacherError as error:
            return error
