"""Asks GPT models, and any server that speaks OpenAI's protocol (vLLM, SGLang, JetStream).

Requests go through the SDK's `post`, not through its typed `create`: for the same JSON, `post`
takes half the CPU time, which matters at hundreds of answers per second.

Servers differ in the fields that they accept. OpenAI's reasoning models accept only
`max_completion_tokens` and only one temperature, older servers accept only `max_tokens`, and some
accept no schemas. A refusal costs nothing, so a `Dialect` learns from the first refusals for the
rest of the run; a request's key in the ledger does not depend on it. Servers differ in their
answers too: content may be a list of parts, some of them thoughts, and a completion may arrive as
an event stream, or in the form of the older text completions. Anything that is billed becomes a
reply, at worst a malformed one.
"""

import copy
import dataclasses
import functools
import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bridge_jax.config import TeacherConfig
from bridge_jax.errors import UserError
from bridge_jax.ledger.requests import Finish, TeacherReply, TeacherRequest
from bridge_jax.teachers import http
from bridge_jax.teachers.api import ApiTeacher, read_results, worst_case
from bridge_jax.teachers.http import UNREADABLE, items, mapping, tokens
from bridge_jax.teachers.protocol import JobState, TeacherError
from bridge_jax.teachers.replies import SCHEMA, finish_of

_log = logging.getLogger(__name__)

_ENDPOINT = "/v1/chat/completions"  # For the requests in a batch job.
_ENDED = {"completed", "failed", "expired", "cancelled"}
_LIMITS = ("max_tokens", "max_completion_tokens")
# Phrases in a refusal of a field, or of every value of it except the server's default.
_UNKNOWN = re.compile(
    "unsupported|not support|n't support|unrecognized|unknown|unexpected|not permitted|not allowed"
    "|extra_forbidden|no longer|deprecated|not available|only the default"
)
# Phrases for a value that is too high. The token limit then keeps its field name: the server might
# ignore another one.
_TOO_HIGH = re.compile("too large|too long|too high|exceed|at most|context length|maximum")
_LONGEST = 4000  # Number of characters of a refusal that are read.

_FORMS = str | list | Mapping | None  # Types of `content` that may hold text.
_CUT_OFF = {"length", "max_tokens", "max_output_tokens", "model_length"}
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens")


