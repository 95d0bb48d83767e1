"""A recorded run as a teacher: what it was told is said again, and no key is needed.

A *ledger* answers the very requests that it holds: with the same config as the recorded run every
stage after it gets the same bytes, at the same recorded tokens. A *JSONL* file answers by example,
whatever is asked: rows of `id` and `reply`, or of `id`, `rationale` and `answer` as a run's
`annotations.jsonl` has them; `input_tokens`, `output_tokens` and `finish` where they are known.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from bridge_jax.data.answers import ANSWER_MARK, format_completion, split_completion
from bridge_jax.errors import UserError
from bridge_jax.ledger.database import reading
from bridge_jax.teachers import wire
from bridge_jax.teachers.protocol import Finish, Reply, Request, Teacher, TeacherError

_SQLITE = b"SQLite format 3\0"


def open_replay(path: Path, count_tokens: Callable[[str], int]) -> Teacher:
    """Returns the teacher that says what is recorded at `path`.

    Args:
      path: a ledger, or a JSONL file.
      count_tokens: stands in for the vendor's tokenizer, for rows that do not say.

    Raises:
      UserError: there is no such file, or it is neither.
    """
    return _from_ledger(path) if _is_ledger(path) else _from_rows(path, count_tokens)


@functools.cache
def recorded_model(path: Path, model: str) -> str:
    """Returns the model's name in requests whose answers come from `path`.

    In the name of a JSONL file's model is a hash of the file, lest a ledger takes its answers for
    those of the model itself, or of another file.
    """
    return model if _is_ledger(path) else f"{model}@{digest(path)[:8]}"


def digest(path: Path) -> str:
    """Returns the SHA-256 of what is recorded at `path`, hexadecimal.

    Of a ledger these are its answers, whose bytes SQLite lays out anew whenever it likes.
    """
    if _is_ledger(path):
        found = hashlib.sha256()
        with reading(path) as connection:
            for row in connection.execute(
                "SELECT key, reply, input_tokens, output_tokens, finish FROM requests"
                " WHERE state = 'settled' ORDER BY key"
            ):
                found.update(json.dumps(row).encode() + b"\n")
        return found.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_ledger(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError as error:
        raise UserError(
            f"teacher.replay_from={path}: {error.strerror or error}; name a ledger or a JSONL file"
        ) from error


@dataclasses.dataclass(frozen=True)
class LedgerReplay:
    """A teacher that answers by `Request.key`.

    Attributes:
      name: for messages.
      replies: by key.
      cut_off: keys of requests that had no answer in the end.
      asked: example ids, by the model that was asked about them.
    """

    name: str
    replies: Mapping[str, Reply]
    cut_off: frozenset[str]
    asked: Mapping[str, frozenset[str]]

    def estimate_input_tokens(self, request: Request) -> int:
        """Returns the tokens that were billed."""
        reply = self.replies.get(request.key)
        return reply.input_tokens if reply else 0

    async def ask(self, request: Request) -> Reply:
        """Returns the recorded reply.

        Raises:
          TeacherError: the recorded run had none either (rejected), or asked something else.
        """
        if reply := self.replies.get(request.key):
            return reply
        about = f"{self.name}: no answer about example {request.example_id!r}"
        if request.key in self.cut_off:
            raise TeacherError(f"{about}: it was cut off when it was recorded", "rejected")
        if request.model not in self.asked:
            models = ", ".join(sorted(self.asked)) or "none"
            raise TeacherError(
                f"{about} by {request.model}; the ledger has {models}: set teacher.model"
            )
        if request.example_id in self.asked[request.model]:
            at = (
                f" (asked here is {request.server}; before ledgers kept the server, that was left "
                "out: try teacher.base_url='')"
                if request.server
                else ""
            )
            raise TeacherError(
                f"{about} to these words and settings, but to others: the config has to be that "
                f"of the recorded run{at}"
            )
        raise TeacherError(f"{about}: the recorded run had none either", "rejected")

    async def aclose(self) -> None:
        """Does nothing: there are no connections."""


@dataclasses.dataclass(frozen=True)
class RowsReplay:
    """A teacher that answers by `Request.example_id`, the n-th row of it being sample n.

    Attributes:
      name: for messages.
      rows: by example, in the order of the file.
      count_tokens: for rows that do not say.
    """

    name: str
    rows: Mapping[str, list[Mapping[str, Any]]]
    count_tokens: Callable[[str], int]

    def estimate_input_tokens(self, request: Request) -> int:
        """Returns what `ask` bills."""
        row = self._row(request) or {}
        return row.get("input_tokens", None) or sum(
            self.count_tokens(message.content) for message in request.messages
        )

    async def ask(self, request: Request) -> Reply:
        """Returns the recorded reply.

        Raises:
          TeacherError: there is none (rejected), or it is longer than `max_output_tokens`.
        """
        row = self._row(request)
        if row is None:
            raise TeacherError(
                f"{self.name}: no answer {request.sample + 1} about example {request.example_id!r}",
                "rejected",
            )
        text = _text(row)
        output_tokens = row.get("output_tokens", self.count_tokens(text))
        if output_tokens > request.max_output_tokens:
            raise TeacherError(
                f"{self.name}: the reply about example {request.example_id!r} has {output_tokens} "
                f"tokens, above teacher.max_output_tokens={request.max_output_tokens}; raise it"
            )
        input_tokens = self.estimate_input_tokens(request)
        return Reply(text, input_tokens, output_tokens, row.get("finish", "stop"))

    async def aclose(self) -> None:
        """Does nothing: there are no connections."""

    def _row(self, request: Request) -> Mapping[str, Any] | None:
        rows = self.rows.get(request.example_id, [])
        return rows[request.sample] if request.sample < len(rows) else None


def _text(row: Mapping[str, Any]) -> str:
    """Returns the reply in a row; one that is made of its parts is read as these parts again."""
    if "reply" in row:
        return row["reply"]
    rationale, answer = row["rationale"], row.get("answer")
    if answer is not None:
        return "".join(format_completion(rationale, answer))
    # Without an answer no mark in the rationale may be taken for one.
    marked = split_completion(rationale)[1] is not None
    return f"{rationale}\n{ANSWER_MARK}" if marked else rationale


def _from_ledger(path: Path) -> LedgerReplay:
    replies, unanswered, asked = {}, set(), {}
    with reading(path) as connection:
        rows = connection.execute(
            "SELECT key, model, example_id, state, reply, input_tokens, output_tokens, finish"
            " FROM requests"
        )
        for key, model, example_id, state, reply, input_tokens, output_tokens, finish in rows:
            if state != "settled":
                unanswered.add(key)
                continue
            replies[key] = Reply(json.loads(reply), input_tokens, output_tokens, finish)
            asked.setdefault(model, set()).add(example_id)
    return LedgerReplay(
        f"replay of {path}",
        replies,
        frozenset(unanswered - replies.keys()),
        {model: frozenset(ids) for model, ids in asked.items()},
    )


def _from_rows(path: Path, count_tokens: Callable[[str], int]) -> RowsReplay:
    rows: dict[str, list[Mapping[str, Any]]] = {}
    # Not splitlines(): a reply may hold U+2028, which JSON leaves unescaped.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            row = _checked(line, f"{path}: row {number}")
            rows.setdefault(row["id"], []).append(row)
    return RowsReplay(f"replay of {path}", rows, count_tokens)


def _checked(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = wire.parsed(line)
    except wire.Unreadable as error:
        raise UserError(f"{where}: neither a ledger nor JSONL ({error})") from None
    if not isinstance(row, dict) or not isinstance(row.get("id"), str):
        raise UserError(f"{where}: has no id")
    if not isinstance(row.get("reply", row.get("rationale")), str):
        raise UserError(f"{where}: has neither reply nor rationale")
    for name in ("input_tokens", "output_tokens"):
        if name in row and wire.tokens(row[name]) is None:
            raise UserError(f"{where}: {name}={row[name]}: a whole number from 0, or leave it out")
    if row.get("finish", "stop") not in get_args(Finish):
        raise UserError(f"{where}: finish={row['finish']}: one of {', '.join(get_args(Finish))}")
    return row
