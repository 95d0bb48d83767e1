"""Guesses how to read a user's file: its format, its columns and the kind of its answers.

Only what is unambiguous is guessed, and every guess is reported.
"""

import collections
import dataclasses
import math
import random
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bridge_jax.config import DataConfig
from bridge_jax.data import numbers, sources
from bridge_jax.data.formats import SUFFIXES
from bridge_jax.data.rows import OFTEN, Row, names
from bridge_jax.errors import UserError

# Our defaults: the maximum number of labels; the minimum number of rows per label, on average; the
# minimum share of the answered rows that each label has, since a misspelled one is rarer; and the
# minimum share of answered rows whose answer is a label.
_LABELS, _ROWS_A_LABEL, _SHARE_OF_LABEL, _COVERED = 50, 3, 1 / 500, 0.95
_FEW = 100  # In fewer rows than this, any answer may be a label.
_MANY = 100_000  # Rows kept in memory to guess from; a larger file is sampled.
_WORDS = 4  # A column of questions averages at least this many; a number with its unit has fewer.
_NUMBERS = 0.95  # The minimum share of answers that are numbers if the kind is numeric.

_OURS = ("question", "answer", "split", "id")

Kind = Literal["choice", "label", "numeric", "text"]


class Guess(NamedTuple):
    """The config to read a file with, and sentences on which of its settings were guessed."""

    config: DataConfig
    said: tuple[str, ...]


def guess(config: DataConfig, given: Collection[str] = ()) -> Guess:
    """Returns `config` with the settings that its file makes clear.

    Args:
      config: names the file.
      given: the fields that must not be guessed; of `columns`, unmapped ones still are.

    Raises:
      UserError: the file cannot be read, or its format or its columns are not clear.
    """
    said: list[str] = []
    if "source" not in given:
        config = dataclasses.replace(config, source=_source(config.path))
        said.append(f"data.source={config.source}, from the name of the file")
    rows = _drawn(row for row in sources.raw_rows(config, "data.path") if not row.problem)
    if not rows:
        return Guess(config, tuple(said))
    if found := _columns(rows, config.columns):
        pairs = ",".join(f"{ours}:{theirs}" for ours, theirs in found.items())
        said.append(f"data.columns={pairs}, from their names and values")
        config = dataclasses.replace(config, columns={**config.columns, **found})
    column = config.columns.get("answer", "answer")
    answers = [row.value[column] for row in rows if row.value.get(column) is not None]
    if not answers and "labelled" not in given and {"kind", "choices"} & set(given):
        config = dataclasses.replace(config, labelled=False)
        said.append("data.labelled=false: no row has an answer, so the teacher's are the labels")
    if not answers and "kind" in given:
        return Guess(config, tuple(said))
    if "kind" in given and "choices" in given:
        return Guess(config, tuple(said))
    if not answers and "choices" in given:
        said.append("data.kind=label, because choices are given")
        return Guess(dataclasses.replace(config, kind="label"), tuple(said))
    if not answers:
        raise UserError(
            f"{config.path}: no column clearly holds the answers; the columns are "
            f"{names(rows[0].value)}: name it with --data.columns=question:COLUMN,answer:COLUMN, "
            "or specify the answers to expect: --data.kind=label --data.choices=ONE,OTHER"
        )
    has_choices = config.columns.get("choices", "choices") in rows[0].value
    kind, choices = _kind(answers, config, has_choices)
    if "kind" in given:
        kind = config.kind
    if "choices" in given or kind != "label":
        choices = config.choices
    else:
        listed = names(choices)
        said.append(f"data.kind=label, as {names([column])} is one of {len(choices)}: {listed}")
        if rare := _rare(answers, choices):
            said.append(f"not taken for labels, since few rows have them: {rare}")
    if kind != "label" and "kind" not in given:
        said.append(f"data.kind={kind}, from the values of {names([column])}")
    return Guess(dataclasses.replace(config, kind=kind, choices=choices), tuple(said))


