"""Reads the examples of a run, and the instructions of the student's warm-up.

Examples are generated practice tasks, the rows of a file (`data.formats`), or a dataset from the
Hugging Face hub. They can be cached on disk, and `digests` hashes their content.
"""

import collections
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bridge_jax import caches
from bridge_jax.config import DataConfig, InstructConfig
from bridge_jax.data import dividing, practice
from bridge_jax.data.conversion import RowReader
from bridge_jax.data.example import (
    OPEN,
    Example,
    Splits,
    Task,
    check_labels,
    read_task,
    with_task_text,
)
from bridge_jax.data.formats import READERS, read_file
from bridge_jax.data.hub import read_dataset
from bridge_jax.data.rows import (
    BadRow,
    BadRowError,
    BadRows,
    BadRowsError,
    Columns,
    Row,
    bad_value,
    names,
)
from bridge_jax.errors import UserError

# Names of splits in other people's data, in lower case -> ours.
SPLITS = {
    **dict.fromkeys(("train", "training", "pool"), "pool"),
    **dict.fromkeys(("dev", "development", "validation", "valid", "val", "eval"), "dev"),
    **dict.fromkeys(("test", "testing"), "test"),
}

# The number of practice tasks to generate if the config does not give it.
SIZES = {"pool": 500, "dev": 50, "test": 200}
# Fields of the config that practice tasks are made from.
_PRACTICE = ("domains", "min_steps", "max_steps", "families", "different_values")

_PARTS = ("pool", "dev", "test")
_FILE = "examples.jsonl"
_DIGESTS = "_digests"  # An attribute that is not a field, so `dataclasses.replace` drops it.
# Settings that do not change examples from files: paths, their use, and practice settings.
_LEFT_OUT = ("path", "test_path", "rationale", *_PRACTICE)


class Instruction(NamedTuple):
    """A question with its context, and the answer as it is in the source."""

    question: str
    answer: str


class Instructions(NamedTuple):
    """The instructions of a source.

    Attributes:
      rows: in random order, so that the first N are a random sample of them.
      bad: rows that were left out because of `on_bad_row="skip"`.
    """

    rows: tuple[Instruction, ...]
    bad: BadRows


def load(config: DataConfig, seed: int) -> Splits:
    """Reads the examples that `config` names.

    Args:
      config: the source. For files and `hf`, `pool`, `dev` and `test` are the numbers of examples
        to keep of each split; 0 keeps all.
      seed: the seed of practice tasks, of the division of rows without a split, and of samples.

    Raises:
      BadRowsError: rows are malformed (unless `on_bad_row="skip"`), or none is left.
      UserError: the data or the task cannot be read, answers can be read in two ways, the pool or
        the test is empty, or there are too few rows to divide.
    """
    _check(config)
    if config.source == "practice":
        sizes = {name: getattr(config, name) or size for name, size in SIZES.items()}
        settings = {name: getattr(config, name) for name in _PRACTICE}
        splits = practice.generate(seed, **sizes, **settings)
        if config.kind == "text":
            splits = practice.open_ended(splits, config.min_rouge)
    else:
        divides = _has_no_split(config)
        splits = _collect(_rows(config, divides), config, seed if divides else None)
        splits = _sampled(splits, config, seed)
    return _with_task(splits, config)


def depends_on_seed(config: DataConfig) -> bool:
    """Returns whether the examples may depend on the seed: by generation, division or sampling."""
    is_sampled = any(getattr(config, name) for name in _PARTS)
    return config.source == "practice" or is_sampled or _may_divide(config)


def load_cached(config: DataConfig, seed: int, folder: Path | None, content: str) -> Splits:
    """Returns the examples of `load`, from the cache if they were loaded before.

    On disk, examples are columns of JSON, which is compact and quick to read. Fields that many
    examples share (kind, labels, task) are stored once, in a table.

    Args:
      config: the source.
      seed: as in `load`.
      folder: the folder of the cache; None caches nothing.
      content: the SHA-256 of the data's file or folder; "" caches nothing.

    Raises:
      UserError: as in `load`; then nothing is cached.
    """
    if folder is None or not content or config.source == "practice":
        return load(config, seed)
    name = _name(config, seed, content)
    if facts := caches.read(folder, name, (_FILE,)):
        try:
            splits = _load(caches.path_of(folder, name, _FILE).read_bytes(), config)
            vars(splits)[_DIGESTS] = dict(facts["digests"])
            return splits
        except (OSError, ValueError, LookupError, TypeError):
            pass  # Another process replaced it in the meantime.
    splits = load(config, seed)
    data = _dump(splits, config.path)
    counts = {part: len(getattr(splits, part)) for part in _PARTS}
    facts = {"what": "examples", "digests": digests(splits), "counts": counts}
    caches.write(folder, name, {_FILE: lambda file: file.write(data)}, facts)
    return splits


