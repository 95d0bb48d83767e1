"""Replays recorded replies of programs, LLMs and earlier runs. No key is needed.

Tokens are counted unless the record states them, so that budgets and prices are those of a real
run. The replies come from one of three sources:

- The examples: rationales that a program wrote for a practice task, or an LLM for a data set.
- The *ledger* of a run, which answers exactly the requests that it holds. With the config of the
  recorded run, every later stage gets the same bytes, at the same recorded token counts.
- A *JSONL* file, which answers by example id, whatever the prompt: rows of `id` and `reply`, or of
  `id`, `rationale` and `answer` as in a run's `annotations.jsonl`; with `input_tokens`,
  `output_tokens` and `finish` if they are known.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from bridge_jax.data.answers import (
    ANSWER_MARK,
    answer_in_recorded_text,
    format_completion,
    split_completion,
)
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.ledger.database import reading
from bridge_jax.ledger.requests import Finish, TeacherReply, TeacherRequest
from bridge_jax.teachers import http
from bridge_jax.teachers.protocol import TeacherError

_SQLITE = b"SQLite format 3\0"

Record = Mapping[str, Any]  # A row of a JSONL file.


@dataclasses.dataclass(frozen=True)
class RecordedTeacher:
    """A teacher that replies with what was recorded.

    Attributes:
      name: the teacher's name, for messages.
      find: returns the record for a request: a reply that was paid for, a row of a JSONL file, or
        the error to raise if there is neither.
      count_tokens: stands in for the vendor's tokenizer, for rows without token counts.
    """

    name: str
    find: Callable[[TeacherRequest], TeacherReply | Record | TeacherError]
    count_tokens: Callable[[str], int]

    def estimate_input_tokens(self, request: TeacherRequest) -> int:
        """Returns the exact number of input tokens that `ask` bills."""
        found = self.find(request)
        if isinstance(found, TeacherReply):
            return found.input_tokens
        known = found.get("input_tokens") if isinstance(found, Mapping) else None
        return known or sum(self.count_tokens(message.content) for message in request.messages)

    async def ask(self, request: TeacherRequest) -> TeacherReply:
        """Returns the recorded reply.

        Raises:
          TeacherError: there is none, or a row's reply is longer than `max_output_tokens`.
        """
        found = self.find(request)
        if isinstance(found, TeacherError):
            raise found
        if isinstance(found, TeacherReply):
            return found
        text = _text(found)
        tokens = found.get("output_tokens", self.count_tokens(text))
        if tokens > request.max_output_tokens:
            raise TeacherError(
                f"teacher {self.name}: the reply about example {request.example_id!r} has {tokens} "
                f"tokens, above teacher.max_output_tokens={request.max_output_tokens}; raise it"
            )
        finish = found.get("finish", "stop")
        return TeacherReply(text, self.estimate_input_tokens(request), tokens, finish)

    async def aclose(self) -> None:
        """Does nothing: there are no connections."""


def from_examples(
    kind: str,
    examples: Iterable[Example],
    variant: str,
    count_tokens: Callable[[str], int],
) -> RecordedTeacher:
    """Returns a teacher whose rationales are in the examples.

    The variant is not part of a request's key: put it into `TeacherRequest.model`, or the ledger
    takes two variants of one question for the same request.

    Args:
      kind: `oracle`, a program that is always right; or `replay`, the recorded texts of an LLM,
        mistakes included. The LLM's own final answer is put into our format; a text without one is
        left as it is.
      examples: the examples that may be asked about.
      variant: the key of the rationale in `Example.rationales`.
      count_tokens: stands in for the vendor's tokenizer.
    """
    by_id = {example.id: example for example in examples}
    name = f"{kind}/{variant}"

    def find(request: TeacherRequest) -> Record | TeacherError:
        example = by_id.get(request.example_id)
        if example is None:
            return TeacherError(f"teacher {name}: no example with id {request.example_id!r}")
        if variant not in example.rationales:
            return TeacherError(
                f"teacher {name}: example {example.id!r} has no rationale {variant!r}; it has "
                f"{', '.join(sorted(example.rationales)) or 'none'}"
            )
        return {"reply": reply_of(kind, example, example.rationales[variant])}

    return RecordedTeacher(name, find, count_tokens)


def reply_of(kind: str, example: Example, text: str) -> str:
    """Turns a recorded text into a teacher's reply; `kind` is as in `from_examples`."""
    rationale, answer = text, example.answer
    if kind == "replay":
        rationale, answer = answer_in_recorded_text(text, example)
    return text if answer is None else "".join(format_completion(rationale, answer))


def of_texts(
    name: str, texts: Mapping[str, str], count_tokens: Callable[[str], int]
) -> RecordedTeacher:
    """Returns a teacher that replies with `texts[example_id]` to a request about an example."""

    def find(request: TeacherRequest) -> Record | TeacherError:
        if request.example_id not in texts:
            return TeacherError(f"teacher {name}: no reply about {request.example_id!r}")
        return {"reply": texts[request.example_id]}

    return RecordedTeacher(name, find, count_tokens)


