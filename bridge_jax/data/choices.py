"""The options of a row: read from its `choices` column, shown in its question, named by its answer.

An answer may name its option in four ways: by its *text*, by a *letter* (A is the first; or by the
row's own labels, as ARC and CommonsenseQA have them), by an *index* counted from 0 (the convention
of Hugging Face's datasets) or by a *number* counted from 1. `data.answer_is` says which; "auto"
takes what is said in one way only. It never takes a number counted from 1, which would be another
option as an index.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from bridge_jax.data.answers import parse_answer
from bridge_jax.data.bad_rows import BadRowError, shown
from bridge_jax.data.example import AnswerKind, Example
from bridge_jax.data.options import options_in

Way = Literal["text", "letter", "index", "number"]

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Options(NamedTuple):
    """The options of one question.

    Attributes:
      texts: of each option, in order, all different.
      labels: the row's own names of the options, as "A" or "1", in capitals; empty if none.
      of: who lists them: the row, in its column; its question; or the task, for all rows alike.
      are_numbers: whether the row's own were numbers, not strings.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    of: Literal["row", "question", "task"] = "row"
    are_numbers: bool = False


def read(value: Any, column: str, clean: Callable[[str], str]) -> Options | None:
    """Returns the options in a `choices` column, or None if there are none.

    Args:
      value: a list of texts or numbers; a list of {"label": "A", "text": "..."}; their columns,
        {"label": ["A", ...], "text": [...]}; or {"A": "...", ...}, where null is no option.
      column: its name, for messages.
      clean: applied to each text.

    Raises:
      BadRowError: it is none of these, there is one option, or one is empty or there twice.
    """
    if value is None:
        return None
    pairs = _pairs(value)
    if pairs is None or not all(_is_text(each) for part in pairs for each in part):
        kind = "is not a list of texts or numbers"
        raise BadRowError(f"{column}={shown(value)} {kind}", f"{column} {kind}")
    # One line each: an option is shown on a line of its own.
    labels, texts = ([clean(" ".join(str(each).split())) for each in part] for part in pairs)
    if not texts and not labels:
        return None
    if len(texts) < 2 or len(labels) not in (0, len(texts)):
        kind = "is not two options or more"
        raise BadRowError(f"{column}={shown(value)} {kind}", f"{column} {kind}")
    labels = [_bare(label) for label in labels]
    if not labels:
        texts = _without_letters(texts)
    elif sorted(labels) == list(_LETTERS[: len(labels)]):
        labels, texts = zip(*sorted(zip(labels, texts)))
    if "" in texts:
        raise BadRowError(f"{column}[{texts.index('')}] is empty", f"{column} has an empty option")
    for names in (texts, labels):
        if twice := [name for i, name in enumerate(names) if name in names[:i]]:
            raise BadRowError(
                f"{column} has the option {shown(twice[0])} twice", f"{column} repeats an option"
            )
    are_numbers = not any(isinstance(text, str) for text in pairs[1])
    return Options(tuple(texts), tuple(labels), "row", are_numbers)


def _pairs(value: Any) -> tuple[list[Any], list[Any]] | None:
    """Returns labels, maybe none, and texts; or None for what holds no options."""
    if isinstance(value, Mapping):
        if value.keys() != {"label", "text"}:
            kept = {label: text for label, text in value.items() if text is not None}
            return list(kept), list(kept.values())
        labels, texts = value["label"], value["text"]
        return (labels, texts) if isinstance(labels, list) and isinstance(texts, list) else None
    if not isinstance(value, list):
        return None
    if all(isinstance(each, Mapping) and each.keys() == {"label", "text"} for each in value):
        return [each["label"] for each in value], [each["text"] for each in value]
    return [], value


def _is_text(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | int) and not isinstance(value, bool)


def _bare(letter: str) -> str:
    """Returns a letter or label without its brackets and points, in capitals."""
    return letter.strip("().: ").upper()


def _without_letters(texts: list[str]) -> list[str]:
    """Returns texts without "A)", "(b)" or "C." before them, if all have their letter."""
    bare = []
    for text, letter in zip(texts, _LETTERS):
        for mark in (f"{letter})", f"({letter})", f"{letter}."):
            if text[: len(mark)].upper() == mark:
                bare.append(text[len(mark) :].strip())
                break
    return bare if len(bare) == len(texts) else texts


