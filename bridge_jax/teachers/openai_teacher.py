"""GPT, and every server that speaks OpenAI's protocol (vLLM, SGLang, JetStream).

Requests go through the SDK's `post`, not through its typed `create`: it builds and checks the same
JSON at half the processor time, which counts at hundreds of answers a second.

Servers differ in the fields that they take. OpenAI's reasoning models know `max_completion_tokens`
alone and one temperature, older servers `max_tokens` alone, and some no schemas. A refusal costs
nothing, so the first ones teach a `Dialect` for the rest of the run; a request's key in the ledger
does not depend on it. Servers differ in their answers too: content may be a list of parts, some of
them thoughts, and a completion may come as an event stream, or as one of the older completions.
Whatever is billed is a reply, at worst a malformed one.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from bridge_jax.errors import UserError
from bridge_jax.ledger.requests import Finish, Reply, Request
from bridge_jax.teachers import http
from bridge_jax.teachers.http import HttpErrors, items, mapping, tokens
from bridge_jax.teachers.replies import SCHEMA, finish_of
from bridge_jax.teachers.secret import Secret

_log = logging.getLogger(__name__)

_LIMITS = ("max_tokens", "max_completion_tokens")
# How servers say that they do not know a field, or not with any value but their own.
_UNKNOWN = (
    "unsupported", "not support", "n't support", "unrecognized", "unknown", "unexpected",
    "not permitted", "not allowed", "extra_forbidden", "no longer", "deprecated",
    "not available", "only the default",
)  # fmt: skip
# How they say that the value is too high. Under its other name the limit might be ignored.
_TOO_HIGH = ("too large", "too long", "too high", "exceed", "at most", "context length", "maximum")
_LONGEST = 4000  # Characters of a refusal that are read.

_FORMS = str | list | Mapping | None  # Of content that may hold text.
_CUT_OFF = {"length", "max_tokens", "max_output_tokens", "model_length"}
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens")


class OpenAITeacher:
    """A teacher that answers OpenAI's chat completions. It reads and opens nothing until asked.

    Args:
      model: for messages; requests name their own.
      base_url: of a compatible server, such as http://localhost:8000/v1; empty is OpenAI's, or the
        one that the SDK finds in OPENAI_BASE_URL.
      timeout: seconds without a byte of an answer.
      allow_http: whether a key may go over plain http to another machine.
    """

    vendor = "openai"

    def __init__(
        self, model: str, base_url: str = "", timeout: float = 120.0, allow_http: bool = False
    ):
        self.name = f"openai/{model}"
        self._base_url, self._timeout, self._allow_http = base_url, timeout, allow_http
        self._dialect = self._first_dialect()

    def _first_dialect(self) -> "Dialect":
        # OpenAI's reasoning models know only the second name, older servers only the first.
        return Dialect(self.name, "max_tokens" if self._base_url else "max_completion_tokens")

    @functools.cached_property
    def secret(self) -> Secret:
        """The key; another server than OpenAI's may need none."""
        return Secret(["OPENAI_API_KEY"], not self._base_url, f"teacher {self.name}")

    @functools.cached_property
    def errors(self) -> HttpErrors:
        """Turns errors of calls into `TeacherError`s."""
        return HttpErrors(self.name, self.secret)

    @functools.cached_property
    def sdk(self) -> Any:
        """The SDK's module.

        Raises:
          UserError: it is not installed.
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

        It uses aiohttp, which takes two thirds of the processor time of the SDK's default.

        Raises:
          UserError: the SDK is not installed, or there is no key.
        """
        hooks = {"response": [_read_as_utf8]}
        client = self.sdk.DefaultAioHttpClient(follow_redirects=False, event_hooks=hooks)
        return self.sdk.AsyncOpenAI(**self._settings(), http_client=client)

    def _settings(self) -> dict[str, Any]:
        """Returns the arguments of the SDK's clients.

        Raises:
          UserError: there is no key, or it would not be safe on its way.
        """
        url = self._base_url or os.environ.get("OPENAI_BASE_URL", "")
        http.may_send_key(self.name, self.secret, url, self._allow_http)
        return {
            "api_key": self.secret.value or "none",
            "base_url": self._base_url or None,
            "timeout": self._timeout,
            "max_retries": 0,  # `annotate` retries, through the ledger.
        }

    def check(self) -> None:
        """Raises a `UserError` if it cannot be asked; sends nothing."""
        _ = self.client

    def estimate_input_tokens(self, request: Request) -> int:
        """Returns a bound of the input's tokens."""
        return http.worst_case(request)[0]

    async def ask(self, request: Request) -> Reply:
        """Returns the reply to one paid call.

        A call that is refused for the form of the request costs nothing, and is made again in
        another form.

        Raises:
          TeacherError: there is none.
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

    async def aclose(self) -> None:
        """Closes the connections of this event loop; asked again, it opens others."""
        if client := self.__dict__.pop("client", None):
            await client.close()

    def explained(self, *unreadable: type[Exception]) -> contextlib.AbstractContextManager[None]:
        """Returns `HttpErrors.boundary` for the SDK's errors.

        Args:
          *unreadable: errors that the SDK raises inside where it cannot read an answer.
        """
        return self.errors.boundary(self._refusal, unreadable)

    def _refusal(self, error: Any) -> http.Refusal | None:
        if not isinstance(error, self.sdk.APIStatusError):
            return None
        response = error.response
        return error.status_code, response.headers, http.json_or_text(response.text)

    def body(self, request: Request) -> dict[str, Any]:
        """Returns the JSON of a request, in the form that the server has not refused yet."""
        return self._dialect.body(request)

    def reply(self, request: Request, answer: Mapping[str, Any]) -> Reply:
        """Returns the reply in a chat completion, without the key.

        One without usage, or with impossible usage, is taken at its worst case.

        Raises:
          TeacherError: there is no reply, and nothing that says that it is billed.
        """
        return self.errors.reply(read(request, answer, http.worst_case(request)), answer)


async def _read_as_utf8(response: Any) -> None:
    """Makes the SDK read a response as JSON is written, whatever charset its header claims."""
    response.encoding = "utf-8"


@dataclasses.dataclass
class Dialect:
    """The fields of a request that one server takes, learned from its refusals.

    Attributes:
      teacher: its name, for messages.
      limit: the name of the limit of a reply's tokens that is tried first.
      refused: fields that the server has refused.
    """

    teacher: str
    limit: str
    refused: set[str] = dataclasses.field(default_factory=set)

    def body(self, request: Request) -> dict[str, Any]:
        """Returns the JSON of a request, without the fields that the server has refused."""
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            self._name_of_limit(): request.max_output_tokens,
        }
        if request.temperature is not None and "temperature" not in self.refused:
            body["temperature"] = request.temperature
        # The prompt asks for JSON all the same, and other text is read too.
        if request.structured and "response_format" not in self.refused:
            schema = {"name": "rationale_and_answer", "strict": True, "schema": SCHEMA}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def learn(self, sent: Mapping[str, Any], status: int, refusal: Any) -> bool:
        """Learns from a refusal; returns whether it is worth sending the request again.

        Args:
          sent: the refused body.
          status: of HTTP.
          refusal: the JSON, or the text, of the answer.
        """
        if status not in (400, 422):
            return False
        unknown = {name for name in _fields_refused(refusal) if name in sent}
        for name in sorted(unknown - self.refused):
            self.refused.add(name)
            instead = "its other name is tried" if name in _LIMITS else "it is left out"
            _log.warning("%s refuses %s: %s", self.teacher, name, instead)
        # Another call may have taught it while this one was on its way.
        limit = self._name_of_limit()
        return any(name in self.refused and name != limit for name in unknown)

    def _name_of_limit(self) -> str:
        """Returns the limit's name that is not refused; the first one if both are."""
        names = sorted(_LIMITS, key=lambda name: name != self.limit)
        return next((name for name in names if name not in self.refused), names[0])


