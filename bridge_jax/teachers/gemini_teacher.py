"""Gemini, through `google-genai` or, for those who are pinned to it, `google-generativeai`."""

import functools
import importlib
import json
import logging
import threading
import warnings
from collections.abc import Callable
from typing import Any, Literal, Protocol

from bridge_jax.errors import UserError
from bridge_jax.teachers import calls
from bridge_jax.teachers.protocol import Finish, Reply, Request
from bridge_jax.teachers.structured import SCHEMA, is_malformed

Backend = Literal["google-genai", "google-generativeai"]

# What reading a GenerateContentResponse raises where it is none.
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)
_CONNECTIONS = threading.Lock()
_ANSWERED = {"STOP", "FINISH_REASON_UNSPECIFIED", ""}
# https://ai.google.dev/api/generate-content#FinishReason
_REFUSALS = {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE"}


class GeminiTeacher:
    """A teacher behind Gemini's generateContent. Nothing is read or opened before it is asked.

    Args:
      model: for messages; requests name their own.
      base_url: of a proxy; empty is Google's.
      timeout: seconds without a byte of an answer.
      backend: the SDK.
    """

    vendor = "gemini"

    def __init__(
        self,
        model: str,
        base_url: str = "",
        timeout: float = 120.0,
        backend: Backend = "google-genai",
    ):
        self.name = f"gemini/{model}"
        self._base_url, self._timeout, self._backend = base_url, timeout, backend

    @functools.cached_property
    def secret(self) -> calls.Secret:
        """The key."""
        variables = ["GEMINI_API_KEY", "GOOGLE_API_KEY"]
        return calls.Secret(variables, True, f"teacher {self.name}")

    @functools.cached_property
    def sdk(self) -> "_Sdk":
        """What makes the calls.

        Raises:
          UserError: the SDK is not installed, or there is no key.
        """
        make = {"google-genai": GoogleGenai, "google-generativeai": GoogleGenerativeai}
        try:
            return make[self._backend](self.secret.value, self._base_url, self._timeout)
        except ImportError:
            extra = {"google-genai": "gemini", "google-generativeai": "generativeai"}[self._backend]
            raise UserError(
                f"teacher.backend={self._backend} needs the SDK: pip install 'bridge-jax[{extra}]'"
            ) from None

    def check(self) -> None:
        """Raises a `UserError` if it cannot be asked; asks nothing."""
        with _CONNECTIONS:
            _ = self.sdk

    def estimate_input_tokens(self, request: Request) -> int:
        """Returns a bound of the input's tokens."""
        return calls.most_input_tokens(request)

    def ask(self, request: Request) -> Reply:
        """Returns the reply to one paid call.

        Raises:
          TeacherError: there is none.
        """
        self.check()
        answer = self.call(lambda: self.sdk.generate(request))
        try:
            return self.reply(request, answer if isinstance(answer, dict) else json.loads(answer))
        except UNREADABLE:
            said = str(answer)[:100]
            raise calls.lost(self.name, f"what it answered is no content: {said!r}") from None

    def call(self, make: Callable[[], Any]) -> Any:
        """Returns what `make` returns, its errors put into ours."""
        try:
            return make()
        except Exception as error:
            status, headers, body = self.sdk.refusal(error)
            if status:
                raise calls.refused(self.name, self.secret, status, headers, body) from None
            raise calls.broken(self.name, self.secret, error) or error from None

    def reply(self, request: Request, answer: dict[str, Any]) -> Reply:
        """Returns the reply in a GenerateContentResponse (JSON of the REST API).

        One without usage is taken at its worst case.
        """
        candidate = next(iter(answer.get("candidates") or [{}]))
        if not candidate and "promptFeedback" not in answer:
            raise KeyError("candidates")
        parts = (candidate.get("content") or {}).get("parts") or []
        text = "".join(part.get("text", "") for part in parts if not part.get("thought"))
        usage = answer.get("usageMetadata") or {}
        inputs, in_all = (usage.get(f"{of}TokenCount") or 0 for of in ("prompt", "total"))
        # Thoughts are billed as output, and are only in the total.
        outputs = in_all - inputs
        if not inputs or outputs < 0:
            inputs, outputs = self.estimate_input_tokens(request), request.max_output_tokens
        blocked = bool((answer.get("promptFeedback") or {}).get("blockReason"))
        reason = "SAFETY" if blocked else candidate.get("finishReason", "")
        return Reply(text, inputs, outputs, _finish(request, text, reason))


def _finish(request: Request, text: str, reason: str) -> Finish:
    if reason in _REFUSALS:
        return "refused"
    if reason == "MAX_TOKENS":
        return "length"
    if not text.strip():
        return "empty"
    unreadable = reason not in _ANSWERED or (request.structured and is_malformed(text))
    return "malformed" if unreadable else "stop"


Refusal = tuple[int, Any, Any]  # HTTP status (0: the error is of another kind), headers, body


class _Sdk(Protocol):
    def generate(self, request: Request) -> str | dict[str, Any]:
        """Returns a GenerateContentResponse as JSON, or its text."""
        ...

    def refusal(self, error: Any) -> Refusal:
        """Returns what the vendor said in an error of the SDK."""
        ...


class GoogleGenai:
    """The maintained SDK."""

    def __init__(self, key: str, base_url: str, timeout: float):
        from google import genai
        from google.genai import types

        httpx = _httpx()
        # Its 20 kept connections would be closed and opened all the time at a higher concurrency.
        limits = httpx.Limits(max_connections=1000, max_keepalive_connections=1000)
        self.client: Any = genai.Client(
            vertexai=False,
            api_key=key,
            http_options=types.HttpOptions(
                base_url=base_url or None,
                timeout=round(1000 * timeout),
                retry_options=types.HttpRetryOptions(attempts=1),  # `annotate` retries.
                client_args={"limits": limits},
            ),
        )
        self._errors: Any = genai.errors.APIError
        self._make_config = types.GenerateContentConfig
        self._configs: dict[tuple, Any] = {}

    def generate(self, request: Request) -> str:
        """Returns the response's text; parsing it here takes less time than the SDK's models."""
        system, contents = contents_of(request)
        response = self.client.models.generate_content(
            model=request.model, contents=contents, config=self._built(request, system)
        )
        return response.sdk_http_response.body

    def _built(self, request: Request, system: str) -> Any:
        """Returns the SDK's GenerateContentConfig; building it for each request takes time."""
        key = (system, request.max_output_tokens, request.temperature, request.structured)
        if key not in self._configs:
            self._configs[key] = self._make_config(**self.config(request, system))
        return self._configs[key]

    def config(self, request: Request, system: str) -> dict[str, Any]:
        """Returns the SDK's GenerateContentConfig as a dict."""
        config: dict[str, Any] = {
            "max_output_tokens": request.max_output_tokens,
            "automatic_function_calling": {"disable": True},
            "should_return_http_response": True,
        }
        if system:
            config["system_instruction"] = system
        if request.temperature is not None:
            config["temperature"] = request.temperature
        if request.structured:
            config |= {"response_mime_type": "application/json", "response_json_schema": SCHEMA}
        return config

    def refusal(self, error: Any) -> Refusal:
        """Returns the status, headers and body of an APIError."""
        if not isinstance(error, self._errors):
            return 0, {}, None
        return error.code, getattr(error.response, "headers", {}), error.details


class GoogleGenerativeai:
    """The retired SDK, over REST, where it says what became of a call as clearly as the other.

    It has one key and one address for the whole process.
    """

    def __init__(self, key: str, base_url: str, timeout: float):
        with warnings.catch_warnings():
            # It announces its end; those who ask for it know.
            warnings.simplefilter("ignore", FutureWarning)
            sdk: Any = importlib.import_module("google.generativeai")
            from google.api_core.exceptions import GoogleAPICallError
            from google.protobuf.json_format import ParseError

        # It keeps 10 connections and warns of every further one that it closes.
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        options = {"api_endpoint": base_url} if base_url else None
        sdk.configure(api_key=key, transport="rest", client_options=options)
        self._sdk, self._timeout = sdk, timeout
        self._errors: Any = GoogleAPICallError
        self._unreadable = ParseError

    def generate(self, request: Request) -> dict[str, Any]:
        """Returns the response as the REST API's JSON."""
        system, contents = contents_of(request)
        config: dict[str, Any] = {"max_output_tokens": request.max_output_tokens}
        if request.temperature is not None:
            config["temperature"] = request.temperature
        if request.structured:
            # Its schemas are an older subset.
            schema = {k: v for k, v in SCHEMA.items() if k != "additionalProperties"}
            config |= {"response_mime_type": "application/json", "response_schema": schema}
        model = self._sdk.GenerativeModel(request.model, system_instruction=system or None)
        try:
            response = model.generate_content(
                contents,
                generation_config=config,
                request_options={"timeout": self._timeout, "retry": None},
            )
        except self._unreadable:
            return {}
        usage = response.usage_metadata
        return {
            "candidates": [
                {
                    "content": {"parts": [{"text": part.text} for part in c.content.parts]},
                    "finishReason": getattr(c.finish_reason, "name", "OTHER"),
                }
                for c in response.candidates
            ],
            "promptFeedback": {"blockReason": int(response.prompt_feedback.block_reason)},
            "usageMetadata": {
                "promptTokenCount": usage.prompt_token_count,
                "totalTokenCount": usage.total_token_count,
            },
        }

    def refusal(self, error: Any) -> Refusal:
        """Returns the status, headers and body of a GoogleAPICallError."""
        if not isinstance(error, self._errors) or error.response is None:
            return 0, {}, None
        try:
            body = error.response.json()
        except ValueError:
            body = error.message
        return int(error.code or 0), error.response.headers, body


def contents_of(request: Request) -> tuple[str, list[dict[str, Any]]]:
    """Returns the system instruction and the turns in Gemini's form."""
    system = "\n\n".join(m.content for m in request.messages if m.role == "system")
    roles = {"user": "user", "assistant": "model"}
    turns = [
        {"role": roles[m.role], "parts": [{"text": m.content}]}
        for m in request.messages
        if m.role != "system"
    ]
    return system, turns


def _httpx() -> Any:
    """Returns the HTTP library of the SDK: `httpx2` since 3.3, `httpx` before."""
    try:
        return importlib.import_module("httpx2")
    except ImportError:
        return importlib.import_module("httpx")