def shown_in(question: str, options: Options, kind: AnswerKind) -> str:
    """Returns the question with a row's own options below it, unless it lists them already.

    Every reader of an example, teacher, assistant or student, sees its question. Options of a
    choice have letters; labels of which one fits are listed without.

    Raises:
      BadRowError: the question lists them in another order, or there are more than letters.
    """
    listed, own = (
        [" ".join(text.split()).casefold() for text in texts]
        for texts in (options_in(question), options.texts)
    )
    if listed == own:
        return question
    if sorted(listed) == sorted(own):
        raise BadRowError("lists its options in another order than its column of choices")
    if kind != "choice":
        return "\n".join([question, "One of:", *(f"- {text}" for text in options.texts)])
    if len(own) > len(_LETTERS):
        raise BadRowError(
            f"has {len(own)} options; more than {len(_LETTERS)} have no letters: use "
            "data.kind=label"
        )
    lines = (f"{letter}) {text}" for letter, text in zip(_LETTERS, options.texts))
    return "\n".join([question, *lines])


def readings(value: Any, options: Options, kind: AnswerKind) -> dict[Way, int]:
    """Returns which option `value` names, by each way to read it that gives one."""
    found: dict[Way, int] = {}
    text, number = str(value).strip(), whole(value)
    if isinstance(value, float) and number is not None and text not in options.texts:
        text = str(number)
    same = [i for i, option in enumerate(options.texts) if option.casefold() == text.casefold()]
    name, labels = _bare(text), options.labels
    if text in options.texts:
        found["text"] = options.texts.index(text)
    elif len(same) == 1:
        found["text"] = same[0]
    elif len(name) > 1 and name not in labels:
        # As a reply is read: punctuation does not matter, nor a letter before the text.
        match = parse_answer(text, Example("", "", "", kind, options.texts))
        if match is not None:
            found["text"] = options.texts.index(match)
    if name in labels:
        found["letter"] = labels.index(name)
    elif not labels and len(name) == 1 and name in _LETTERS[: len(options.texts)]:
        label_of_row = kind == "label" and options.of != "task" and not found
        if kind == "choice" or label_of_row:
            found["letter"] = _LETTERS.index(name)
    if number is not None and 0 <= number < len(options.texts):
        found["index"] = number
    if number is not None and 1 <= number <= len(options.texts):
        found["number"] = number - 1
    return found


def whole(value: Any) -> int | None:
    """Returns a whole number, also one of digits or of a float column that has gaps; or None."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None
    return int(value) if value == value // 1 else None


def named_by(
    value: Any, options: Options, kind: AnswerKind, answer_is: str, column: str
) -> tuple[Way | Literal["either"], int] | None:
    """Returns how an answer names an option, and which one; None if it names none.

    Args:
      value: a text or a number, not a truth value.
      options: of the question or of the task.
      kind: choice or label.
      answer_is: one of the four ways, or `auto`.
      column: of the answer, for messages.

    Returns:
      The way (`either` if several name the same option) and the option's place from 0.

    Raises:
      BadRowError: `auto`, and the answer names different options by different ways.
    """
    found = readings(value, options, kind)
    if answer_is != "auto":
        way: Any = answer_is
        return (way, found[way]) if way in found else None
    number = found.pop("number", None)
    if options.labels and "letter" in found:
        found.pop("index", None)
    if len(found) > 1 and len(set(found.values())) == 1:
        return "either", next(iter(found.values()))
    if options.of == "task" and "text" in found:
        return "text", found["text"]  # The labels of the task are said as its answers have them.
    is_index = not isinstance(value, str | float) and not options.are_numbers
    if "index" in found and is_index:
        return "index", found["index"]
    if list(found) == ["index"] and isinstance(value, str) and number is not None:
        found["number"] = number  # Digits in quotation marks may count from either.
    if len(found) > 1:
        ways = ", ".join(f"{shown(options.texts[i])} by its {way}" for way, i in found.items())
        choice = f"data.answer_is={' or '.join(found)}"
        raise BadRowError(
            f"{column}={shown(value)} is {ways}: say which with {choice}",
            f"{column} names different options by its {' and its '.join(found)}",
            f"say which is meant with {choice}",
        )
    return next(iter(found.items()), None)