def digests(splits: Splits) -> dict[str, str]:
    """Returns the SHA-256 of the content of each part, computed once.

    `pool`, `dev` and `test` cover the fields that models read, which are all but the recorded
    rationales. Only teachers read those; `pool_recorded`, `dev_recorded` and `test_recorded` cover
    them.
    """
    known = vars(splits)
    if _DIGESTS not in known:
        texts = _texts(splits).items()
        known[_DIGESTS] = {part: hashlib.sha256(text).hexdigest() for part, text in texts}
    return known[_DIGESTS]


def read_instructions(config: InstructConfig, seed: int) -> Instructions:
    """Returns the instructions of `config.path` for training, shuffled by `seed`.

    A row has a `question` and an `answer`, by these names or those in `instruct.columns`. It may
    have a `context`, which is appended to the question, and a `split`: only training rows are kept.

    Raises:
      BadRowsError: rows are malformed (unless `on_bad_row="skip"`), or none is for training.
      UserError: the source cannot be read.
    """
    assert config.source != "generated"
    source = DataConfig(source=config.source, path=config.path, columns=config.columns)
    columns, bad = Columns(config.columns), BadRows()
    found, others = [], set()
    for row in raw_rows(source, "instruct.path"):
        bad.total += 1
        try:
            split = columns.text(row, "split", required=False)
            if split and SPLITS.get(split.lower()) != "pool":
                others.add(split)
                continue
            question, answer = columns.text(row, "question"), columns.text(row, "answer")
            if context := columns.text(row, "context", required=False):
                question = f"{question}\n\n{context}"
            found.append(Instruction(question, answer))
        except BadRowError as error:
            bad.add(row, error)
    where = f"instruct.path={config.path}"
    if bad.rows and config.on_bad_row == "error":
        raise BadRowsError(
            f"{where}: {bad.summary()}\nfix them, map their columns with instruct.columns, or "
            "leave them out with instruct.on_bad_row=skip",
            bad,
        )
    if not found:
        beside = f", {len(bad.rows):,} bad rows ({bad.counts()})" if bad.rows else ""
        beside += f", and rows of split {', '.join(sorted(others))}" if others else ""
        raise BadRowsError(
            f"{where}: no instructions of split train{beside}; give some rows split=train, or give "
            "no row a split",
            bad,
        )
    order = np.random.default_rng(seed).permutation(len(found))
    return Instructions(tuple(found[i] for i in order), bad)


def _may_divide(config: DataConfig) -> bool:
    """Returns whether the rows of a file may be divided, since no setting names their splits."""
    return config.source in READERS and not config.splits and "split" not in config.columns


def _has_no_split(config: DataConfig) -> bool:
    """Returns whether the rows are to be divided, since no row of `config.path` has a split."""
    if not _may_divide(config):
        return False
    return all(row.value.get("split") is None for row in raw_rows(config, "data.path"))


def _rows(config: DataConfig, divides: bool) -> Iterator[tuple[Row, bool]]:
    """Yields the rows of `path` and `test_path`, each with whether it is from `test_path`.

    Rows of `path` that need no split are assigned to the pool.
    """
    split = config.columns.get("split", "split")
    for row in raw_rows(config, "data.path"):
        # A split column that the config names must exist.
        needs_none = divides or (config.test_path and "split" not in config.columns)
        is_free = needs_none and not row.problem
        if is_free and row.value.get(split) is None:
            ours = (n for n, ours in config.splits.items() if SPLITS[ours.lower()] == "pool")
            row = dataclasses.replace(row, split=next(ours, "train"))
        yield row, False
    if config.test_path:
        other = dataclasses.replace(config, path=config.test_path, config="", revision="")
        for row in raw_rows(other, "data.test_path"):
            yield dataclasses.replace(row, split="test"), True


