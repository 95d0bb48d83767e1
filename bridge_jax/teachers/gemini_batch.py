"""Gemini's batch mode, with the requests and the answers in the job itself.

What it leaves out: files for jobs above 20 MB. `batch` splits them into several jobs.
"""

import functools
from collections.abc import Mapping
from typing import Any

from bridge_jax.teachers import calls
from bridge_jax.teachers.batch_protocol import JobRefused, Rows, State
from bridge_jax.teachers.gemini_sdks import GoogleGenai, contents_of
from bridge_jax.teachers.gemini_teacher import GeminiTeacher
from bridge_jax.teachers.protocol import Reply, Request, TeacherError

_ENDED = {"SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "EXPIRED", "CANCELLED"}
# Of google.rpc.Code: the vendor's own trouble, which may pass.
_PASSING = {4, 8, 10, 13, 14}


class GeminiBatches(GeminiTeacher):
    """The teacher, with jobs in place of calls (`batch_protocol.BatchTeacher`)."""

    @functools.cached_property
    def blocking(self) -> Any:
        """The SDK's client that blocks: jobs are few."""
        return self._sdk().client()

    def submit(self, name: str, requests: Mapping[str, Request]) -> str:
        """Returns the id of a new job."""
        inline = []
        for key, request in requests.items():
            system, contents = contents_of(request)
            config = self._sdk().config(request, system)
            for of_a_call in ("automatic_function_calling", "should_return_http_response"):
                del config[of_a_call]
            inline.append({"contents": contents, "config": config, "metadata": {"key": key}})
        model = next(iter(requests.values())).model
        with self.explained():
            jobs = self.blocking.batches
            return jobs.create(model=model, src=inline, config={"display_name": name}).name

    def find(self, name: str) -> str | None:
        """Returns the id of the job that was submitted as `name`."""
        with self.explained():
            listed = self.blocking.batches.list(config={"page_size": 100})
            return next((job.name for job in listed if job.display_name == name), None)

    def state(self, job_id: str) -> State:
        """Returns where a job is; how many requests are done Gemini does not say."""
        words = _words(self._job(job_id))
        return State(words, 0, words in _ENDED)

    def results(
        self, job_id: str, requests: Mapping[str, Request]
    ) -> Mapping[str, Reply | TeacherError]:
        """Returns what came of the requests of a job that has ended."""
        job = self._job(job_id)
        words, keys = _words(job), list(requests)
        answers = (job.dest.inlined_responses if job.dest else None) or []
        if words == "FAILED" and not answers:
            said = job.error.message if job.error else "it does not say why"
            raise JobRefused(self.secret.hide(f"{self.name} refused batch job {job_id}: {said}"))
        rows = Rows(requests)
        # They come in the order of the job, of which `requests` may be what is left.
        in_order = keys if len(keys) == len(answers) else []
        for place, answer in enumerate(answers):
            with rows.reading() as about:
                key = (answer.metadata or {}).get("key") or in_order[place]
                if request := about(key):
                    rows.found[request.key] = self._result(request, answer)
        if words in ("EXPIRED", "CANCELLED"):
            rows.release_the_rest(f"batch job {job_id} {words.lower()} before it")
        return rows.found

    def _sdk(self) -> GoogleGenai:
        assert isinstance(self.sdk, GoogleGenai)  # config_checks: the other SDK has no jobs.
        return self.sdk

    def _job(self, job_id: str) -> Any:
        with self.explained():
            return self.blocking.batches.get(name=job_id)

    def _result(self, request: Request, answer: Any) -> Reply | TeacherError:
        if answer.error or not answer.response:
            code, said = (answer.error.code, answer.error.message) if answer.error else (0, "")
            if code in _PASSING:
                return TeacherError(self.secret.hide(f"{self.name}: {said}"), "transient")
            status, body = 401 if code in (7, 16) else 400, {"message": said}
            return calls.refused(self.name, self.secret, status, {}, body)
        values = answer.response.model_dump(mode="json", by_alias=True, exclude_none=True)
        return self.reply(request, values)


def _words(job: Any) -> str:
    return str(getattr(job.state, "name", job.state)).removeprefix("JOB_STATE_")
