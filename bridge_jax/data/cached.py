"""Loads examples from a cache on disk, and computes digests of their content.

On disk, examples are columns of JSON, which is compact and quick to read. Fields that many examples
share (kind, labels, task) are stored once, in a table. Digests are of the same text: equal examples
have equal columns.
"""

import collections
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bridge_jax import caches
from bridge_jax.config import DataConfig
from bridge_jax.data import sources
from bridge_jax.data.example import Example, Splits, Task, with_task_text
from bridge_jax.data.rows import BadRow, BadRows

PARTS = ("pool", "dev", "test")

_FILE = "examples.jsonl"
_DIGESTS = "_digests"  # An attribute that is no field, so `dataclasses.replace` leaves it out.

# Settings that do not change the examples: the path, their use, and those of practice tasks.
_LEFT_OUT = ("path", "rationale", "labelled", *sources.PRACTICE)


def load(config: DataConfig, seed: int, folder: Path | None, content: str) -> Splits:
    """Returns the examples of `sources.load`, from `folder` if they were loaded before.

    Args:
      config: the source.
      seed: of practice tasks, which are never kept.
      folder: of the cache; None keeps nothing.
      content: the SHA-256 of the file or folder; "" keeps nothing.

    Raises:
      UserError: as `sources.load`; then nothing is kept.
    """
    if folder is None or not content or config.source == "practice":
        return sources.load(config, seed)
    name = _name(config, content)
    if (splits := _read(folder, name, config.path)) is not None:
        return splits
    splits = sources.load(config, seed)
    texts = _texts(splits)
    vars(splits)[_DIGESTS] = _sha256(texts)
    data = _dump(texts, splits)
    facts = {
        "what": "examples",
        "digests": digests(splits),
        "counts": {part: len(getattr(splits, part)) for part in PARTS},
    }
    caches.write(folder, name, {_FILE: lambda file: file.write(data)}, facts)
    return splits


def digests(splits: Splits) -> dict[str, str]:
    """Returns the SHA-256 of the content of each part, computed once.

    `pool`, `dev` and `test` cover the fields that models read: all but the recorded rationales,
    which only teachers read, and which `pool_recorded`, `dev_recorded` and `test_recorded` cover.
    """
    known = vars(splits)
    if _DIGESTS not in known:
        known[_DIGESTS] = _sha256(_texts(splits))
    return known[_DIGESTS]


def _name(config: DataConfig, content: str) -> str:
    told = with_task_text(config)
    settings = {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in vars(told).items()
        if name not in _LEFT_OUT
    }
    kind = Path(config.path).suffix  # `datasets` chooses the format by it.
    versions = caches.versions_of("datasets")
    return caches.name_of("examples", caches.code_of("data"), versions, settings, kind, content)


def _read(folder: Path, name: str, path: str) -> Splits | None:
    facts = caches.read(folder, name, (_FILE,))
    if facts is None:
        return None
    try:
        splits = _load(caches.path_of(folder, name, _FILE).read_bytes(), path)
        vars(splits)[_DIGESTS] = dict(facts["digests"])
    except (OSError, ValueError, LookupError, TypeError):  # Replaced in the meantime.
        return None
    return splits


def _texts(splits: Splits) -> dict[str, bytes]:
    """Returns each split as JSON: for models ("pool"), and for teachers ("pool_recorded")."""
    texts = {}
    for part in PARTS:
        examples = getattr(splits, part)
        texts[part] = _json(_columns(examples))
        texts[f"{part}_recorded"] = _json([dict(e.rationales) for e in examples])
    return texts


def _sha256(texts: dict[str, bytes]) -> dict[str, str]:
    return {part: hashlib.sha256(text).hexdigest() for part, text in texts.items()}


def _dump(texts: dict[str, bytes], splits: Splits) -> bytes:
    """Returns splits as lines of JSON; `texts` are by `_texts`."""
    bad = splits.bad
    rest = {
        "total": bad.total,
        "rows": [[row.row, row.reason] for row in bad.rows],
        "kinds": bad.kinds,
        "ways_out": bad.ways_out,
        "replaced": splits.replaced,
        "cut": dict(splits.cut),
    }
    return b"\n".join([*texts.values(), _json(rest)])


def _load(data: bytes, path: str) -> Splits:
    """Returns the splits that were dumped; `path` is that of the data now."""
    *texts, rest = map(json.loads, data.split(b"\n"))
    parts = zip(texts[::2], texts[1::2], strict=True)
    examples = {name: tuple(_examples(*part)) for name, part in zip(PARTS, parts, strict=True)}
    bad = BadRows(
        rest["total"],
        [BadRow(path, *row) for row in rest["rows"]],
        collections.Counter(rest["kinds"]),
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
            text = _json([e.task.instruction, dict(e.task.label_descriptions)])
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


def _json(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")  # An id may hold half a surrogate pair.
