"""Replies as JSON with a rationale and an answer, for models that can; a tolerant reader for all.

The rationale comes first in the schema: what a model writes before the answer can serve it.
"""

import json
import re
from typing import Any

from bridge_jax.tasks.answers import ANSWER_MARK

# Of OpenAI's `strict` subset of JSON schema, which Gemini reads too.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"rationale": {"type": "string"}, "answer": {"type": "string"}},
    "required": ["rationale", "answer"],
    "additionalProperties": False,
}
SCHEMA_BYTES = len(json.dumps(SCHEMA))

_FENCE = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)


def read_json(text: str) -> tuple[str, str] | None:
    """Returns (rationale, answer) of a JSON object in `text`, None where there is none.

    The object may stand in a code fence or between sentences, and its answer may be a number.
    """
    for candidate in (text, *(found[1] for found in _FENCE.finditer(text))):
        start, end = candidate.find("{"), candidate.rfind("}")
        try:
            value = json.loads(candidate[start : end + 1], strict=False)
        except json.JSONDecodeError:
            continue
        rationale, answer = value.get("rationale"), value.get("answer")
        if isinstance(answer, int | float) and not isinstance(answer, bool):
            answer = json.dumps(answer)
        if isinstance(rationale, str) and isinstance(answer, str):
            return rationale.strip(), answer.strip()
    return None


def is_malformed(text: str) -> bool:
    """Whether a reply that should be JSON holds neither that nor an `Answer:` line."""
    return read_json(text) is None and ANSWER_MARK not in text
