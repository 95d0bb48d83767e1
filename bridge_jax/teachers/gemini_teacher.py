"""Gemini, through `google-genai` or, for those who are pinned to it, `google-generativeai`."""

import contextlib
import functools
import os
from collections.abc import Mapping
from typing import Any, Literal

from bridge_jax.errors import UserError
from bridge_jax.teachers import calls, gemini_replies, wire
from bridge_jax.teachers.gemini_sdks import GoogleGenai, GoogleGenerativeai, Sdk
from bridge_jax.teachers.protocol import Reply, Request
from bridge_jax.teachers.secret import Secret

Backend = Literal["google-genai", "google-generativeai"]


class GeminiTeacher:
    """A teacher behind Gemini's generateContent. Nothing is read or opened before it is asked.

    Args:
      model: for messages; requests name their own.
      base_url: of a proxy; empty is Google's.
      timeout: seconds for an answer, which comes in one piece.
      backend: the SDK.
      allow_http: whether the key may go over plain http to another machine.
    """

    vendor = "gemini"

    def __init__(
        self,
        model: str,
        base_url: str = "",
        timeout: float = 120.0,
        backend: Backend = "google-genai",
        allow_http: bool = False,
    ):
        self.name = f"gemini/{model}"
        self._base_url, self._timeout, self._backend = base_url, timeout, backend
        self._allow_http = allow_http

    @functools.cached_property
    def secret(self) -> Secret:
        """The key."""
        variables = ["GEMINI_API_KEY", "GOOGLE_API_KEY"]
        return Secret(variables, True, f"teacher {self.name}")

    @functools.cached_property
    def sdk(self) -> Sdk:
        """What makes the calls of one event loop.

        Raises:
          UserError: the SDK is not installed, there is no key, or it would not be safe on its way.
        """
        url = self._base_url or os.environ.get("GOOGLE_GEMINI_BASE_URL", "")
        calls.may_send_key(self.name, self.secret, url, self._allow_http)
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
        _ = self.sdk

    def estimate_input_tokens(self, request: Request) -> int:
        """Returns a bound of the input's tokens."""
        return calls.most_input_tokens(request)

    async def ask(self, request: Request) -> Reply:
        """Returns the reply to one paid call.

        Raises:
          TeacherError: there is none.
        """
        with self.explained():
            body = await self.sdk.generate(request)
            try:
                answer = gemini_replies.merged(wire.objects(body))
            except wire.Unreadable as error:
                text = body[:500] if isinstance(body, str) else body[:500].decode(errors="replace")
                raise calls.unusable(self.name, self.secret, f"{text} ({error})") from None
            return self.reply(request, answer)

    async def aclose(self) -> None:
        """Closes the connections of this event loop; asked again, it opens others."""
        if sdk := self.__dict__.pop("sdk", None):
            await sdk.aclose()

    def explained(self, *unreadable: type[Exception]) -> contextlib.AbstractContextManager[None]:
        """Puts errors of the SDK into ours; nothing that leaves holds the key.

        Args:
          *unreadable: what the SDK raises inside where it cannot read an answer.
        """
        return calls.boundary(
            self.name, self.secret, lambda error: self.sdk.refusal(error), unreadable
        )

    def reply(self, request: Request, answer: Mapping[str, Any]) -> Reply:
        """Returns the reply in a GenerateContentResponse (JSON of the REST API), without the key.

        One without usage, or with usage that cannot be, is taken at its worst case.

        Raises:
          TeacherError: there is no reply, and nothing that says it is billed.
        """
        worst = (self.estimate_input_tokens(request), request.max_output_tokens)
        found = gemini_replies.read(request, answer, worst)
        if found is None:
            raise calls.no_reply(self.name, self.secret, answer)
        return self.secret.reply(found)
