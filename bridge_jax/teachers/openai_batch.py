"""OpenAI's batch mode: a file of requests, a job, a file of answers and one of errors."""

import functools
import json
from collections.abc import Mapping
from typing import Any

from bridge_jax.teachers import calls
from bridge_jax.teachers.batch_protocol import JobRefused, Rows, State
from bridge_jax.teachers.openai_teacher import OpenAITeacher
from bridge_jax.teachers.protocol import Reply, Request, TeacherError

_ENDPOINT = "/v1/chat/completions"
_ENDED = {"completed", "failed", "expired", "cancelled"}


class OpenAIBatches(OpenAITeacher):
    """The teacher, with jobs in place of calls (`batch_protocol.BatchTeacher`)."""

    @functools.cached_property
    def blocking(self) -> Any:
        """The SDK's client that blocks: jobs are few."""
        return self.sdk().OpenAI(**self.settings())

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
            with self.explained():
                file = self.blocking.files.create(file=(f"{name}.jsonl", content), purpose="batch")
        except TeacherError as error:
            if error.trouble == "unknown":  # A file that was uploaded twice costs nothing.
                raise TeacherError(str(error), "transient") from None
            raise
        with self.explained():
            job = self.blocking.batches.create(
                input_file_id=file.id,
                endpoint=_ENDPOINT,
                completion_window="24h",
                metadata={"name": name},
            )
        return job.id

    def find(self, name: str) -> str | None:
        """Returns the id of the job that was submitted as `name`."""
        with self.explained():
            jobs = self.blocking.batches.list(limit=100)
            return next((job.id for job in jobs if (job.metadata or {}).get("name") == name), None)

    def state(self, job_id: str) -> State:
        """Returns where a job is."""
        job = self._job(job_id)
        done = job.request_counts.completed if job.request_counts else 0
        return State(job.status, done, job.status in _ENDED)

    def results(
        self, job_id: str, requests: Mapping[str, Request]
    ) -> Mapping[str, Reply | TeacherError]:
        """Returns what came of the requests of a job that has ended."""
        job = self._job(job_id)
        files = [file for file in (job.output_file_id, job.error_file_id) if file]
        if job.status == "failed" and not files:
            errors = job.errors.data if job.errors and job.errors.data else []
            said = "; ".join(str(error.message) for error in errors) or "it does not say why"
            raise JobRefused(self.secret.hide(f"{self.name} refused batch job {job_id}: {said}"))
        rows = Rows(requests)
        for file in files:
            with self.explained():
                content = self.blocking.files.content(file).text
            # Not splitlines(): an answer may hold U+2028, which JSON leaves unescaped.
            for line in filter(None, content.split("\n")):
                with rows.reading() as about:
                    row = json.loads(line)
                    if request := about(row["custom_id"]):
                        rows.found[request.key] = self._result(request, row)
        if job.status in ("expired", "cancelled"):
            rows.release_the_rest(f"batch job {job_id} was {job.status} before it")
        return rows.found

    def _job(self, job_id: str) -> Any:
        with self.explained():
            return self.blocking.batches.retrieve(job_id)

    def _result(self, request: Request, row: dict[str, Any]) -> Reply | TeacherError:
        response: Any = row.get("response")
        error = row.get("error")
        if error:
            said = f"{self.name}: {error.get('message') or error.get('code')}"
            passing = error.get("code") in ("batch_expired", "batch_cancelled")
            return TeacherError(self.secret.hide(said), "transient" if passing else "rejected")
        status = response["status_code"]
        if status != 200:
            return calls.refused(self.name, self.secret, status, {}, response.get("body"))
        return self.reply(request, response["body"])
