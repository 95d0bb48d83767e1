"""From a completion to an answer, and from an answer to right or wrong.

Every completion we train on ends in a line `Answer: ...`. Parsing is strict: a text that could be
read in two ways has no answer, which counts as wrong. Units and scales ("mL", "million") are read
past, not converted.
"""

import re
from collections.abc import Sequence
from decimal import Decimal

from bridge_jax.tasks.example import Example
from bridge_jax.tasks.rouge import rouge_l

ANSWER_MARK = "Answer:"

_NUMBER = re.compile(
    r"(?<![\w.])([-+]?)(?:[$€£]\s?)?([-+]?)((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)"
)
_OPERATOR = re.compile(r"\s*(?:[-+*/=x×÷^]|to\b)\s*[$€£]?\d")
_LETTERED = re.compile(r"\(?([A-Za-z])(?:[).:,]+\s*(.*))?", re.DOTALL)
_OPTION_LINE = re.compile(r"^\s*(?:\(([A-Za-z])\)|([A-Za-z])[).:])\s+(.+?)\s*$", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?][\"')]?\s+|\n+")
_CLOSING = re.compile(
    r"\b(?:answer|option|statement|choice)(?:\s+to\s+[^.\n]*?)?\s+is:?\s+|^####\s*|\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}",
    re.IGNORECASE | re.MULTILINE,
)


def split_completion(text: str) -> tuple[str, str | None]:
    """Returns (rationale, answer text), cut at the last `Answer:`; None where there is no mark."""
    head, mark, tail = text.rpartition(ANSWER_MARK)
    if not mark:
        return text.strip(), None
    return head.strip(), tail.strip().partition("\n")[0].strip()


def format_completion(rationale: str, answer: str) -> tuple[str, str]:
    """Returns the two parts of a target text; joined, they parse back.

    The line break belongs to the answer part, so that the rationale's loss ends with the rationale.
    """
    rationale = rationale.strip()
    return rationale, f"\n{ANSWER_MARK} {answer}" if rationale else f"{ANSWER_MARK} {answer}"


def parse_answer(text: str | None, example: Example) -> str | None:
    """Returns the canonical answer in `text`, or None if there is none or it is ambiguous.

    Canonical is the option's text (choice), the label as listed (label), the number without
    currency, unit, thousands commas and trailing zeros (numeric), or the words with single spaces
    (text).
    """
    text = (text or "").strip()
    if not text:
        return None
    if example.kind == "text":
        return " ".join(text.split())
    if example.kind == "numeric":
        number = _leading_number(text)
        return None if number is None else _canonical(number)
    found = _match(text, example.choices)
    if found is None and example.kind == "label":
        found = _match(re.split(r"[,.;:(]\s", text, maxsplit=1)[0], example.choices)
        options = options_in(example.question)
        if found is None and options:
            letter = _by_letter(text, options)
            found = _match(letter, example.choices) if letter else None
    elif found is None:
        found = _by_letter(text, example.choices)
    return found


def is_correct(predicted: str | None, example: Example) -> bool:
    """Whether a canonical answer equals the gold one, or is close enough to it (text).

    Numbers are equal if their values are. A gold number with two or more decimals is taken to be
    rounded: there, half a unit of its last decimal is allowed. Integers and single decimals (doses,
    days) get no tolerance. Our rule.
    """
    gold = parse_answer(example.answer, example)
    if predicted is None or gold is None:
        return False
    if example.kind == "text":
        return rouge_l(predicted, gold) >= example.min_rouge
    if example.kind != "numeric":
        return predicted == gold
    places = len(example.answer.partition(".")[2].strip().rstrip("%"))
    tolerance = Decimal(5).scaleb(-places - 1) if places >= 2 else Decimal(0)
    number = _leading_number(predicted)
    return number is not None and abs(number - Decimal(gold)) <= tolerance