def _fields_refused(refusal: Any) -> set[str]:
    """Returns the fields that a refusal says the server does not take."""
    error = refusal.get("error", refusal) if isinstance(refusal, Mapping) else refusal
    text = (error if isinstance(error, str) else json.dumps(error))[:_LONGEST].lower()
    if not any(word in text for word in _UNKNOWN):
        return set()
    fields = {name for name in (*_LIMITS, "temperature", "response_format") if name in text}
    if "json_schema" in text:
        fields.add("response_format")
    named = error.get("param") if isinstance(error, Mapping) else None
    if isinstance(named, str) and named.partition(".")[0] in fields:
        fields = {named.partition(".")[0]}
    if any(word in text for word in _TOO_HIGH):
        fields -= set(_LIMITS)
    return fields


def merged(objects: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Returns the completion that a response holds: its only object, or the sum of its chunks."""
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


def read(request: Request, answer: Mapping[str, Any], worst: tuple[int, int]) -> Reply | None:
    """Returns the reply in a chat completion; None if there is none, nor any usage.

    Args:
      request: the question.
      answer: the parsed JSON.
      worst: the highest counts of tokens, of input and output, that can be billed. They are taken
        where the usage is missing or impossible.
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
    return Reply(text or refusal or str(error or ""), inputs, outputs, finish)


def _billed(usage: Mapping[str, Any], is_said: bool) -> tuple[int, int] | None:
    """Returns the tokens of input and output; None if the usage is missing or impossible.

    Some servers count the model's thoughts in the total alone, and bill them as output.
    """
    inputs = tokens(usage.get("prompt_tokens", usage.get("input_tokens")))
    outputs = tokens(usage.get("completion_tokens", usage.get("output_tokens")))
    if not inputs or outputs is None or (is_said and not outputs):
        return None
    thoughts = tokens(mapping(usage.get("completion_tokens_details")).get("reasoning_tokens"))
    total = tokens(usage.get("total_tokens"))
    return inputs, max(outputs, thoughts or 0, (total or 0) - inputs)


def _finish(request: Request, text: str, reason: Any, refusal: str) -> Finish:
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
    """Returns the content of a choice: of a message, of a chunk, or of the older completions."""
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
        text = json.dumps(content, ensure_ascii=False)  # The object that was asked for, unquoted.
    if not isinstance(content, _FORMS):
        text = json.dumps(content)
    return text, refusal


def _part(part: Any) -> tuple[str, str]:
    """Returns the text and the refusal of a part of the content; thoughts have neither."""
    part = {"text": part} if isinstance(part, str) else mapping(part)
    text, refusal = part.get("text"), part.get("refusal")
    if part.get("thought"):
        return "", ""
    if isinstance(refusal, str):
        return "", refusal
    text = text.get("value") if isinstance(text, Mapping) else text
    is_text = part.get("type") in (None, "text", "output_text")
    return (text, "") if is_text and isinstance(text, str) else ("", "")