def open_replay(path: Path, count_tokens: Callable[[str], int]) -> RecordedTeacher:
    """Returns the teacher that repeats the replies recorded at `path`.

    Args:
      path: a ledger, or a JSONL file.
      count_tokens: stands in for the vendor's tokenizer, for rows without token counts.

    Raises:
      UserError: there is no such file, or it is neither a ledger nor JSONL.
    """
    return _from_ledger(path) if _is_ledger(path) else _from_rows(path, count_tokens)


@functools.cache
def recorded_model(path: Path, model: str) -> str:
    """Returns the model's name in requests whose replies come from `path`.

    For a JSONL file, the name includes a hash of the file, so that a ledger does not take its
    replies for those of the model itself, or of another file.
    """
    return model if _is_ledger(path) else f"{model}@{digest(path)[:8]}"


def digest(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a JSONL file, or of the replies in a ledger.

    The ledger's file itself is not hashed: SQLite may rearrange its bytes at any time.
    """
    if not _is_ledger(path):
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    found = hashlib.sha256()
    with reading(path) as connection:
        for row in connection.execute(
            "SELECT key, reply, input_tokens, output_tokens, finish FROM requests"
            " WHERE state = 'settled' ORDER BY key"
        ):
            found.update(json.dumps(row).encode() + b"\n")
    return found.hexdigest()


def _is_ledger(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError as error:
        raise UserError(
            f"teacher.replay_from={path}: {error.strerror or error}; name a ledger or a JSONL file"
        ) from error


def _from_ledger(path: Path) -> RecordedTeacher:
    replies: dict[str, TeacherReply] = {}
    unanswered: set[str] = set()  # Keys; another attempt may have a reply.
    asked: dict[str, set[str]] = {}  # Ids of examples with a reply, by model.
    with reading(path) as connection:
        rows = connection.execute(
            "SELECT key, model, example_id, state, reply, input_tokens, output_tokens, finish"
            " FROM requests"
        )
        for key, model, example_id, state, reply, input_tokens, output_tokens, finish in rows:
            if state == "settled":
                replies[key] = TeacherReply(json.loads(reply), input_tokens, output_tokens, finish)
                asked.setdefault(model, set()).add(example_id)
            else:
                unanswered.add(key)
    name = f"replay of {path}"

    def find(request: TeacherRequest) -> TeacherReply | TeacherError:
        return replies.get(request.key) or missing(request)

    def missing(request: TeacherRequest) -> TeacherError:
        about = f"{name}: no answer about example {request.example_id!r}"
        if request.key in unanswered:
            return TeacherError(f"{about}: it was cut off when it was recorded", "rejected")
        if request.model not in asked:
            models = ", ".join(sorted(asked)) or "none"
            return TeacherError(
                f"{about} by {request.model}; the ledger has {models}: set teacher.model"
            )
        if request.example_id not in asked[request.model]:
            return TeacherError(f"{about}: the recorded run had none either", "rejected")
        server = f" (the server asked here is {request.server})" if request.server else ""
        return TeacherError(
            f"{about} with this prompt and these settings, only with others: use the config of the "
            f"recorded run{server}"
        )

    return RecordedTeacher(name, find, lambda _: 0)


def _from_rows(path: Path, count_tokens: Callable[[str], int]) -> RecordedTeacher:
    rows: dict[str, list[Record]] = {}
    # Not splitlines(): a reply may contain U+2028, which JSON leaves unescaped.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            row = _checked(line, f"{path}: row {number}")
            rows.setdefault(row["id"], []).append(row)
    name = f"replay of {path}"

    def find(request: TeacherRequest) -> Record | TeacherError:
        """Returns row n about the example, where n is the request's `sample`, counted from 0."""
        of_example = rows.get(request.example_id, [])
        if request.sample < len(of_example):
            return of_example[request.sample]
        said = f"no answer {request.sample + 1} about example {request.example_id!r}"
        return TeacherError(f"{name}: {said}", "rejected")

    return RecordedTeacher(name, find, count_tokens)


def _checked(line: str, where: str) -> Record:
    try:
        row = http.parsed(line)
    except http.Unreadable as error:
        raise UserError(f"{where}: neither a ledger nor JSONL ({error})") from None
    if not isinstance(row, dict) or not isinstance(row.get("id"), str):
        raise UserError(f"{where}: has no id")
    if not isinstance(row.get("reply", row.get("rationale")), str):
        raise UserError(f"{where}: has neither reply nor rationale")
    for name in ("input_tokens", "output_tokens"):
        if name in row and http.tokens(row[name]) is None:
            raise UserError(
                f"{where}: {name}={row[name]}: must be a whole number from 0, or left out"
            )
    if row.get("finish", "stop") not in get_args(Finish):
        raise UserError(
            f"{where}: finish={row['finish']}: must be one of {', '.join(get_args(Finish))}"
        )
    return row


def _text(row: Record) -> str:
    """Returns the reply in a row; one built from rationale and answer parses back into them."""
    if "reply" in row:
        return row["reply"]
    rationale, answer = row["rationale"], row.get("answer")
    if answer is not None:
        return "".join(format_completion(rationale, answer))
    # Without an answer, an answer mark inside the rationale must not be taken for one.
    marked = split_completion(rationale)[1] is not None
    return f"{rationale}\n{ANSWER_MARK}" if marked else rationale
