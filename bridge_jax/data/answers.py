"""Parses the answers of completions, and compares them with the gold answers.

Every completion we train on ends in a line `Answer: ...`. Parsing is strict: a text that could be
read in two ways has no answer, which counts as wrong. Gold answers and replies are parsed alike:
numbers by `numbers`, options and labels by `options`, after `markup` has removed Markdown and TeX.
Free texts are scored by ROUGE-L. Parsing takes time linear in the length of the text; expressions
have a time limit of their own (`mathematics`).
"""

import contextlib
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from bridge_jax.data import markup, mathematics, numbers
from bridge_jax.data.example import Example
from bridge_jax.data.options import named
from bridge_jax.errors import UserError

ANSWER_MARK = "Answer:"

# Our mark anywhere; other forms ("**Final answer**: 12", "### Answer") only where a line begins.
_MARK = re.compile(
    r"(?-i:Answer:)|^[ \t>#*_-]*+"
    r"(?:(?:so|thus|hence|therefore|the|my|our|final|correct|best|short)\b[ \t,*_]*+)*+"
    r"answer[ \t*_]*+(?:[:：=]|(?<=[ \t])[-–—](?=[ \t]))"
    r"|^[ \t]*+(?:#{1,6}[ \t]*+|\*\*|__)(?:final[ ]++)?answer[ \t*_]*+$"
    r"|^[ \t]*+<answer>",
    re.IGNORECASE | re.MULTILINE,
)
# Words before the mark that belong to it: "so the final **Answer:** 12".
_BEFORE_MARK = re.compile(
    r"(?:\b(?:the|my|our|final|correct)[ \t]++|[*_#]++[ \t]*+)++$", re.IGNORECASE
)
_EMPHASIS = re.compile(r"[*_]+(?=\w)|(?<=[\w:：])[*_]+")
_FRAME = re.compile(r"(?:\$\$|\\\[|\\\(|`{3}\w*|[*_]+)\s*")

_SENTENCE_END = re.compile(r"[.!?][\"')]?\s+|\n+")
_CLOSING_WORD = re.compile(
    r"(?P<mark>^####\s*+)|\b(?P<noun>(?:answer|option|statement|choice)\b\s*+)(?P<to>to\b)?+"
    r"|\b(?P<verb>is\b:?\s++)|(?P<end>[.\n])",
    re.IGNORECASE | re.MULTILINE,
)
# Text before a closing that denies it ("not \boxed{13}") or makes it one answer of several.
_NOT_BEFORE = re.compile(r"\b(?:not|instead of|rather than)\b[\s$*\\(\[]*\Z", re.IGNORECASE)
_OTHERWISE = re.compile(
    r"\b(?:wrong|incorrect|false|worst|other|not the(?: correct| right| best)?)\s+\Z"
    r"|\}[\s$*\\)\].,]*(?:or|and)[\s$*\\(\[]*\Z",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\b(?:wait|actually|correction|no|but|however|hmm|mistake|recheck|instead)\b", re.IGNORECASE
)
_NOT_THAT = re.compile(r"(?:,| and|, and)? not\b", re.IGNORECASE)
_LONGEST_ANSWER = 2000
_MOST_CLOSINGS = 20
_MOST_WORDS = 2000  # Words of a text that ROUGE-L compares.


def split_completion(text: str) -> tuple[str, str | None]:
    """Returns (rationale, answer text), split at the last `Answer:`; without one, answer is None.

    At the beginning of a line, the mark may have the forms that other models use: "**Answer:** 12",
    "Final answer: 12", "### Answer". It is not a part of the rationale.
    """
    rationale, answer, _ = cut_completion(text)
    return rationale, answer


def cut_completion(text: str) -> tuple[str, str | None, str]:
    """Returns (rationale, answer text, text after the answer's line); see `split_completion`."""
    mark = _last_mark(text)
    if mark is None:
        return text.strip(), None, ""
    head, tail = text[: mark.start()], text[mark.end() :]
    line = head[head.rfind("\n") + 1 :][-60:]
    before = _BEFORE_MARK.search(line)
    said_before = before[0] if before else ""
    head = head.removesuffix(said_before)
    answer, _, rest = tail.strip().partition("\n")
    for _ in range(3):  # "$$", then the answer on a line of its own
        if not rest or not _FRAME.fullmatch(answer):
            break
        answer, _, rest = rest.strip().partition("\n")
    if len(_EMPHASIS.findall(said_before + mark[0])) % 2:
        unclosed = answer.lstrip("*_")
        answer = unclosed if unclosed != answer else answer.rstrip("*_")
    if mark[0].lstrip().startswith("<"):
        answer = re.split("</answer>", answer, maxsplit=1, flags=re.IGNORECASE)[0]
    return head.strip(), answer.strip(), rest.strip()