def raw_rows(config: DataConfig, setting: str) -> Iterator[Row]:
    """Yields the rows of a file or a dataset; `setting` is its setting, for messages."""
    if config.source == "hf":
        return read_dataset(config, setting)
    return read_file(config.source, config.path, setting)


def _check(config: DataConfig) -> None:
    """Raises a UserError for settings that have no effect or cannot work together."""
    for theirs, ours in config.splits.items():
        if ours.lower() not in SPLITS:
            raise UserError(f"data.splits={theirs}:{ours}: map it to train, dev or test")
    if config.test_path and config.test_path == config.path:
        raise UserError(
            f"data.test_path={config.test_path} is also data.path; name a file of other rows, or "
            "give its rows a split"
        )
    if config.dev_share + config.test_share >= 1:
        raise UserError(
            f"data.dev_share={config.dev_share:g} and data.test_share={config.test_share:g} leave "
            "nothing for the pool: lower them"
        )
    for name in ("config", "revision"):
        if getattr(config, name) and config.source != "hf":
            raise UserError(
                f"data.{name}={getattr(config, name)} requires data.source=hf, not {config.source}"
            )
    if config.kind in OPEN and config.answer_is not in ("auto", "text"):
        raise UserError(
            f"data.answer_is={config.answer_is} names an option, but data.kind={config.kind} has "
            "none: set data.kind=choice or label"
        )


def _sampled(splits: Splits, config: DataConfig, seed: int) -> Splits:
    """Returns the splits, each sampled down to the number of examples in the config."""
    parts, cut = {}, {}
    for name in _PARTS:
        there = getattr(splits, name)
        parts[name] = dividing.sample(there, getattr(config, name), seed)
        if len(parts[name]) < len(there):
            cut[name] = len(there)
    return dataclasses.replace(splits, cut=cut, **parts)


def _with_task(splits: Splits, config: DataConfig) -> Splits:
    """Returns the splits, their examples with the task of the config if it has one."""
    task = read_task(config)
    if not task.is_said:
        return splits
    parts = {name: getattr(splits, name) for name in _PARTS}
    labels = (e.choices for part in parts.values() for e in part if e.kind == "label")
    check_labels(task, itertools.chain.from_iterable(labels))
    told = {
        name: tuple(dataclasses.replace(example, task=task) for example in part)
        for name, part in parts.items()
    }
    return dataclasses.replace(splits, **told)


def _collect(rows: Iterable[tuple[Row, bool]], config: DataConfig, seed: int | None) -> Splits:
    """Converts rows and groups them by split; with a seed, the rows of the pool are divided."""
    reader, bad = RowReader(config), BadRows()
    found: dict[str, list[Example]] = {name: [] for name in _PARTS}
    called: collections.Counter[str] = collections.Counter()
    lost: set[str] = set()  # Our names for the splits that bad rows belong to.
    for row, is_test in rows:
        bad.total += 1
        name = "test" if is_test else ""
        try:
            reader.columns.check(row)
            theirs = row.split or reader.columns.text(row, "split")
            called[theirs] += 1
            if not is_test:
                name = _ours(theirs, config, reader.columns.name("split"))
                if name == "test" and config.test_path:
                    continue
            if name:
                found[name].append(reader.example(row, name))
        except BadRowError as error:
            lost.add(name)
            bad.add(row, error)
    if doubt := reader.doubt():
        listed = [bad.summary()] if bad.rows else []
        raise BadRowsError("\n".join([f"{config.path}: {doubt}", *listed]), bad)
    if bad.rows and config.on_bad_row == "error":
        # If most rows fail alike, leaving them out would leave too little.
        hint = "" if bad.cause else "\nfix them, or leave them out with data.on_bad_row=skip"
        raise BadRowsError(f"{config.path}: {bad.summary()}{hint}", bad)
    groups = 0
    if seed is not None and found["pool"]:
        pool, dev, test, groups = dividing.divide(found["pool"], config, seed)
        found = {"pool": [*pool], "dev": [*dev], "test": [*found["test"], *test]}
    for name in ("pool", "test"):
        if not found[name]:
            if name == "test" and config.test_path and not bad.rows:
                raise BadRowsError(f"data.test_path={config.test_path}: there are no rows", bad)
            raise BadRowsError(
                f"{config.path}: no examples for {name}{_why(name, bad, called, lost)}", bad
            )
    pool, dev, test = (tuple(found[name]) for name in _PARTS)
    return Splits(pool, dev, test, bad, reader.replaced, divided=seed is not None, groups=groups)


