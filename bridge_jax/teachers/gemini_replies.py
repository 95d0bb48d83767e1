"""Reads Gemini's GenerateContentResponse (JSON of the REST API), whatever it looks like.

What bills is a reply: at worst it is malformed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bridge_jax.teachers.protocol import Finish, Reply, Request
from bridge_jax.teachers.structured import finish_of
from bridge_jax.teachers.wire import items, mapping, tokens

_ANSWERED = {"STOP", "FINISH_REASON_UNSPECIFIED", ""}
# https://ai.google.dev/api/generate-content#FinishReason
_REFUSALS = {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE"}
_COUNTS = ("promptTokenCount", "candidatesTokenCount", "totalTokenCount")


def merged(objects: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Returns the response: the only object, or the sum of a stream's."""
    if len(objects) == 1:
        return objects[0]
    found: dict[str, Any] = {}
    parts: list[Any] = []
    reason = None
    for chunk in objects:
        names = ("error", "usageMetadata", "promptFeedback")
        found |= {name: chunk[name] for name in names if chunk.get(name)}
        candidate = _candidate(chunk)
        parts += _parts(candidate)
        reason = candidate.get("finishReason") or reason
        if candidate:
            found["candidates"] = [{"content": {"parts": parts}, "finishReason": reason}]
    return found


def read(request: Request, answer: Mapping[str, Any], worst: tuple[int, int]) -> Reply | None:
    """Returns the reply in a response; None if there is none, nor any usage.

    Args:
      request: what was asked.
      answer: the parsed JSON.
      worst: the tokens, of input and output, that are billed at most. They are taken where the
        usage is missing or cannot be.
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
    # Thoughts are billed as output, and are only in the total.
    if inputs and total is not None and total >= inputs:
        counts = (inputs, total - inputs)
    else:
        counts = worst
    text = "".join(_text(part) for part in _parts(candidate))
    reason = "SAFETY" if feedback.get("blockReason") else str(candidate.get("finishReason") or "")
    finish = _finish(request, text, reason) if is_reply else "malformed"
    return Reply(text or str(error or ""), *counts, finish)


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


def _candidate(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the first candidate, empty if there is none."""
    found = [item for item in items(answer.get("candidates")) if isinstance(item, Mapping)]
    return found[0] if found else {}


def _parts(candidate: Mapping[str, Any]) -> list[Any]:
    content = candidate.get("content")
    return items(content.get("parts")) if isinstance(content, Mapping) else items(content)


def _text(part: Any) -> str:
    """Returns the text of a part; thoughts, and parts that are no text, have none."""
    if isinstance(part, str):
        return part
    part = mapping(part)
    text = part.get("text")
    return text if isinstance(text, str) and not part.get("thought") else ""
