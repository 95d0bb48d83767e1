"""Gemini's batch mode, with the requests and the answers in the job itself.

What it leaves out: files for jobs above 20 MB. `batch` splits them into several jobs.
"""

import contextlib
import functools
from collections.abc import Mapping
from typing import Any

from bridge_jax.teachers import calls, wire
from bridge_jax.teachers.batch_protocol import JobRefused, Rows, State
from bridge_jax.teachers.gemini_sdks import GoogleGenai, contents_of
from bridge_jax.teachers.gemini_teacher import GeminiTeacher
from bridge_jax.teachers.protocol import Reply, Request, TeacherError
from bridge_jax.teachers.wire import items, mapping

_ENDED = {"SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "EXPIRED", "CANCELLED"}
# Of google.rpc.Code: the vendor's own trouble, which may pass.
_PASSING = (4, 8, 10, 13, 14)


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
        with self.explained(*calls.UNREADABLE):
            jobs = self.blocking.batches
            return jobs.create(model=model, src=inline, config={"display_name": name}).name

    def find(self, name: str) -> str | None:
        """Returns the id of the job that was submitted as `name`."""
        with self.explained(*calls.UNREADABLE):
            listed = self.blocking.batches.list(config={"page_size": 100})
            return next((job.name for job in listed if job.display_name == name), None)

    def state(self, job_id: str) -> State:
        """Returns where a job is; how many requests are done Gemini does not say."""
        words = _words(self._job(job_id))
        if not words:
            raise calls.unusable(self.name, self.secret, f"batch job {job_id} without a state")
        return State(words, 0, words in _ENDED)

    def results(
        self, job_id: str, requests: Mapping[str, Request]
    ) -> Mapping[str, Reply | TeacherError]:
        """Returns what came of the requests of a job that has ended."""
        job = self._job(job_id)
        words, keys = _words(job), list(requests)
        output = mapping(mapping(job.get("metadata")).get("output"))
        answers = items(mapping(output.get("inlinedResponses")).get("inlinedResponses"))
        if words == "FAILED" and not answers:
            said = mapping(job.get("error")).get("message") or "it does not say why"
            raise JobRefused(self.secret.hide(f"{self.name} refused batch job {job_id}: {said}"))
        rows = Rows(requests)
        # They come in the order of the job, of which `requests` may be what is left.
        in_order = keys if len(keys) == len(answers) else []
        for place, answer in enumerate(answers):
            with rows.reading() as about:
                row = mapping(answer)
                request = about(mapping(row.get("metadata")).get("key") or in_order[place])
                # What says neither may be billed.
                if request and (row.get("error") or row.get("response")):
                    rows.found[request.key] = self._result(request, row)
        if words in ("EXPIRED", "CANCELLED"):
            rows.release_the_rest(f"batch job {job_id} {words.lower()} before it")
        return rows.found

    def _sdk(self) -> GoogleGenai:
        assert isinstance(self.sdk, GoogleGenai)  # methods.checks: the other SDK has no jobs.
        return self.sdk

    def _job(self, job_id: str) -> Mapping[str, Any]:
        """Returns a job as the vendor writes it, also where the SDK cannot read an answer in it."""
        with self.explained(*calls.UNREADABLE):
            self._sdk().last_body = b""
            with contextlib.suppress(*calls.UNREADABLE):
                self.blocking.batches.get(name=job_id)
            return wire.objects(self._sdk().last_body)[0]

    def _result(self, request: Request, answer: Mapping[str, Any]) -> Reply | TeacherError:
        if answer.get("error"):
            error = mapping(answer["error"])
            code, said = error.get("code"), error.get("message") or answer["error"]
            if code in _PASSING:
                return TeacherError(self.secret.hide(f"{self.name}: {said}"), "transient")
            status, body = 401 if code in (7, 16) else 400, {"message": said}
            return calls.refused(self.name, self.secret, status, {}, body)
        response = mapping(answer["response"])
        try:
            return self.reply(request, response)
        except TeacherError as error:
            return error


def _words(job: Mapping[str, Any]) -> str:
    state = str(mapping(job.get("metadata")).get("state") or job.get("state") or "")
    return state.removeprefix("JOB_STATE_").removeprefix("BATCH_STATE_")
