"""Converts public datasets to rows of `data.source=jsonl`, in splits that share no context.

| source | dataset | answers |
|---|---|---|
| `pubmedqa` | PubMedQA (1909.06146), also as on the hub (qiaojin/PubMedQA) | yes, no, maybe |
| `legalbench` | a task of LegalBench (2308.11462; nguha/legalbench) | a label |
| `tatqa_numbers` | TAT-QA (2105.07624): calculations, counts, spans that are numbers | a number |
| `tatqa_spans` | TAT-QA: all other answers; several spans are joined by "; " | a text |

A question contains its context: the abstract; the clause; the paragraphs and the table. TAT-QA's
scale (thousand, million, percent), which its own metric expects as a part of the answer, is stated
in the question. The conclusion of an abstract (`LONG_ANSWER`) and the derivation of a calculation
become `human_rationale`.

Files hold one split each, as published, or are cut into splits here. No context is in two splits: a
context found in several stays in the test, or else in dev. Training rows come in random order.
"""

import collections
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bridge_jax.data import numbers
from bridge_jax.data.formats import SUFFIXES, WrittenFloat, read_file
from bridge_jax.data.rows import BadRowError, BadRows, BadRowsError, Columns, Row, bad_value
from bridge_jax.errors import UserError, require

ORDER = ("test", "dev", "train")  # A context found in two splits stays in the first.
CUT = "path"  # The key of files that are cut into splits.

_NO_WORD = re.compile(r"[\W_]+")


class PublicQuestion(NamedTuple):
    """A question of a dataset.

    Attributes:
      id: the dataset's own id.
      context: the text that the question is about; no other split may have it.
      question: the question, including its context.
      answer: the gold answer.
      human_rationale: a reason written by people; may be empty.
    """

    id: str
    context: str
    question: str
    answer: str
    human_rationale: str = ""


@dataclasses.dataclass(frozen=True)
class SplitCounts:
    """The number of rows of each split.

    Attributes:
      train: the maximum; 0 is all.
      dev, test: drawn from the files that are cut, unless files of the split are given.
    """

    train: int = 0
    dev: int = 250
    test: int = 500


@dataclasses.dataclass(frozen=True)
class Converted:
    """The rows of a dataset.

    Attributes:
      rows: with id, question, answer, split, and human_rationale if there is one.
      left_out: reason -> number of rows.
      bad: rows that cannot be read.
    """

    rows: list[dict[str, str]]
    left_out: Mapping[str, int]
    bad: BadRows


def convert(
    source: str,
    files: Mapping[str, Sequence[str]],
    test_ids: str = "",
    counts: SplitCounts = SplitCounts(),
    seed: int = 0,
    on_bad_row: str = "error",
) -> Converted:
    """Converts the files of a dataset.

    Args:
      source: a key of `SOURCES`.
      files: "train", "dev" and "test" -> files of that split; "path" -> files that are cut.
      test_ids: a JSON file with the ids of the rows that form the test, among those that are cut: a
        list, or an object with the ids as keys, such as PubMedQA's `test_ground_truth.json`.
      counts: the number of rows of each split.
      seed: the seed of the cut and of the order of training rows.
      on_bad_row: "error", or "skip".

    Raises:
      BadRowsError: rows are malformed.
      UserError: a file cannot be read, or a split would be empty.
    """
    columns, bad, left_out = Columns({}), BadRows(), collections.Counter[str]()
    found: dict[str, list[PublicQuestion]] = {part: [] for part in (*ORDER, CUT)}
    for part, paths in files.items():
        ids: dict[str, str] = {}
        for raw in (row for path in paths for row in _rows(path, part)):
            for row in _questions(raw) if source.startswith("tatqa") else [raw]:
                bad.total += 1
                try:
                    if row.problem:
                        raise row.problem
                    record = SOURCES[source](row, columns)
                    if record is None:
                        left_out["answer of another kind"] += 1
                        continue
                    if record.id in ids:
                        raise bad_value("id", record.id, f"was used before ({ids[record.id]})")
                    ids[record.id] = row.where
                    found[part].append(record)
                except BadRowError as error:
                    bad.add(row, error)
    if bad.rows and on_bad_row == "error":
        raise BadRowsError(f"{bad.summary()}\nleave them out with --on_bad_row=skip", bad)
    splits = _cut(found, _ids(test_ids) if test_ids else None, counts, seed)
    every = list(_without_leaks(source, splits, left_out))
    for part in ("train", "test"):
        if not any(row["split"] == part for row in every):
            raise UserError(
                f"no rows for {part}: give files for it (--{part}), or files to split (--path) "
                "with more rows than --dev_count and --test_count ask for"
            )
    train = [row for row in every if row["split"] == "train"]
    train.sort(key=lambda row: _draw(seed, row["id"]))
    kept = train[: counts.train or None]
    if len(kept) < len(train):
        left_out["above --train_count"] += len(train) - len(kept)
    rest = [row for row in every if row["split"] != "train"]
    return Converted([*kept, *rest], left_out, bad)


