"""Examples as columns of JSON, and back: compact, quick to read, and equal to what was stored.

What many examples have in common (kind, labels, task) is stored once, in a table. Digests are made
of the same text: equal examples have equal columns.
"""

import collections
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from bridge_jax.data.bad_rows import BadRow, BadRows
from bridge_jax.data.example import Example, Splits
from bridge_jax.data.task import Task

PARTS = ("pool", "dev", "test")


def texts_of(splits: Splits) -> dict[str, bytes]:
    """Returns JSON of each part: what models read (`pool`), and what teachers (`pool_recorded`)."""
    texts = {}
    for part in PARTS:
        examples = getattr(splits, part)
        texts[part] = _dump(_columns(examples))
        texts[f"{part}_recorded"] = _dump([dict(e.rationales) for e in examples])
    return texts


def digests_of(texts: dict[str, bytes]) -> dict[str, str]:
    """Returns the SHA-256 of each of the texts."""
    return {part: hashlib.sha256(text).hexdigest() for part, text in texts.items()}


def dump(texts: dict[str, bytes], splits: Splits) -> bytes:
    """Returns splits as lines of JSON; `texts` are those of `texts_of`."""
    bad = splits.bad
    rest = {
        "total": bad.total,
        "rows": [[row.row, row.reason] for row in bad.rows],
        "kinds": list(bad.kinds.items()),
        "ways_out": bad.ways_out,
        "replaced": splits.replaced,
        "cut": dict(splits.cut),
    }
    return b"\n".join([*texts.values(), _dump(rest)])


def load(data: bytes, path: str) -> Splits:
    """Returns the splits that were dumped; `path` is that of the data now.

    Raises:
      ValueError, LookupError, TypeError: the text is another's.
    """
    *texts, rest = map(json.loads, data.split(b"\n"))
    parts = zip(texts[::2], texts[1::2], strict=True)
    examples = {name: tuple(_examples(*part)) for name, part in zip(PARTS, parts, strict=True)}
    bad = BadRows(
        rest["total"],
        [BadRow(path, *row) for row in rest["rows"]],
        collections.Counter(dict(rest["kinds"])),
        rest["ways_out"],
    )
    return Splits(**examples, bad=bad, replaced=rest["replaced"], cut=rest["cut"])


def _columns(examples: Sequence[Example]) -> dict[str, Any]:
    tasks: dict[int, int] = {}  # The id of a task -> its number in the next.
    told: dict[bytes, int] = {}
    shared: dict[tuple[Any, ...], int] = {}
    numbers = []
    for e in examples:
        if id(e.task) not in tasks:
            text = _dump([e.task.instruction, dict(e.task.label_descriptions)])
            tasks[id(e.task)] = told.setdefault(text, len(told))
        key = (e.kind, e.choices, e.domain, e.min_rouge, e.decimal, tasks[id(e.task)])
        numbers.append(shared.setdefault(key, len(shared)))
    return {
        "ids": [e.id for e in examples],
        "questions": [e.question for e in examples],
        "answers": [e.answer for e in examples],
        "numbers": numbers,
        "shared": list(shared),
        "tasks": [json.loads(text) for text in told],
    }


def _examples(columns: dict[str, Any], recorded: list[dict[str, str]]) -> Iterator[Example]:
    tasks = [Task(*task) for task in columns["tasks"]]
    shared = [
        (kind, tuple(choices), domain, min_rouge, tasks[task], decimal)
        for kind, choices, domain, min_rouge, decimal, task in columns["shared"]
    ]
    names = ("ids", "questions", "answers", "numbers")
    rows = zip(*(columns[name] for name in names), recorded, strict=True)
    for name, question, answer, number, rationales in rows:
        kind, choices, domain, min_rouge, task, decimal = shared[number]
        yield Example(
            name, question, answer, kind, choices, domain, rationales, min_rouge, task, decimal
        )


def _dump(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")  # An id may hold half a pair.