def format_completion(rationale: str, answer: str) -> tuple[str, str]:
    """Returns the rationale part and the answer part of a target text.

    Joined, they parse back into both. The line break is in the answer part, so that the rationale's
    loss ends with the rationale.
    """
    rationale = rationale.strip()
    return rationale, f"\n{ANSWER_MARK} {answer}" if rationale else f"{ANSWER_MARK} {answer}"


def parse_answer(text: str | float | None, example: Example) -> str | None:
    """Returns the canonical answer in `text`, or None if there is none or it is ambiguous.

    The canonical form is the option's text (choice), the label as listed (label), the number
    without currency, unit, grouping and trailing zeros (numeric), the expression without box and
    dollar signs (math), or the words with single spaces (text). Parsing a canonical answer returns
    it unchanged.

    Args:
      text: an answer, or a number from JSON.
      example: the question.
    """
    if isinstance(text, int | float):
        text = numbers.from_json(text, example.decimal)
    text = (text or "").strip()
    if not text:
        return None
    if example.kind == "text":
        return " ".join(text.split())
    if example.kind == "numeric":
        number = _number(text, example)
        return None if number is None else numbers.canonical(number.value, example.decimal)
    if example.kind == "math":
        return mathematics.canonical(text)
    return named(text, example)


def is_correct(predicted: str | None, example: Example) -> bool:
    """Returns whether a canonical answer equals the gold one; a text has to be close enough.

    Numbers and expressions are equal if their values are. A gold number with two or more decimals
    is taken to be rounded, so an error of half a unit in its last decimal is allowed. Integers,
    fractions and numbers with one decimal (doses, days) get no tolerance. This rule is ours.

    Raises:
      ValueError: the question has no gold answer; see `verdict`.
    """
    expected = example.gold
    if predicted is None:
        return False
    if example.kind == "numeric":
        gold, number = _number(expected, example), _number(predicted, example)
        if gold is None or number is None:
            return False
        tolerance = Fraction(1, 2 * 10**gold.places) if gold.places >= 2 else 0
        return abs(number.value - gold.value) <= tolerance
    gold = parse_answer(expected, example)
    if gold is None:
        return False
    if example.kind == "text":
        return rouge_l(predicted, gold) >= example.min_rouge
    if example.kind == "math":
        return mathematics.equal(gold, predicted)
    return predicted == gold


def verdict(predicted: str | None, example: Example) -> bool | None:
    """Returns the result of `is_correct`, or None for a question without a gold answer."""
    return None if example.answer is None else is_correct(predicted, example)


def rouge_l(hypothesis: str, reference: str) -> float:
    """Returns the ROUGE-L F-measure (Lin 2004) of two texts, 0 to 1.

    It is the harmonic mean of precision and recall, which are the longest common subsequence's
    share of the words of the hypothesis and of the reference. A word is a run of letters, digits
    and underscores, compared without case. The subsequence is searched for in the first 2,000 words
    of each text, since the time grows with the product of the lengths; later words count as not in
    common.

    Raises:
      UserError: tensorflow-text is not installed.
    """
    words = [re.findall(r"\w+", text.casefold()) for text in (hypothesis, reference)]
    if not all(words):
        return 0.0
    tf, library = load_tensorflow_text()
    compared = [text[:_MOST_WORDS] for text in words]
    f_measure, _, _ = library.metrics.rouge_l(*(tf.ragged.constant([text]) for text in compared))
    share = sum(map(len, compared)) / sum(map(len, words))
    return float(f_measure[0]) * share


