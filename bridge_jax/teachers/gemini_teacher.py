"""Asks Gemini through `google-genai` or, for users pinned to it, `google-generativeai`.

The retired `google-generativeai` has no batch mode. We take the raw response from both SDKs:
parsing it here is faster than their typed models, and accepts answers that they reject. Anything
that is billed becomes a reply, at worst a malformed one.
"""

import asyncio
import contextlib
import functools
import importlib
import logging
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from bridge_jax.errors import UserError
from bridge_jax.ledger.requests import Finish, TeacherReply, TeacherRequest
from bridge_jax.teachers import http
from bridge_jax.teachers.api import ApiTeacher, read_results, worst_case
from bridge_jax.teachers.http import UNREADABLE, items, mapping, tokens
from bridge_jax.teachers.protocol import JobState, TeacherError
from bridge_jax.teachers.replies import SCHEMA, finish_of

# Final states of batch jobs, and values of google.rpc.Code for temporary errors of the vendor.
_ENDED = {"SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "EXPIRED", "CANCELLED"}
_PASSING = (4, 8, 10, 13, 14)
_ANSWERED = {"STOP", "FINISH_REASON_UNSPECIFIED", ""}
# https://ai.google.dev/api/generate-content#FinishReason
_REFUSALS = {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE"}
_COUNTS = ("promptTokenCount", "candidatesTokenCount", "totalTokenCount")


class GeminiTeacher(ApiTeacher):
    """A teacher behind Gemini's generateContent, asked by single calls or in batch jobs.

    A job holds its requests and answers inline. Jobs above 20 MB would need files, so `batch`
    splits them.
    """

    @functools.cached_property
    def client(self) -> Any:
        """The `GoogleGenai` or `GoogleGenerativeai` that makes the calls of one event loop.

        Raises:
          UserError: the SDK is not installed, there is no key, or it would be sent unencrypted.
        """
        is_genai = self.config.backend == "google-genai"
        make = GoogleGenai if is_genai else GoogleGenerativeai
        key = self.key()
        try:
            return make(key, self.config.base_url, self.config.timeout)
        except ImportError:
            extra = "gemini" if is_genai else "generativeai"
            raise UserError(
                f"teacher.backend={self.config.backend} needs the SDK: "
                f"pip install 'bridge-jax[{extra}]'"
            ) from None

    async def ask(self, request: TeacherRequest) -> TeacherReply:
        """Returns the reply to one paid call.

        Raises:
          TeacherError: there is no reply.
        """
        with self.explained():
            body = await self.client.generate(request)
            return self.reply(request, merged(self.errors.objects(body)))

    def _refusal(self, error: Any) -> http.Refusal | None:
        if isinstance(error, _Arrived):
            return error.status, error.headers, http.json_or_text(error.body)
        if isinstance(error, self.client.refusals):
            return error.code, getattr(error.response, "headers", {}), error.details
        return None

    def reply(self, request: TeacherRequest, answer: Mapping[str, Any]) -> TeacherReply:
        """Returns the reply in a GenerateContentResponse (JSON of the REST API), without the key.

        If its usage is missing or impossible, the reply counts at its worst case.

        Raises:
          TeacherError: there is no reply, and no usage that would be billed.
        """
        return self.errors.reply(read(request, answer, worst_case(request)), answer)

    def submit(self, name: str, requests: Mapping[str, TeacherRequest]) -> str:
        """Submits a new job; returns its id."""
        inline = []
        for key, request in requests.items():
            system, contents = contents_of(request)
            config = self.client.config(request, system)
            inline.append({"contents": contents, "config": config, "metadata": {"key": key}})
        model = next(iter(requests.values())).model
        with self.explained(*UNREADABLE):
            jobs = self.client.blocking.batches
            return jobs.create(model=model, src=inline, config={"display_name": name}).name

    def find(self, name: str) -> str | None:
        """Returns the id of the job that was submitted as `name`."""
        with self.explained(*UNREADABLE):
            listed = self.client.blocking.batches.list(config={"page_size": 100})
            return next((job.name for job in listed if job.display_name == name), None)

    def state(self, job_id: str) -> JobState:
        """Returns the state of a job; Gemini does not say how many requests are done."""
        words = _words(self._job(job_id))
        if not words:
            raise self.errors.unusable(f"batch job {job_id} has no state")
        return JobState(words, 0, words in _ENDED)

    def results(
        self, job_id: str, requests: Mapping[str, TeacherRequest]
    ) -> Mapping[str, TeacherReply | TeacherError]:
        """Returns the results of a job that has ended, by the key of the request."""
        job = self._job(job_id)
        words = _words(job)
        output = mapping(mapping(job.get("metadata")).get("output"))
        answers = items(mapping(output.get("inlinedResponses")).get("inlinedResponses"))
        if words == "FAILED" and not answers:
            raise self.job_refused(job_id, mapping(job.get("error")).get("message"))
        # Answers come in the order of the job's requests; `requests` may be only some of those.
        in_order = list(requests) if len(requests) == len(answers) else [None] * len(answers)
        rows = [
            (mapping(mapping(row).get("metadata")).get("key") or key, mapping(row))
            for row, key in zip(answers, in_order)
        ]
        is_cut = words in ("EXPIRED", "CANCELLED")
        unfinished = f"batch job {job_id} {words.lower()} before it" if is_cut else ""
        return read_results(rows, requests, self._result, unfinished)

    def _job(self, job_id: str) -> Mapping[str, Any]:
        """Returns a job's raw JSON, even if the SDK cannot read one of its answers."""
        with self.explained(*UNREADABLE):
            self.client.last_body = b""
            with contextlib.suppress(*UNREADABLE):
                self.client.blocking.batches.get(name=job_id)
            return http.objects(self.client.last_body)[0]

    def _result(self, request: TeacherRequest, answer: Mapping[str, Any]) -> TeacherReply:
        if answer.get("error"):
            error = mapping(answer["error"])
            code, said = error.get("code"), error.get("message") or answer["error"]
            if code in _PASSING:
                raise TeacherError(self.secret.redact(f"{self.name}: {said}"), "transient")
            status = 401 if code in (7, 16) else 400
            raise self.errors.refused(status, {}, {"message": said})
        return self.reply(request, mapping(answer["response"]))


def _words(job: Mapping[str, Any]) -> str:
    state = str(mapping(job.get("metadata")).get("state") or job.get("state") or "")
    return state.removeprefix("JOB_STATE_").removeprefix("BATCH_STATE_")


def merged(objects: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Returns the response: its only object, or the objects of a stream put together."""
    if len(objects) == 1:
        return objects[0]
    found: dict[str, Any] = {}
    parts, reason = [], None
    names = ("error", "usageMetadata", "promptFeedback")
    for chunk in objects:
        found |= {name: chunk[name] for name in names if chunk.get(name)}
        if candidate := _candidate(chunk):
            parts += _parts(candidate)
            reason = candidate.get("finishReason") or reason
            found["candidates"] = [{"content": {"parts": parts}, "finishReason": reason}]
    return found


def read(
    request: TeacherRequest, answer: Mapping[str, Any], worst: tuple[int, int]
) -> TeacherReply | None:
    """Returns the reply in a response; None if it has neither a reply nor usage.

    Args:
      request: the question.
      answer: the parsed JSON.
      worst: the highest numbers of input and output tokens that can be billed, used if the usage is
        missing or impossible.
    """
    usage = mapping(answer.get("usageMetadata"))
    is_billed = any(usage.get(name) for name in _COUNTS)
    candidate = _candidate(answer)
    feedback = mapping(answer.get("promptFeedback"))
    error = answer.get("error")
    is_reply = bool(candidate or feedback) and not error
    if not is_billed and not is_reply:
        return None
    inputs, total = tokens(usage.get("promptTokenCount")), tokens(usage.get("totalTokenCount"))
    # Thoughts are billed as output, but counted only in the total.
    counts = (inputs, total - inputs) if inputs and total and total >= inputs else worst
    text = "".join(_text(part) for part in _parts(candidate))
    reason = "SAFETY" if feedback.get("blockReason") else str(candidate.get("finishReason") or "")
    finish = _finish(request, text, reason) if is_reply else "malformed"
    return TeacherReply(text or str(error or ""), *counts, finish)


def _finish(request: TeacherRequest, text: str, reason: str) -> Finish:
    if reason in _REFUSALS:
        return "refused"
    if reason == "MAX_TOKENS":
        return "length"
    if not text.strip():
        return "empty"
    if reason not in _ANSWERED:
        return "malformed"
    return finish_of(text) if request.structured else "stop"


def _candidate(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the first candidate, or an empty mapping if there is none."""
    candidates = items(answer.get("candidates"))
    return next((item for item in candidates if isinstance(item, Mapping)), {})


def _parts(candidate: Mapping[str, Any]) -> list[Any]:
    content = candidate.get("content")
    return items(content.get("parts")) if isinstance(content, Mapping) else items(content)


def _text(part: Any) -> str:
    """Returns the text of a part; "" for thoughts and for parts that are not text."""
    part = {"text": part} if isinstance(part, str) else mapping(part)
    text = part.get("text")
    return text if isinstance(text, str) and not part.get("thought") else ""


class GoogleGenai:
    """The maintained SDK.

    Attributes:
      refusals: the SDK's exceptions for calls that the vendor refused.
      last_body: the response body of the last call of the blocking client.
    """

    def __init__(self, key: str, base_url: str, timeout: float):
        import aiohttp
        from google import genai
        from google.genai import types

        self._aiohttp, self._sdk, self._types = aiohttp, genai, types
        self._key, self._base_url, self._timeout = key, base_url, timeout
        self._session: Any = None
        self.refusals = genai.errors.APIError
        self.last_body = b""
        self._configs: dict[tuple, Any] = {}

    @functools.cached_property
    def blocking(self) -> Any:
        """The SDK's blocking client, for batch jobs, which need few calls."""
        return self._client()

    def _client(self, session: Any = None) -> Any:
        """Returns a client of the SDK.

        Args:
          session: an aiohttp session for its asynchronous calls.
        """
        options = self._types.HttpOptions(
            base_url=self._base_url or None,
            timeout=round(1000 * self._timeout),
            retry_options=self._types.HttpRetryOptions(attempts=1),  # `annotate` retries.
            aiohttp_client=session,
            # A redirect would carry the key, in Google's own header, to another host.
            async_client_args={"allow_redirects": False},
            client_args={"follow_redirects": False, "event_hooks": {"response": [self._keep]}},
        )
        return self._sdk.Client(vertexai=False, api_key=self._key, http_options=options)

    def _keep(self, response: Any) -> None:
        """Keeps the body of a blocking call; raises `_Arrived` for HTTP statuses other than 200.

        The SDK rejects values that it does not know, so a batch job with one such answer could
        otherwise never be collected.
        """
        self.last_body = response.read()
        if response.status_code != 200:
            raise _Arrived(response.status_code, response.headers, self.last_body)

    async def generate(self, request: TeacherRequest) -> bytes | str:
        """Returns the body of a response with HTTP status 200."""
        system, contents = contents_of(request)
        response = await self._asking.aio.models.generate_content(
            model=request.model, contents=contents, config=self._built(request, system)
        )
        return response.sdk_http_response.body or ""

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    @functools.cached_property
    def _asking(self) -> Any:
        """The SDK's client for the event loop that makes the first call.

        It uses aiohttp, which takes two thirds of the CPU time of httpx.
        """
        self._session = _session(self._aiohttp, min(30.0, self._timeout / 2))
        return self._client(self._session)

    def _built(self, request: TeacherRequest, system: str) -> Any:
        """Returns the config of a call from a cache: building one for each request takes time."""
        key = (system, request.max_output_tokens, request.temperature, request.structured)
        if key not in self._configs:
            self._configs[key] = self._types.GenerateContentConfig(
                automatic_function_calling={"disable": True},
                should_return_http_response=True,
                **self.config(request, system),
            )
        return self._configs[key]

    def config(self, request: TeacherRequest, system: str) -> dict[str, Any]:
        """Returns the arguments of the SDK's GenerateContentConfig that are sent to the vendor."""
        config = _config(request)
        if system:
            config["system_instruction"] = system
        if request.structured:
            config["response_json_schema"] = SCHEMA
        return config


class GoogleGenerativeai:
    """The retired SDK, over REST, where its errors are as clear as those of the other SDK.

    It has one key and one address for the whole process.
    """

    refusals = ()  # `_take_out` raises every response as `_Arrived` before the SDK reads it.

    def __init__(self, key: str, base_url: str, timeout: float):
        with warnings.catch_warnings():
            # The SDK warns of its own retirement.
            warnings.simplefilter("ignore", FutureWarning)
            sdk: Any = importlib.import_module("google.generativeai")

        # It keeps 10 connections, and would warn about every further one that it closes.
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        options = {"api_endpoint": base_url} if base_url else None
        sdk.configure(api_key=key, transport="rest", client_options=options)
        client = importlib.import_module("google.generativeai.client")
        # `requests` calls this hook before it would follow a redirect and send the key along.
        hooks = client.get_default_generative_client().transport._session.hooks
        hooks["response"].append(_take_out)
        self._sdk, self._timeout = sdk, timeout
        # Its calls block. The pool starts a thread if none is idle: one per call in flight.
        self._threads = ThreadPoolExecutor(1000, "google-generativeai")

    async def generate(self, request: TeacherRequest) -> bytes | str:
        """Returns the body of a response with HTTP status 200."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._generate, request)

    async def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown()

    def _generate(self, request: TeacherRequest) -> bytes:
        system, contents = contents_of(request)
        config = _config(request)
        if request.structured:
            # It supports an older subset of JSON schema.
            schema = {k: v for k, v in SCHEMA.items() if k != "additionalProperties"}
            config["response_schema"] = schema
        model = self._sdk.GenerativeModel(request.model, system_instruction=system or None)
        options = {"timeout": self._timeout, "retry": None}
        try:
            model.generate_content(contents, generation_config=config, request_options=options)
        except _Arrived as response:
            if response.status != 200:
                raise
            return response.body
        raise RuntimeError("google-generativeai answers without a response")


class _Arrived(Exception):  # noqa: N818
    """Carries a response past an SDK that would follow redirects and reject unusual answers."""

    def __init__(self, status: int, headers: Any, body: bytes):
        super().__init__(f"HTTP {status}")
        self.status, self.headers, self.body = status, headers, body


def _take_out(response: Any, *_: Any, **__: Any) -> NoReturn:
    """Raises `_Arrived` with a response of the library `requests`, before the SDK reads it."""
    raise _Arrived(response.status_code, response.headers, response.content)


def contents_of(request: TeacherRequest) -> tuple[str, list[dict[str, Any]]]:
    """Returns the system instruction and the turns in Gemini's format."""
    system = "\n\n".join(m.content for m in request.messages if m.role == "system")
    turns = [m for m in request.messages if m.role != "system"]
    roles = {"user": "user", "assistant": "model"}
    return system, [{"role": roles[m.role], "parts": [{"text": m.content}]} for m in turns]


def _config(request: TeacherRequest) -> dict[str, Any]:
    """Returns the part of a request's config that is the same for both SDKs."""
    config: dict[str, Any] = {"max_output_tokens": request.max_output_tokens}
    if request.temperature is not None:
        config["temperature"] = request.temperature
    if request.structured:
        config["response_mime_type"] = "application/json"
    return config


def _session(aiohttp: Any, seconds: float) -> Any:
    """Returns an aiohttp session for the SDK, without a limit on the number of connections.

    Connecting fails after `seconds`: the SDK alone would wait as long as for the answer, and
    nothing would tell whether the request was sent. Bodies are decoded as UTF-8, whatever their
    header claims, and read as JSON or else as text: the SDK's own decoding errors would carry
    neither status nor usage.
    """
    limits = aiohttp.ClientTimeout(sock_connect=seconds)

    class Connector(aiohttp.TCPConnector):
        async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
            return await super().connect(req, traces, limits)

    class Response(aiohttp.ClientResponse):
        async def text(self, *_: Any, **__: Any) -> str:
            return http.decoded(await self.read())

        async def json(self, **_: Any) -> Any:
            return http.json_or_text(await self.read())

    connector = Connector(limit=0)
    return aiohttp.ClientSession(connector=connector, trust_env=True, response_class=Response)