def _drawn(rows: Iterable[Row]) -> list[Row]:
    """Returns the rows, or a random sample if there are very many, always the same one."""
    rng, kept = random.Random(0), []
    for n, row in enumerate(rows):
        if n < _MANY:
            kept.append(row)
        elif (place := rng.randrange(n + 1)) < _MANY:
            kept[place] = row
    return kept


def _source(path: str) -> Any:
    """Returns the source that a file's suffix implies; a folder or a dataset of the hub is `hf`."""
    place = Path(path)
    if found := SUFFIXES.get(place.suffix.lower()):
        return found
    if place.is_file():
        raise UserError(
            f"data.path={path}: its name does not show its format; specify it with "
            "--data.source=csv, jsonl or parquet"
        )
    return "hf"


def _columns(rows: list[Row], mapped: Mapping[str, str]) -> dict[str, str]:
    """Returns our field -> column, for unmapped fields whose column clearly has another name."""
    columns = list(dict.fromkeys(column for row in rows for column in row.value))
    values = {column: [row.value.get(column) for row in rows] for column in columns}
    found: dict[str, str] = {}
    free = [column for column in columns if column not in (*_OURS, *mapped.values())]
    for ours in _OURS:
        if ours in columns or ours in mapped:
            continue
        likely = [column for column in free if column.lower() in OFTEN[ours]]
        if ours == "question" and not likely:
            likely = [column for column in free if _is_text(values[column])]
        if ours == "answer" and not likely:
            likely = [column for column in free if _repeats(values[column])]
        if ours == "split":
            likely = [column for column in likely if _are_splits(values[column])]
        if ours == "id":
            likely = [column for column in likely if _is_unique(values[column])]
        if len(likely) == 1:
            found[ours] = likely[0]
            free.remove(likely[0])
    return found


def _kind(
    answers: list[Any], config: DataConfig, has_choices: bool
) -> tuple[Kind, tuple[str, ...]]:
    """Returns the kind of answers, and the labels if there is a closed set of them."""
    if has_choices:
        return "choice", ()
    texts = [str(answer).strip() for answer in answers]
    if labels := _labels(texts):
        return "label", labels
    of_numbers = [
        text
        for text in texts
        if len(text.split()) < _WORDS and numbers.read(text, config.decimal) is not None
    ]
    if len(of_numbers) >= _NUMBERS * len(texts):
        return "numeric", ()
    return "text", ()


def _labels(texts: list[str]) -> tuple[str, ...]:
    """Returns the sorted labels that nearly all answers are one of; () if there is no such set."""
    spelled = collections.Counter(text for text in texts if text)
    counts: collections.Counter[str] = collections.Counter()
    spelling: dict[str, str] = {}
    for text, count in spelled.most_common():
        counts[text.casefold()] += count
        spelling.setdefault(text.casefold(), text)  # The most frequent spelling.
    least = 1 if len(texts) < _FEW else max(3, math.ceil(_SHARE_OF_LABEL * len(texts)))
    kept = [text for text, count in counts.items() if count >= least]
    is_closed = sum(counts[text] for text in kept) >= _COVERED * len(texts)
    if not is_closed or not 2 <= len(kept) <= min(_LABELS, len(texts) / _ROWS_A_LABEL):
        return ()
    return tuple(sorted(spelling[text] for text in kept))


def _rare(answers: list[Any], labels: tuple[str, ...]) -> str:
    """Returns the answers that are none of the labels, for a message."""
    known = {label.casefold() for label in labels}
    texts = (str(answer).strip() for answer in answers)
    return names(dict.fromkeys(text for text in texts if text and text.casefold() not in known))


def _is_unique(values: list[Any]) -> bool:
    known = [value for value in values if value is not None]
    return len(known) == len(values) == len(set(map(str, known)))


def _are_splits(values: list[Any]) -> bool:
    return all(str(value).strip().lower() in sources.SPLITS for value in values)


def _is_text(values: list[Any]) -> bool:
    """Returns whether these are texts of several words on average."""
    words = [len(value.split()) if isinstance(value, str) else 0 for value in values]
    return sum(words) >= _WORDS * len(words)


def _repeats(values: list[Any]) -> bool:
    """Returns whether these are a few values, each of them in several rows on average."""
    return bool(_labels([str(value).strip() for value in values if value is not None]))