def load_tensorflow_text(
    needed_for: str = "data.kind=text is scored by ROUGE-L, which",
) -> tuple[Any, Any]:
    """Returns the modules tensorflow and tensorflow_text; `needed_for` begins the error message.

    Raises:
      UserError: tensorflow-text is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # else it logs each missing GPU
    try:
        import tensorflow as tf  # pyright: ignore[reportMissingImports]
        import tensorflow_text  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise UserError(
            f"{needed_for} needs the tensorflow-text package: pip install 'bridge-jax[tf-text]'"
        ) from None
    # Otherwise TensorFlow would take the memory of the GPUs that JAX runs on.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
    return tf, tensorflow_text


def answer_of(completion: str, example: Example) -> str | None:
    """Returns the canonical answer of a completion."""
    return parse_answer(split_completion(completion)[1], example)


def answer_in_recorded_text(text: str, example: Example) -> tuple[str, str | None]:
    r"""Splits a recorded rationale whose format is not ours.

    The answer is searched for in this order: after an answer mark; in a closing sentence
    ("Therefore, among A through C, the answer is A.", "#### 39", "... \boxed{J}"); and, for numeric
    questions, as the last number of a text that announces no answer (the convention of GSM8K's
    evaluations). This last number stays in the rationale.

    Returns:
      The rationale without its closing sentence, and the canonical answer or None.
    """
    text = text.strip()
    mark = _last_mark(text)
    if mark is not None:
        rationale, said = split_completion(text)
        answer = parse_answer(said, example)
        if answer is None:
            answer = next((answer for _, answer in _closings(text[mark.end() :], example)), None)
        if answer is not None or ANSWER_MARK in mark[0]:
            return rationale, answer
    is_announced = False
    for start, answer in _closings(text, example):
        if answer is None:
            is_announced = True
            break
        ends = [end.end() for end in _SENTENCE_END.finditer(text, 0, start)]
        rationale = text[: ends[-1] if ends else 0].strip()
        return rationale.removesuffix("\\[").removesuffix("$$").rstrip(), answer
    if example.kind == "numeric" and not is_announced:
        number = numbers.last(markup.plain(text), example.decimal)
        if number is not None:
            return text, numbers.canonical(number.value, example.decimal)
    return text, None


def _number(text: str, example: Example) -> numbers.Number | None:
    return numbers.read(markup.without_lead_ins(text)[-1], example.decimal)


def _last_mark(text: str) -> re.Match[str] | None:
    marks = list(_MARK.finditer(text))
    return marks[-1] if marks else None


def _closings(text: str, example: Example) -> Iterator[tuple[int, str | None]]:
    """Yields (start, answer) of each closing sentence, the last one first.

    The answer is None if the sentence announces one that cannot be read.
    """
    end = _end_of_words(text)
    found = [(*box, True) for box in markup.boxes(text)]
    found += [(start, begin, end, False) for start, begin in _announcements(text) if begin <= end]
    for start, begin, stop, is_box in sorted(found, reverse=True)[:_MOST_CLOSINGS]:
        before, after = text[max(0, start - 60) : start], ""
        if _NOT_BEFORE.search(before):
            continue
        if not is_box and (line_end := text.find("\n", begin, end)) >= 0:
            stop, after = line_end, text[line_end:end]
        if stop - begin > _LONGEST_ANSWER:
            yield start, None
            continue
        if _OTHERWISE.search(before) or _TAKEN_BACK.search(after):
            yield start, None
            continue
        said = text[begin:stop]
        if not is_box and not re.search(r"\w", said.replace("\\boxed", "")):
            continue  # a text that was cut off announces nothing
        if example.kind == "numeric" and "=" in said and not _is_brief(said):
            continue  # a calculation continues, and its result is the answer
        yield start, _announced(said, example)


def _announced(said: str, example: Example) -> str | None:
    """Returns the answer that a closing sentence announces, in `said`: "12", or "12, not 5"."""
    if example.kind == "math":
        return parse_answer(said, example)
    said = markup.plain(said.strip().removesuffix(".")).removesuffix(".")
    if "\n" in said or (example.kind == "numeric" and not _is_brief(said)):
        return None
    answer = parse_answer(said, example)
    tail = _NOT_THAT.search(said)
    if answer or not tail or parse_answer(said[tail.start() :].lstrip(" ,"), example):
        return answer
    return parse_answer(said[: tail.start()], example)


def _announcements(text: str) -> Iterator[tuple[int, int]]:
    """Yields the start of each "the answer is" or "####", and the start of the text it announces.

    Between "answer" and "is" there may be "to" and more words, but then no period or line break.
    """
    noun: re.Match[str] | None = None
    for word in _CLOSING_WORD.finditer(text):
        if word["mark"]:
            yield word.start(), word.end()
        elif word["noun"] and not (noun and noun["to"]):
            noun = word
        elif word["end"] and noun and noun["to"]:
            noun = None
        elif word["verb"] and noun:
            if noun["to"] or noun.end() == word.start():
                yield noun.start(), word.end()
            noun = None


def _end_of_words(text: str) -> int:
    """Returns the end of a text without trailing white space and closing TeX or Markdown marks."""
    end = len(text)
    for closing in ("```", "**", "$$", "\\]", "\\)", "**", "\\]"):
        end = len(text[:end].rstrip())
        if text.endswith(closing, 0, end):
            end -= len(closing)
    return len(text[:end].rstrip())


def _is_brief(said: str) -> bool:
    """Returns whether the text is little more than a number, not part of a longer calculation."""
    return len(said.split()) <= 6 and not _SENTENCE_END.search(said)