def _ours(theirs: str, config: DataConfig, column: str) -> str:
    """Returns our name for a split, or "" for one that `data.splits` leaves out."""
    if config.splits:
        chosen = {name.lower(): ours for name, ours in config.splits.items()}
        return SPLITS[chosen[theirs.lower()].lower()] if theirs.lower() in chosen else ""
    if theirs.lower() not in SPLITS:
        hint = f"map your splits, as in data.splits={names([theirs])}:train"
        hint += "; others are left out"
        raise bad_value(column, theirs, "is not train, dev or test", hint)
    return SPLITS[theirs.lower()]


def _why(name: str, bad: BadRows, called: Mapping[str, int], lost: set[str]) -> str:
    """Returns why a split is empty, with advice."""
    if bad.cause or name in lost:
        return f": {bad.summary()}"
    if not bad.total:
        return ": there are no rows"
    theirs = "train" if name == "pool" else name
    splits = ", ".join(f"{names([split])} ({count:,})" for split, count in called.items())
    skipped = f" (bad rows were skipped: {bad.counts()})" if bad.rows else ""
    return (
        f"; the splits are {splits}{skipped}: give some rows split={theirs}, or map one with "
        f"data.splits=NAME:{theirs}"
    )


def _name(config: DataConfig, seed: int, content: str) -> str:
    told = with_task_text(config)
    settings = {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in vars(told).items()
        if name not in _LEFT_OUT
    }
    # `datasets` chooses the format by the suffix.
    kind = [Path(path).suffix for path in (config.path, config.test_path)]
    versions = caches.versions_of("datasets", "datasketch", "pyarrow")
    code = caches.code_of("data")
    drawn = seed if depends_on_seed(config) else None
    return caches.name_of("examples", code, versions, settings, drawn, kind, content)


def _texts(splits: Splits) -> dict[str, bytes]:
    """Returns each split as JSON: fields for models ("pool") and for teachers ("pool_recorded")."""
    texts = {}
    for part in _PARTS:
        examples = getattr(splits, part)
        texts[part] = _json(_columns(examples))
        texts[f"{part}_recorded"] = _json([dict(e.rationales) for e in examples])
    return texts


def _dump(splits: Splits, path: str) -> bytes:
    """Returns splits as lines of JSON; `path` is the current path of the data."""
    bad = splits.bad
    rest = {
        "total": bad.total,
        "rows": [[row.file == path, row.row, row.reason] for row in bad.rows],
        "kinds": bad.kinds,
        "hints": bad.hints,
        "replaced": splits.replaced,
        "cut": dict(splits.cut),
        "divided": splits.divided,
        "groups": splits.groups,
    }
    return b"\n".join([*_texts(splits).values(), _json(rest)])


def _load(data: bytes, config: DataConfig) -> Splits:
    """Returns the splits in the output of `_dump`; `config` has the current paths of the data."""
    *texts, rest = map(json.loads, data.split(b"\n"))
    parts = zip(texts[::2], texts[1::2], strict=True)
    examples = {name: tuple(_examples(*part)) for name, part in zip(_PARTS, parts, strict=True)}
    bad = BadRows(
        rest["total"],
        [
            BadRow(config.path if is_first else config.test_path, *row)
            for is_first, *row in rest["rows"]
        ],
        collections.Counter(rest["kinds"]),
        rest["hints"],
    )
    others = {name: rest[name] for name in ("replaced", "cut", "divided", "groups")}
    return Splits(**examples, bad=bad, **others)


def _columns(examples: Sequence[Example]) -> dict[str, Any]:
    tasks: dict[int, int] = {}  # id() of a task -> its number in `told`.
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
    return text.encode("utf-8", "surrogatepass")  # An id may hold a lone surrogate.
