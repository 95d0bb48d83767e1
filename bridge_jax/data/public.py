"""Converts public datasets to rows of `data.source=jsonl`, in splits that share no context.

| source | dataset | answers |
|---|---|---|
| `pubmedqa` | PubMedQA (1909.06146), also as on the hub (qiaojin/PubMedQA) | yes, no, maybe |
| `legalbench` | a task of LegalBench (2308.11462; nguha/legalbench) | a label |
| `tatqa_numbers` | TAT-QA (2105.07624): calculations, counts, spans that are numbers | a number |
| `tatqa_spans` | TAT-QA: all other answers; several spans are joined by "; " | a text |

A question holds its context: the abstract; the clause; the paragraphs and the table. TAT-QA's scale
(thousand, million, percent) is told in the question, which its own metric asks for as a part of the
answer. What an abstract concludes (`LONG_ANSWER`) and the derivation of a calculation become
`human_rationale`.

Files may be of one split each, as published, or are cut here. No context is in two splits: where
one is, it stays in the test, or else in dev. Rows for training come in random order.
"""

import collections
import dataclasses
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from bridge_jax.data.public_rows import SOURCES, Record, json_of, questions, rows
from bridge_jax.data.rows import BadRowError, BadRows, BadRowsError, Columns, bad_value
from bridge_jax.errors import UserError

ORDER = ("test", "dev", "train")  # Where a context is in two splits, it stays in the first.
CUT = "path"  # Files that are cut.

_NO_WORD = re.compile(r"[\W_]+")


@dataclasses.dataclass(frozen=True)
class Counts:
    """Rows of each split.

    Attributes:
      train: at most; 0 is all.
      dev, test: as many are drawn from the files that are cut, if no files of the split are given.
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
    counts: Counts = Counts(),
    seed: int = 0,
    on_bad_row: str = "error",
) -> Converted:
    """Converts the files of a dataset.

    Args:
      source: a key of `SOURCES`.
      files: "train", "dev" and "test" -> files of that split; "path" -> files that are cut.
      test_ids: a JSON file of the ids whose rows are the test, of those that are cut: a list, or an
        object with the ids as keys, as PubMedQA's `test_ground_truth.json`.
      counts: of rows.
      seed: of the cut and of the order.
      on_bad_row: "error", or "skip".

    Raises:
      BadRowsError: rows are malformed.
      UserError: a file cannot be read, or a split would be empty.
    """
    columns, bad, left_out = Columns({}), BadRows(), collections.Counter[str]()
    found: dict[str, list[Record]] = {part: [] for part in (*ORDER, CUT)}
    for part, paths in files.items():
        ids: dict[str, str] = {}
        for raw in (row for path in paths for row in rows(path, part)):
            for row in questions(raw) if source.startswith("tatqa") else [raw]:
                bad.total += 1
                try:
                    if row.problem:
                        raise row.problem
                    record = SOURCES[source](row, columns)
                    if record is None:
                        left_out["of another kind of answer"] += 1
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
                f"no rows for {part}: give files of it (--{part}), or files to cut (--path) with "
                "more rows than --dev_count and --test_count ask for"
            )
    train = [row for row in every if row["split"] == "train"]
    train.sort(key=lambda row: _draw(seed, row["id"]))
    kept = train[: counts.train or None]
    if len(kept) < len(train):
        left_out["above --train_count"] += len(train) - len(kept)
    rest = [row for row in every if row["split"] != "train"]
    return Converted([*kept, *rest], left_out, bad)


def _cut(
    found: Mapping[str, Sequence[Record]],
    test_ids: Collection[str] | None,
    counts: Counts,
    seed: int,
) -> dict[str, list[Record]]:
    """Returns the records by split; records with the same context get the same one.

    Raises:
      UserError: an id of the test is not there.
    """
    splits = {part: list(found[part]) for part in ORDER}
    rest: dict[str, list[Record]] = {}
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
            f"{min(missing)}; give the file that they are of"
        )
    wanted = {part: 0 if splits[part] else getattr(counts, part) for part in ("test", "dev")}
    for context in sorted(rest, key=lambda context: _draw(seed, context)):
        part = next((part for part, count in wanted.items() if count > 0), "train")
        splits[part] += rest[context]
        if part in wanted:
            wanted[part] -= len(rest[context])
    return splits


def _without_leaks(
    source: str, splits: Mapping[str, Sequence[Record]], left_out: collections.Counter[str]
) -> Iterator[dict[str, str]]:
    """Yields the rows whose context is in no split before, and whose question is new."""
    known: dict[str, str] = {}  # Context -> its split.
    asked: set[str] = set()
    for part in ORDER:
        for record in splits[part]:
            context, question = _normal(record.context), _normal(record.question)
            if known.setdefault(context, part) != part:
                left_out[f"of {part} has a context of {known[context]}"] += 1
            elif question in asked:
                left_out[f"of {part} repeats a question"] += 1
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
    ids = frozenset(map(str, json_of(path, "--test_ids")))
    if not ids:
        raise UserError(f"--test_ids={path}: holds no ids")
    return ids


def _normal(text: str) -> str:
    """Returns a text's words, so that texts that differ in case or punctuation are the same.

    A sign and a decimal point are punctuation too; questions about one table differ in words.
    """
    return _NO_WORD.sub(" ", text.casefold()).strip()


def _draw(seed: int, name: str) -> bytes:
    """Returns what to sort by for a random order, which is the same for any order of the rows."""
    return hashlib.sha256(f"{seed} {name}".encode()).digest()