def _cut(
    found: Mapping[str, Sequence[PublicQuestion]],
    test_ids: Collection[str] | None,
    counts: SplitCounts,
    seed: int,
) -> dict[str, list[PublicQuestion]]:
    """Returns the records by split; draws all records of a context for the same split.

    Raises:
      UserError: an id in `test_ids` is in no record.
    """
    splits = {part: list(found[part]) for part in ORDER}
    rest: dict[str, list[PublicQuestion]] = {}
    missing = set(test_ids or ())
    for record in found[CUT]:
        if test_ids is not None and record.id in test_ids:
            splits["test"].append(record)
            missing.discard(record.id)
        else:
            rest.setdefault(_normal(record.context), []).append(record)
    if missing:
        raise UserError(
            f"--test_ids names {len(missing):,} ids that no row of --path has, such as "
            f"{min(missing)}; give the file that contains them"
        )
    wanted = {part: 0 if splits[part] else getattr(counts, part) for part in ("test", "dev")}
    for context in sorted(rest, key=lambda context: _draw(seed, context)):
        part = next((part for part, count in wanted.items() if count > 0), "train")
        splits[part] += rest[context]
        if part in wanted:
            wanted[part] -= len(rest[context])
    return splits


def _without_leaks(
    source: str, splits: Mapping[str, Sequence[PublicQuestion]], left_out: collections.Counter[str]
) -> Iterator[dict[str, str]]:
    """Yields the rows whose context is in no earlier split, and whose question is new."""
    known: dict[str, str] = {}  # Context -> its split.
    asked: set[str] = set()
    for part in ORDER:
        for record in splits[part]:
            context, question = _normal(record.context), _normal(record.question)
            if known.setdefault(context, part) != part:
                left_out[f"{part} row whose context is already in {known[context]}"] += 1
            elif question in asked:
                left_out[f"{part} row that repeats a question"] += 1
            else:
                asked.add(question)
                row = {
                    "id": f"{source.partition('_')[0]}-{record.id}",
                    "question": record.question,
                    "answer": record.answer,
                    "split": part,
                    "human_rationale": record.human_rationale,
                }
                yield {name: value for name, value in row.items() if value}


def _ids(path: str) -> frozenset[str]:
    ids = frozenset(map(str, _json_of(path, "--test_ids")))
    if not ids:
        raise UserError(f"--test_ids={path}: contains no ids")
    return ids


def _normal(text: str) -> str:
    """Returns a text's words, so that texts that differ only in case or punctuation are equal.

    Signs and decimal points are dropped too; questions about one table differ in words.
    """
    return _NO_WORD.sub(" ", text.casefold()).strip()


def _draw(seed: int, name: str) -> bytes:
    """Returns the sort key of a random order that does not depend on the order of the rows."""
    return hashlib.sha256(f"{seed} {name}".encode()).digest()


def _pubmedqa(row: Row, columns: Columns) -> PublicQuestion:
    """Reads a question about an abstract; the hub has the same columns in lower case."""
    row = dataclasses.replace(row, value={k.lower(): v for k, v in row.value.items()})
    value, nested = row.value, row.value.get("context")
    value = {**value, **nested} if isinstance(nested, Mapping) else value
    texts, labels = value.get("contexts"), value.get("labels")
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise BadRowError("contexts is not a list of texts")
    if isinstance(labels, list) and len(labels) == len(texts):  # Section headings.
        texts = [f"{str(label).capitalize()}: {text}" for label, text in zip(labels, texts)]
    abstract = columns.clean("\n".join(texts))
    answer = columns.text(row, "final_decision").lower()
    if answer not in ("yes", "no", "maybe"):
        raise bad_value("final_decision", answer, "is not yes, no or maybe")
    question = columns.text(row, "question")
    return PublicQuestion(
        columns.text(row, "pubid"),
        abstract,
        f"Abstract:\n{abstract}\n\nQuestion: {question}",
        answer,
        columns.text(row, "long_answer", required=False),
    )


def _legalbench(row: Row, columns: Columns) -> PublicQuestion:
    """Reads a row of a task: all columns but the index and the answer are the question."""
    names = [name for name in row.value if name and name not in ("index", "answer")]
    if not names:
        raise BadRowError("has no column besides index and answer")
    texts = {name: columns.text(row, name) for name in names}
    lines = (f"{name.replace('_', ' ').capitalize()}: {text}" for name, text in texts.items())
    text = "\n".join(lines) if len(texts) > 1 else texts[names[0]]
    answer = columns.text(row, "answer")
    return PublicQuestion(columns.text(row, "index"), text, text, answer)