class OpenAITeacher(ApiTeacher):
    """A teacher behind OpenAI's chat completions API, asked by single calls or in batch jobs."""

    def __init__(self, config: TeacherConfig):
        super().__init__(config)
        self._dialect = self._first_dialect()
        self._sent_as: dict[str, Dialect] = {}  # By the batch job's id.

    def _first_dialect(self) -> "Dialect":
        # OpenAI's reasoning models accept only `max_completion_tokens`, older servers the other.
        limit = "max_tokens" if self.config.base_url else "max_completion_tokens"
        return Dialect(self.name, limit)

    @functools.cached_property
    def sdk(self) -> Any:
        """The SDK's module.

        Raises:
          UserError: the SDK is not installed.
        """
        try:
            import aiohttp  # noqa: F401 - the SDK needs it for DefaultAioHttpClient
            import openai
        except ImportError:
            raise UserError(
                "teacher.kind=openai needs the SDK: pip install 'bridge-jax[openai]'"
            ) from None
        return openai

    @functools.cached_property
    def client(self) -> Any:
        """The SDK's client, for one event loop.

        It uses aiohttp, which takes two thirds of the CPU time of the SDK's default transport.

        Raises:
          UserError: the SDK is not installed, or there is no key.
        """
        hooks = {"response": [_read_as_utf8]}
        client = self.sdk.DefaultAioHttpClient(follow_redirects=False, event_hooks=hooks)
        return self.sdk.AsyncOpenAI(**self._settings(), http_client=client)

    @functools.cached_property
    def _blocking(self) -> Any:
        """The SDK's blocking client, for batch jobs, which need few calls."""
        client = self.sdk.DefaultHttpxClient(follow_redirects=False)
        return self.sdk.OpenAI(**self._settings(), http_client=client)

    def _settings(self) -> dict[str, Any]:
        """Returns the constructor arguments of the SDK's clients."""
        return {
            "api_key": self.key() or "none",
            "base_url": self.config.base_url or None,
            "timeout": self.config.timeout,
            "max_retries": 0,  # `annotate` retries, through the ledger.
        }

    async def ask(self, request: TeacherRequest) -> TeacherReply:
        """Returns the reply to one paid call.

        A call that is refused for the fields of the request costs nothing, and is repeated with
        other fields.

        Raises:
          TeacherError: there is no reply.
        """
        with self.explained():
            while True:
                body = self.body(request)
                try:
                    text = await self.client.post("/chat/completions", cast_to=str, body=body)
                    break
                except self.sdk.APIStatusError as error:
                    said = http.json_or_text(error.response.text)
                    if not self._dialect.learn(body, error.status_code, said):
                        raise
            return self.reply(request, merged(self.errors.objects(text)))

    def _refusal(self, error: Any) -> http.Refusal | None:
        if not isinstance(error, self.sdk.APIStatusError):
            return None
        response = error.response
        return error.status_code, response.headers, http.json_or_text(response.text)

    def body(self, request: TeacherRequest) -> dict[str, Any]:
        """Returns the JSON of a request, with fields that the server has not refused yet."""
        return self._dialect.body(request)

    def reply(self, request: TeacherRequest, answer: Mapping[str, Any]) -> TeacherReply:
        """Returns the reply in a chat completion, without the key.

        If its usage is missing or impossible, the reply counts at its worst case.

        Raises:
          TeacherError: there is no reply, and no usage that would be billed.
        """
        return self.errors.reply(read(request, answer, worst_case(request)), answer)

    def submit(self, name: str, requests: Mapping[str, TeacherRequest]) -> str:
        """Submits a new job; returns its id."""
        row = {"method": "POST", "url": _ENDPOINT}
        lines = [
            json.dumps({"custom_id": key, **row, "body": self.body(request)}) + "\n"
            for key, request in requests.items()
        ]
        content = "".join(lines).encode()
        try:
            with self.explained(*UNREADABLE):
                file = self._blocking.files.create(file=(f"{name}.jsonl", content), purpose="batch")
        except TeacherError as error:
            if error.trouble == "unknown":  # Uploading the file twice costs nothing.
                raise TeacherError(str(error), "transient") from None
            raise
        with self.explained(*UNREADABLE):
            job = self._blocking.batches.create(
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
            jobs = self._blocking.batches.list(limit=100)
            named = (job for job in jobs if mapping(job.metadata).get("name") == name)
            return next((job.id for job in named), None)

    def state(self, job_id: str) -> JobState:
        """Returns the state of a job."""
        job = self._job(job_id)
        if not isinstance(job.status, str):
            raise self.errors.unusable(f"batch job {job_id} has no state")
        done = getattr(job.request_counts, "completed", None)
        return JobState(job.status, http.tokens(done) or 0, job.status in _ENDED)

    def results(
        self, job_id: str, requests: Mapping[str, TeacherRequest]
    ) -> Mapping[str, TeacherReply | TeacherError]:
        """Returns the results of a job that has ended, by the key of the request."""
        job = self._job(job_id)
        files = [file for file in (job.output_file_id, job.error_file_id) if file]
        if job.status == "failed" and not files:
            errors = getattr(job.errors, "data", None) or []
            said = "; ".join(str(getattr(error, "message", error)) for error in errors)
            raise self.job_refused(job_id, said)
        lines: list[bytes] = []
        for file in files:
            with self.explained(*UNREADABLE):
                # Not splitlines(): an answer may contain U+2028, which JSON leaves unescaped.
                lines += self._blocking.files.content(file).content.split(b"\n")
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
            return self._blocking.batches.retrieve(job_id)

    def _result(
        self, sent_as: "Dialect", request: TeacherRequest, row: Mapping[str, Any]
    ) -> TeacherReply:
        if error := row.get("error"):
            code = mapping(error).get("code")
            said = f"{self.name}: {mapping(error).get('message') or code or error}"
            passing = code in ("batch_expired", "batch_cancelled")
            raise TeacherError(self.secret.redact(said), "transient" if passing else "rejected")
        response = mapping(row.get("response"))
        status, body = response.get("status_code"), response.get("body")
        # Without a valid status, the body itself shows whether it is a reply or an error.
        if isinstance(status, int) and status != 200:
            if self._dialect.learn(sent_as.body(request), status, body):
                said = f"{self.name} rejected a field of the request; retrying with others: {body}"
                raise TeacherError(self.secret.redact(said)[:500], "transient")
            raise self.errors.refused(status, {}, body)
        return self.reply(request, mapping(body))


async def _read_as_utf8(response: Any) -> None:
    """Makes the SDK decode a response as UTF-8, JSON's encoding, whatever the header says."""
    response.encoding = "utf-8"


@dataclasses.dataclass
class Dialect:
    """The request fields that one server accepts, learned from its refusals.

    Attributes:
      teacher: the teacher's name, for messages.
      limit: the field name to try first for the limit on output tokens.
      refused: the fields that the server has refused.
    """

    teacher: str
    limit: str
    refused: set[str] = dataclasses.field(default_factory=set)

    def body(self, request: TeacherRequest) -> dict[str, Any]:
        """Returns the JSON of a request, without the fields that the server has refused."""
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            self._name_of_limit(): request.max_output_tokens,
        }
        if request.temperature is not None and "temperature" not in self.refused:
            body["temperature"] = request.temperature
        # Without this field, the prompt still asks for JSON, and other text is read too.
        if request.structured and "response_format" not in self.refused:
            schema = {"name": "rationale_and_answer", "strict": True, "schema": SCHEMA}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def learn(self, sent: Mapping[str, Any], status: int, refusal: Any) -> bool:
        """Learns from a refusal; returns whether the request should be sent with other fields.

        Args:
          sent: the JSON of the refused request.
          status: the HTTP status.
          refusal: the answer, as parsed JSON or as text.
        """
        if status not in (400, 422):
            return False
        unknown = {name for name in _fields_refused(refusal) if name in sent}
        for name in sorted(unknown - self.refused):
            self.refused.add(name)
            instead = "trying its other name" if name in _LIMITS else "leaving it out"
            _log.warning("%s does not accept %s: %s", self.teacher, name, instead)
        # A concurrent call may have learned the same already: that is a reason to retry too.
        limit = self._name_of_limit()
        return any(name in self.refused and name != limit for name in unknown)

    def _name_of_limit(self) -> str:
        """Returns the first name of the limit that is not refused; `limit` if both are."""
        names = sorted(_LIMITS, key=lambda name: name != self.limit)
        return next((name for name in names if name not in self.refused), names[0])