def answer_of(completion: str, example: Example) -> str | None:
    """Returns the canonical answer of a completion."""
    return parse_answer(split_completion(completion)[1], example)


def answer_in_recorded_text(text: str, example: Example) -> tuple[str, str | None]:
    r"""Splits a recorded chain, which was not written in our format.

    Read in this order: our own mark; a closing sentence ("Therefore, among A through C, the answer
    is A.", "#### 39", "... \boxed{J}"); for numbers, the last one of the text, which then stays in
    the rationale (the convention of GSM8K's evaluations).

    Returns:
      The rationale without its closing sentence, and the canonical answer or None.
    """
    text = text.strip()
    if ANSWER_MARK in text:
        rationale, answer = split_completion(text)
        return rationale, parse_answer(answer, example)
    for closing in reversed(list(_CLOSING.finditer(text))):
        said = _unwrap(closing[1] or text[closing.end() :])
        if "\n" in said or (example.kind == "numeric" and not _is_brief(said)):
            continue
        answer = parse_answer(said, example)
        if answer is not None:
            ends = [end.end() for end in _SENTENCE_END.finditer(text, 0, closing.start())]
            rationale = text[: ends[-1] if ends else 0].strip()
            return rationale.removesuffix("\\[").rstrip(), answer
    if example.kind == "numeric":
        numbers = list(_NUMBER.finditer(text))
        return text, _canonical(_value(numbers[-1])) if numbers else None
    return text, None


def options_in(question: str) -> tuple[str, ...]:
    """Returns the options that a question lists, one a line: "A) yes" or "(a) yes", in order."""
    options: list[str] = []
    for first, second, text in _OPTION_LINE.findall(question):
        if (first or second).upper() == chr(ord("A") + len(options)):
            options.append(text)
    return tuple(options) if len(options) > 1 else ()


def _is_brief(said: str) -> bool:
    """Whether a number is all that is said, so that it is not one of a further calculation."""
    return len(said.split()) <= 6 and not _SENTENCE_END.search(said)


def _unwrap(text: str) -> str:
    """Returns what a closing sentence says, without its TeX, quotes and full stop."""
    text = re.sub(r"\\boxed|\\text|\\\(|\\\)|\\\[|\\\]|[{}]|\*\*|\\(?=\$)", "", text)
    return text.strip().strip("\"'").rstrip(".").strip("\"'").strip()


def _leading_number(text: str) -> Decimal | None:
    text = text.replace("\u2212", "-")
    numbers = list(_NUMBER.finditer(text))
    if not numbers or (numbers[0].start() > 0 and len(numbers) > 1):
        return None
    if _OPERATOR.match(text, numbers[0].end()):
        return None
    return _value(numbers[0])


def _value(match: re.Match[str]) -> Decimal:
    outer, inner, digits = match.groups()
    value = Decimal(digits.replace(",", ""))
    return -value if (outer + inner).count("-") == 1 else value


def _canonical(value: Decimal) -> str:
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _plain(text: str) -> str:
    """Returns lower-case words; a point or a minus survives only as part of a number."""
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text.casefold())
    return " ".join(re.sub(r"(?<!\d)\.|\.(?!\d)|-(?!\d)|(?<=\w)-|[^\w\s.-]", " ", text).split())


def _match(text: str, choices: Sequence[str]) -> str | None:
    """Returns the choice equal to `text` but for case and punctuation."""
    if text in choices:
        return text
    found = [choice for choice in choices if _plain(choice) == _plain(text)]
    return found[0] if len(found) == 1 and _plain(text) else None


def _by_letter(text: str, options: Sequence[str]) -> str | None:
    """Returns the option named by its letter; "B) no" must not contradict itself."""
    match = _LETTERED.fullmatch(text)
    if not match:
        return None
    index = ord(match[1].upper()) - ord("A")
    if index >= len(options):
        return None
    rest = match[2] or ""
    named = _match(rest, options) or _by_letter(rest, options)
    return options[index] if named in (None, options[index]) else None
