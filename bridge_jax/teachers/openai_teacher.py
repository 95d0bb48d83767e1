"""GPT, and every server that speaks OpenAI's protocol (vLLM, SGLang, JetStream).

Requests go through the SDK's `post`, not through its typed `create`: it builds and checks the same
JSON at half the processor time, which counts at hundreds of answers a second.
"""

import contextlib
import functools
import json
from collections.abc import Iterator
from typing import Any

from bridge_jax.errors import UserError
from bridge_jax.teachers import calls
from bridge_jax.teachers.protocol import Finish, Reply, Request
from bridge_jax.teachers.structured import SCHEMA, finish_of

# What reading a chat completion raises where it is none.
UNREADABLE = (ValueError, KeyError, TypeError, IndexError, AttributeError)


class OpenAITeacher:
    """A teacher behind OpenAI's chat completions. Nothing is read or opened before it is asked.

    Args:
      model: for messages; requests name their own.
      base_url: of a compatible server, such as http://localhost:8000/v1; empty is OpenAI's, or what
        the SDK finds in OPENAI_BASE_URL.
      timeout: seconds without a byte of an answer.
    """

    vendor = "openai"

    def __init__(self, model: str, base_url: str = "", timeout: float = 120.0):
        self.name = f"openai/{model}"
        self._base_url, self._timeout = base_url, timeout

    @functools.cached_property
    def secret(self) -> calls.Secret:
        """The key; a server of one's own may need none."""
        return calls.Secret(["OPENAI_API_KEY"], not self._base_url, f"teacher {self.name}")

    @functools.cached_property
    def client(self) -> Any:
        """The SDK's client, for one event loop.

        Over aiohttp, which takes two thirds of the processor time of the SDK's default.

        Raises:
          UserError: the SDK is not installed, or there is no key.
        """
        sdk = self.sdk()
        return sdk.AsyncOpenAI(**self.settings(), http_client=sdk.DefaultAioHttpClient())

    def sdk(self) -> Any:
        """Returns the SDK's module.

        Raises:
          UserError: it is not installed.
        """
        try:
            import aiohttp  # noqa: F401 - what the SDK needs for DefaultAioHttpClient
            import openai
        except ImportError:
            raise UserError(
                "teacher.kind=openai needs the SDK: pip install 'bridge-jax[openai]'"
            ) from None
        return openai

    def settings(self) -> dict[str, Any]:
        """Returns what the SDK's clients are made with.

        Raises:
          UserError: there is no key.
        """
        return {
            "api_key": self.secret.value or "none",
            "base_url": self._base_url or None,
            "timeout": self._timeout,
            "max_retries": 0,  # `annotate` retries, and the ledger knows of it.
        }

    def check(self) -> None:
        """Raises a `UserError` if it cannot be asked; asks nothing."""
        _ = self.client

    def estimate_input_tokens(self, request: Request) -> int:
        """Returns a bound of the input's tokens."""
        return calls.most_input_tokens(request)

    async def ask(self, request: Request) -> Reply:
        """Returns the reply to one paid call.

        Raises:
          TeacherError: there is none.
        """
        body = self.body(request)
        with self.explained():
            text = await self.client.post("/chat/completions", cast_to=str, body=body)
        try:
            return self.reply(request, json.loads(text))
        except UNREADABLE:
            said = f"what it answered is no chat completion: {text[:100]!r}"
            raise calls.lost(self.name, said) from None

    async def aclose(self) -> None:
        """Closes the connections of this event loop; asked again, it opens others."""
        if client := self.__dict__.pop("client", None):
            await client.close()

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Puts errors of the SDK into ours."""
        try:
            yield
        except self.sdk().APIStatusError as error:
            status, headers = error.status_code, error.response.headers
            raise calls.refused(self.name, self.secret, status, headers, error.body) from None
        except Exception as error:
            raise calls.broken(self.name, self.secret, error) or error from None

    def body(self, request: Request) -> dict[str, Any]:
        """Returns the JSON of a request."""
        # OpenAI's reasoning models know only the first name, older servers only the second.
        limit = "max_tokens" if self._base_url else "max_completion_tokens"
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            limit: request.max_output_tokens,
        }
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.structured:
            schema = {"name": "rationale_and_answer", "strict": True, "schema": SCHEMA}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def reply(self, request: Request, completion: dict[str, Any]) -> Reply:
        """Returns the reply in a chat completion. One without usage is taken at its worst case."""
        choice = completion["choices"][0]
        message, usage = choice["message"], completion.get("usage") or {}
        text, reason = message.get("content") or "", choice.get("finish_reason")
        inputs, outputs = usage.get("prompt_tokens") or 0, usage.get("completion_tokens")
        if not inputs or outputs is None:
            inputs, outputs = self.estimate_input_tokens(request), request.max_output_tokens
        return Reply(
            text or message.get("refusal") or "",
            inputs,
            outputs,
            _finish(request, text, reason, message.get("refusal")),
        )


def _finish(request: Request, text: str, reason: str | None, refusal: str | None) -> Finish:
    if refusal or reason == "content_filter":
        return "refused"
    if reason == "length":
        return "length"
    if not text.strip():
        return "empty"
    return finish_of(text) if request.structured else "stop"