def _tatqa(row: Row, columns: Columns, numeric: bool) -> PublicQuestion | None:
    """Reads a question of TAT-QA; returns None unless its answer is of the requested kind."""
    value = row.value
    spans = value.get("answer")
    spans = spans if isinstance(spans, list) else [spans]
    if not spans or not all(isinstance(span, str | int | float) for span in spans):
        raise bad_value("answer", value.get("answer"), "is not a text, a number or a list of texts")
    answer = "; ".join(columns.clean(str(span)).strip() for span in spans)
    if not answer:
        raise BadRowError("answer is empty")
    kind, scale = columns.text(row, "answer_type"), value.get("scale") or ""
    if kind in ("arithmetic", "count", "counting") and numbers.read(answer) is None:
        raise bad_value("answer", answer, f"of answer_type={kind} is not a number")
    if (len(spans) == 1 and numbers.read(answer) is not None) != numeric:
        return None
    question = columns.text(row, "question")
    if scale:
        question += f" Answer in {scale if scale == 'percent' else f'{scale}s'}."
    derivation = columns.text(row, "derivation", required=False) if kind == "arithmetic" else ""
    context = columns.text(row, "context")
    return PublicQuestion(
        columns.text(row, "uid"),
        context,
        f"{context}\n\nQuestion: {question}",
        answer,
        f"Derivation: {derivation}" if derivation else "",
    )


def _questions(row: Row) -> Iterator[Row]:
    """Yields the questions of a table and its paragraphs as rows, each with the context."""
    try:
        if row.problem:
            raise row.problem
        cells, paragraphs = row.value["table"]["table"], row.value["paragraphs"]
        lines = [" | ".join(str(cell).strip() for cell in line) for line in cells]
        texts = [text["text"].strip() for text in sorted(paragraphs, key=_order)]
        context = "\n".join(["Text:", *texts, "", "Table:", *lines])
        questions = [{**question, "context": context} for question in row.value["questions"]]
    except (BadRowError, LookupError, TypeError, AttributeError, ValueError) as error:
        fault = BadRowError("has no table of cells, list of paragraphs or list of questions")
        known = error if isinstance(error, BadRowError) else fault
        yield Row(row.file, row.place, {}, known)
        return
    for number, value in enumerate(questions, 1):
        yield Row(row.file, f"{row.place}, question {number}", value)


def _order(paragraph: Mapping[str, Any]) -> int:
    return int(paragraph["order"])


# Source -> the function that reads a row; it returns None to leave the row out.
SOURCES: dict[str, Callable[[Row, Columns], PublicQuestion | None]] = {
    "pubmedqa": _pubmedqa,
    "legalbench": _legalbench,
    "tatqa_numbers": lambda row, columns: _tatqa(row, columns, numeric=True),
    "tatqa_spans": lambda row, columns: _tatqa(row, columns, numeric=False),
}


def _rows(path: str, part: str) -> Iterator[Row]:
    """Yields the rows of a file, read by its suffix; `part` is the flag that names the file."""
    setting, suffix = f"--{part}", Path(path).suffix.lower()
    if suffix in SUFFIXES:
        yield from read_file(SUFFIXES[suffix], path, setting)
        return
    if suffix != ".json":
        known = ", ".join(kind.removeprefix(".") for kind in (".json", *SUFFIXES))
        raise UserError(f"{setting}={path}: give a {known} file; unpack archives")
    require(Path(path).is_file(), f"{setting}={path}: no such file")
    value = _json_of(path, setting)
    if isinstance(value, dict):  # PubMedQA's: id -> row.
        value = [
            {"pubid": key, **row} if isinstance(row, dict) else row for key, row in value.items()
        ]
    for number, row in enumerate(value, 1):
        yield _row(path, f"item {number}", row)


def _row(path: str, place: str, value: Any) -> Row:
    if isinstance(value, dict):
        return Row(path, place, value)
    return Row(path, place, {}, BadRowError(f"is a JSON {type(value).__name__}, not an object"))


def _json_of(path: str, setting: str) -> Any:
    """Returns the list or object in a JSON file; its floats keep the digits of the file.

    Raises:
      UserError: the file holds neither; `setting` is the flag that names it.
    """
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            value = json.load(file, parse_float=WrittenFloat)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{setting}={path}: is not JSON ({error})") from None
    if not isinstance(value, dict | list):
        raise UserError(
            f"{setting}={path}: holds a {type(value).__name__}, not a list or an object"
        )
    return value
