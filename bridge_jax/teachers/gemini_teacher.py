"""Gemini, through `google-genai` or, for those who are pinned to it, `google-generativeai`."""

import contextlib
import functools
import json
from collections.abc import Iterator
from typing import Any, Literal

from bridge_jax.errors import UserError
from bridge_jax.teachers import calls
from bridge_jax.teachers.gemini_sdks import GoogleGenai, GoogleGenerativeai, Sdk
from bridge_jax.teachers.protocol import Finish, Reply, Request
from bridge_jax.teachers.structured import finish_of

Backend = Literal["google-genai", "google-generativeai"]

# What reading a GenerateContentResponse raises where it is none.
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)
_ANSWERED = {"STOP", "FINISH_REASON_UNSPECIFIED", ""}
# https://ai.google.dev/api/generate-content#FinishReason
_REFUSALS = {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE"}


class GeminiTeacher:
    """A teacher behind Gemini's generateContent. Nothing is read or opened before it is asked.

    Args:
      model: for messages; requests name their own.
      base_url: of a proxy; empty is Google's.
      timeout: seconds for an answer, which comes in one piece.
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
    def sdk(self) -> Sdk:
        """What makes the calls of one event loop.

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
            answer = await self.sdk.generate(request)
        try:
            return self.reply(request, answer if isinstance(answer, dict) else json.loads(answer))
        except UNREADABLE:
            said = str(answer)[:100]
            raise calls.lost(self.name, f"what it answered is no content: {said!r}") from None

    async def aclose(self) -> None:
        """Closes the connections of this event loop; asked again, it opens others."""
        if sdk := self.__dict__.pop("sdk", None):
            await sdk.aclose()

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Puts errors of the SDK into ours."""
        try:
            yield
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
    if reason not in _ANSWERED:
        return "malformed"
    return finish_of(text) if request.structured else "stop"
