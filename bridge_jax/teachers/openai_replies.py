"""Reads chat completions as the servers that speak OpenAI's protocol write them.

Content may be a list of parts, some of which are the model's thoughts; a completion may come as an
event stream that nobody asked for, or as that of the older completions. What bills is a reply,
whatever it looks like: at worst it is malformed.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bridge_jax.teachers.protocol import Finish, Reply, Request
from bridge_jax.teachers.structured import finish_of
from bridge_jax.teachers.wire import items, mapping, tokens

_TEXT = {"text", "output_text"}
_CUT_OFF = {"length", "max_tokens", "max_output_tokens", "model_length"}
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens")


def merged(objects: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Returns the completion that a response holds: its only object, or the sum of its chunks."""
    if len(objects) == 1:
        return objects[0]
    text, refusal, reason, found = "", "", None, {}
    for chunk in objects:
        found |= {name: chunk[name] for name in ("error", "usage") if chunk.get(name)}
        choice = mapping(next(iter(items(chunk.get("choices"))), None))
        more, no = _said(choice)
        text, refusal = text + more, refusal + no
        reason = choice.get("finish_reason") or reason
        if choice:
            message = {"content": text, "refusal": refusal or None}
            found["choices"] = [{"message": message, "finish_reason": reason}]
    return found


def read(request: Request, answer: Mapping[str, Any], worst: tuple[int, int]) -> Reply | None:
    """Returns the reply in a chat completion; None if there is none, nor any usage.

    Args:
      request: what was asked.
      answer: the parsed JSON.
      worst: the tokens, of input and output, that are billed at most. They are taken where the
        usage is missing or cannot be.
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
    if is_reply and _is_content(choice):
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


def _is_content(choice: Mapping[str, Any]) -> bool:
    """Whether content has a form that text can have."""
    content = _content(choice)
    return content is None or isinstance(content, str | list | Mapping)


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
    if not isinstance(content, list | Mapping | str | None):
        text = json.dumps(content)
    return text, refusal


def _part(part: Any) -> tuple[str, str]:
    """Returns the text and the refusal of a part of the content; thoughts have neither."""
    if isinstance(part, str):
        return part, ""
    part = mapping(part)
    if part.get("thought"):
        return "", ""
    kind = part.get("type")
    if isinstance(part.get("refusal"), str):
        return "", part["refusal"]
    text = part.get("text")
    text = text.get("value") if isinstance(text, Mapping) else text
    is_text = kind is None or (isinstance(kind, str) and kind in _TEXT)
    return (text, "") if is_text and isinstance(text, str) else ("", "")