def _fields_refused(refusal: Any) -> set[str]:
    """Returns the fields that the server does not accept, according to a refusal."""
    error = refusal.get("error", refusal) if isinstance(refusal, Mapping) else refusal
    text = (error if isinstance(error, str) else json.dumps(error))[:_LONGEST].lower()
    if not _UNKNOWN.search(text):
        return set()
    fields = {name for name in (*_LIMITS, "temperature", "response_format") if name in text}
    if "json_schema" in text:
        fields.add("response_format")
    named = error.get("param") if isinstance(error, Mapping) else None
    if isinstance(named, str) and named.partition(".")[0] in fields:
        fields = {named.partition(".")[0]}
    if _TOO_HIGH.search(text):
        fields -= set(_LIMITS)
    return fields


def merged(objects: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Returns the completion in a response: its only object, or its chunks put together."""
    if len(objects) == 1:
        return objects[0]
    pieces, reason, found = [], None, {}
    for chunk in objects:
        found |= {name: chunk[name] for name in ("error", "usage") if chunk.get(name)}
        if choice := mapping(next(iter(items(chunk.get("choices"))), None)):
            pieces.append(_said(choice))
            reason = choice.get("finish_reason") or reason
    if pieces:
        text, refusal = ("".join(piece) for piece in zip(*pieces))
        message = {"content": text, "refusal": refusal or None}
        found["choices"] = [{"message": message, "finish_reason": reason}]
    return found


def read(
    request: TeacherRequest, answer: Mapping[str, Any], worst: tuple[int, int]
) -> TeacherReply | None:
    """Returns the reply in a chat completion; None if it has neither a reply nor usage.

    Args:
      request: the question.
      answer: the parsed JSON.
      worst: the highest numbers of input and output tokens that can be billed, used if the usage is
        missing or impossible.
    """
    usage = mapping(answer.get("usage"))
    is_billed = any(usage.get(name) for name in _COUNTS)
    choices = [choice for choice in items(answer.get("choices")) if isinstance(choice, Mapping)]
    choice = next((c for c in choices if any(_said(c))), choices[0] if choices else {})
    text, refusal = _said(choice)
    error = answer.get("error") or choice.get("error")
    is_reply = bool(text or refusal or choice.get("finish_reason")) and not error
    if not is_billed and not is_reply:
        return None
    inputs, outputs = _billed(usage, bool(text)) or worst
    finish: Finish = "malformed"
    if is_reply and isinstance(_content(choice), _FORMS):
        finish = _finish(request, text, choice.get("finish_reason"), refusal)
    return TeacherReply(text or refusal or str(error or ""), inputs, outputs, finish)


def _billed(usage: Mapping[str, Any], is_said: bool) -> tuple[int, int] | None:
    """Returns the input and output tokens; None if the usage is missing or impossible.

    Some servers count the model's thoughts only in the total, and bill them as output.
    """
    inputs = tokens(usage.get("prompt_tokens", usage.get("input_tokens")))
    outputs = tokens(usage.get("completion_tokens", usage.get("output_tokens")))
    if not inputs or outputs is None or (is_said and not outputs):
        return None
    thoughts = tokens(mapping(usage.get("completion_tokens_details")).get("reasoning_tokens"))
    total = tokens(usage.get("total_tokens"))
    return inputs, max(outputs, thoughts or 0, (total or 0) - inputs)


def _finish(request: TeacherRequest, text: str, reason: Any, refusal: str) -> Finish:
    if refusal or reason == "content_filter":
        return "refused"
    if isinstance(reason, str) and reason.lower() in _CUT_OFF:
        return "length"
    if not text.strip():
        return "empty"
    if reason == "error":
        return "malformed"
    return finish_of(text) if request.structured else "stop"


def _content(choice: Mapping[str, Any]) -> Any:
    """Returns the content of a choice: a message, a chunk, or an older text completion."""
    message = choice.get("message") or choice.get("delta")
    if message is None:
        return choice.get("text")
    return message.get("content") if isinstance(message, Mapping) else message


def _said(choice: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the text of a choice and its refusal."""
    content = _content(choice)
    message = mapping(choice.get("message") or choice.get("delta"))
    parts = [_part(part) for part in items(content)]
    text = "".join(text for text, _ in parts)
    refusal = "".join(refusal for _, refusal in parts)
    if message.get("refusal"):
        refusal = str(message["refusal"])
    if not text and not refusal and isinstance(content, Mapping) and "type" not in content:
        text = json.dumps(content, ensure_ascii=False)  # The requested JSON, not as a string.
    if not isinstance(content, _FORMS):
        text = json.dumps(content)
    return text, refusal


def _part(part: Any) -> tuple[str, str]:
    """Returns the text and the refusal in a part of the content; thoughts have neither."""
    part = {"text": part} if isinstance(part, str) else mapping(part)
    text, refusal = part.get("text"), part.get("refusal")
    if part.get("thought"):
        return "", ""
    if isinstance(refusal, str):
        return "", refusal
    text = text.get("value") if isinstance(text, Mapping) else text
    is_text = part.get("type") in (None, "text", "output_text")
    return (text, "") if is_text and isinstance(text, str) else ("", "")
