"""Reads the rows of public datasets in their published formats (`data.public` converts them)."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bridge_jax.data import numbers
from bridge_jax.data.formats import SUFFIXES, WrittenFloat, read_file
from bridge_jax.data.rows import BadRowError, Columns, Row, bad_value
from bridge_jax.errors import UserError, require


class Record(NamedTuple):
    """A question of a dataset.

    Attributes:
      id: the dataset's own.
      context: what the question is about; no other split may have it.
      question: with its context.
      answer: the gold answer.
      human_rationale: what people wrote as a reason; may be empty.
    """

    id: str
    context: str
    question: str
    answer: str
    human_rationale: str = ""


def _pubmedqa(row: Row, columns: Columns) -> Record:
    """Reads a question about an abstract; the hub has the same columns in lower case."""
    row = dataclasses.replace(row, value={k.lower(): v for k, v in row.value.items()})
    value, nested = row.value, row.value.get("context")
    value = {**value, **nested} if isinstance(nested, Mapping) else value
    texts, labels = value.get("contexts"), value.get("labels")
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise BadRowError("contexts is not a list of texts")
    if isinstance(labels, list) and len(labels) == len(texts):  # Headings of the parts.
        texts = [f"{str(label).capitalize()}: {text}" for label, text in zip(labels, texts)]
    abstract = columns.clean("\n".join(texts))
    answer = columns.text(row, "final_decision").lower()
    if answer not in ("yes", "no", "maybe"):
        raise bad_value("final_decision", answer, "is not yes, no or maybe")
    question = columns.text(row, "question")
    return Record(
        columns.text(row, "pubid"),
        abstract,
        f"Abstract:\n{abstract}\n\nQuestion: {question}",
        answer,
        columns.text(row, "long_answer", required=False),
    )


def _legalbench(row: Row, columns: Columns) -> Record:
    """Reads a row of a task: all columns but the index and the answer are the question."""
    names = [name for name in row.value if name and name not in ("index", "answer")]
    if not names:
        raise BadRowError("has no column beside index and answer")
    texts = {name: columns.text(row, name) for name in names}
    lines = (f"{name.replace('_', ' ').capitalize()}: {text}" for name, text in texts.items())
    text = "\n".join(lines) if len(texts) > 1 else texts[names[0]]
    answer = columns.text(row, "answer")
    return Record(columns.text(row, "index"), text, text, answer)


def _tatqa(row: Row, columns: Columns, numeric: bool) -> Record | None:
    """Reads a question of TAT-QA; returns None if its answer is not of the kind that is wanted."""
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
    return Record(
        columns.text(row, "uid"),
        context,
        f"{context}\n\nQuestion: {question}",
        answer,
        f"Derivation: {derivation}" if derivation else "",
    )


def questions(row: Row) -> Iterator[Row]:
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


# Name -> the reader of a row; None leaves it out.
SOURCES: dict[str, Callable[[Row, Columns], Record | None]] = {
    "pubmedqa": _pubmedqa,
    "legalbench": _legalbench,
    "tatqa_numbers": lambda row, columns: _tatqa(row, columns, numeric=True),
    "tatqa_spans": lambda row, columns: _tatqa(row, columns, numeric=False),
}


def rows(path: str, part: str) -> Iterator[Row]:
    """Yields the rows of a file by its type; `part` is the flag that names it."""
    setting, suffix = f"--{part}", Path(path).suffix.lower()
    if suffix in SUFFIXES:
        yield from read_file(SUFFIXES[suffix], path, setting)
        return
    if suffix != ".json":
        known = ", ".join(kind.removeprefix(".") for kind in (".json", *SUFFIXES))
        raise UserError(f"{setting}={path}: give a {known} file; unpack archives")
    require(Path(path).is_file(), f"{setting}={path}: no such file")
    value = json_of(path, setting)
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


def json_of(path: str, setting: str) -> Any:
    """Returns the list or object of a JSON file, numbers with the digits of the file.

    Raises:
      UserError: it holds neither; `setting` is the flag that names it.
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
