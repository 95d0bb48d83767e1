"""GPT, and every server that speaks OpenAI's protocol (vLLM, SGLang, JetStream).

Requests go through the SDK's `post`, not through its typed `create`: it builds and checks the same
JSON at half the processor time, which counts at hundreds of answers a second.
"""

import contextlib
import functools
import os
from collections.abc import Mapping
from typing import Any

from bridge_jax.errors import UserError
from bridge_jax.teachers import calls, openai_replies, wire
from bridge_jax.teachers.openai_dialect import Dialect
from bridge_jax.teachers.protocol import Reply, Request
from bridge_jax.teachers.secret import Secret


class OpenAITeacher:
    """A teacher behind OpenAI's chat completions. Nothing is read or opened before it is asked.

    Args:
      model: for messages; requests name their own.
      base_url: of a compatible server, such as http://localhost:8000/v1; empty is OpenAI's, or what
        the SDK finds in OPENAI_BASE_URL.
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

    def _first_dialect(self) -> Dialect:
        """Returns what is tried first."""
        # OpenAI's reasoning models know only the second name, older servers only the first.
        return Dialect(self.name, "max_tokens" if self._base_url else "max_completion_tokens")

    @functools.cached_property
    def secret(self) -> Secret:
        """The key; a server of one's own may need none."""
        return Secret(["OPENAI_API_KEY"], not self._base_url, f"teacher {self.name}")

    @functools.cached_property
    def client(self) -> Any:
        """The SDK's client, for one event loop.

        Over aiohttp, which takes two thirds of the processor time of the SDK's default.

        Raises:
          UserError: the SDK is not installed, or there is no key.
        """
        sdk = self.sdk()
        hooks = {"response": [_read_as_utf8]}
        http = sdk.DefaultAioHttpClient(follow_redirects=False, event_hooks=hooks)
        return sdk.AsyncOpenAI(**self.settings(), http_client=http)

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
          UserError: there is no key, or it would not be safe on its way.
        """
        url = self._base_url or os.environ.get("OPENAI_BASE_URL", "")
        calls.may_send_key(self.name, self.secret, url, self._allow_http)
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
                except self.sdk().APIStatusError as error:
                    if not self._dialect.learn(body, *_status_and_body(error)):
                        raise
            try:
                answer = openai_replies.merged(wire.objects(text))
            except wire.Unreadable as error:
                raise calls.unusable(self.name, self.secret, f"{text[:500]} ({error})") from None
            return self.reply(request, answer)

    async def aclose(self) -> None:
        """Closes the connections of this event loop; asked again, it opens others."""
        if client := self.__dict__.pop("client", None):
            await client.close()

    def explained(self, *unreadable: type[Exception]) -> contextlib.AbstractContextManager[None]:
        """Puts errors of the SDK into ours; nothing that leaves holds the key.

        Args:
          *unreadable: what the SDK raises inside where it cannot read an answer.
        """
        return calls.boundary(self.name, self.secret, self._refusal, unreadable)

    def _refusal(self, error: Any) -> calls.Refusal | None:
        if not isinstance(error, self.sdk().APIStatusError):
            return None
        status, body = _status_and_body(error)
        return status, error.response.headers, body

    def body(self, request: Request) -> dict[str, Any]:
        """Returns the JSON of a request, in the form that the server has not refused yet."""
        return self._dialect.body(request)

    def reply(self, request: Request, answer: Mapping[str, Any]) -> Reply:
        """Returns the reply in a chat completion, without the key.

        One without usage, or with usage that cannot be, is taken at its worst case.

        Raises:
          TeacherError: there is no reply, and nothing that says it is billed.
        """
        worst = (self.estimate_input_tokens(request), request.max_output_tokens)
        found = openai_replies.read(request, answer, worst)
        if found is None:
            raise calls.no_reply(self.name, self.secret, answer)
        return self.secret.reply(found)


async def _read_as_utf8(response: Any) -> None:
    """Makes the SDK read a response as JSON is written, whatever charset its header claims."""
    response.encoding = "utf-8"


def _status_and_body(error: Any) -> tuple[int, Any]:
    """Returns what an APIStatusError of the SDK holds; the body as JSON, or else as text."""
    text = error.response.text
    try:
        return error.status_code, wire.parsed(text)
    except wire.Unreadable:
        return error.status_code, text
