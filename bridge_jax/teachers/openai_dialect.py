"""Learns which fields of a request a server accepts from its refusals, which cost nothing.

OpenAI's reasoning models know `max_completion_tokens` alone and one temperature, older servers
`max_tokens` alone, and some no schemas. What was learned holds for the rest of the run. The
ledger's key of a request does not depend on it.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

from bridge_jax.teachers.protocol import Request
from bridge_jax.teachers.structured import SCHEMA

_LIMITS = ("max_tokens", "max_completion_tokens")
# How servers say that they do not know a field, or not with any value but their own.
_UNKNOWN = (
    *("unsupported", "not support", "n't support", "unrecognized", "unknown", "unexpected"),
    *("not permitted", "not allowed", "extra_forbidden", "no longer", "deprecated"),
    *("not available", "only the default"),
)
# How they say that the value is too high. Under its other name the limit might be ignored.
_TOO_HIGH = ("too large", "too long", "too high", "exceed", "at most", "context length", "maximum")
# What of a refusal is read.
_LONGEST = 4000

_log = logging.getLogger(__name__)


class Dialect:
    """What one server is sent.

    Args:
      teacher: its name, for messages.
      limit: the name of the longest reply's field that is tried first.
    """

    def __init__(self, teacher: str, limit: str):
        self._teacher, self._limit = teacher, limit
        self._refused: set[str] = set()

    def copy(self) -> "Dialect":
        """Returns the dialect as it is now."""
        copied = Dialect(self._teacher, self._limit)
        copied._refused |= self._refused
        return copied

    def body(self, request: Request) -> dict[str, Any]:
        """Returns the JSON of a request, without what the server has refused."""
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            self._name_of_limit(): request.max_output_tokens,
        }
        if request.temperature is not None and "temperature" not in self._refused:
            body["temperature"] = request.temperature
        # The prompt asks for JSON all the same, and the reader of replies takes other text too.
        if request.structured and "response_format" not in self._refused:
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
        for name in sorted(unknown - self._refused):
            self._refused.add(name)
            if name in _LIMITS:
                _log.warning("%s refuses %s: the other name is tried", self._teacher, name)
            else:
                _log.warning("%s refuses %s: it is asked without", self._teacher, name)
        # Another call may have learned of it while this one was on its way.
        limit = self._name_of_limit()
        return any(name in self._refused and name != limit for name in unknown)

    def _name_of_limit(self) -> str:
        """Returns the field's name that is not refused; the first one if both are."""
        names = sorted(_LIMITS, key=lambda name: name != self._limit)
        return next((name for name in names if name not in self._refused), names[0])


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
