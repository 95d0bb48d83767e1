"""Finds the option or label that an answer names: by its text, by its letter, or by both.

A contradiction names no option: "A, B", or "B) yes" if B is "no". Takes time linear in the length
of the text.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from bridge_jax.data import markup
from bridge_jax.data.example import Example
from bridge_jax.data.numbers import ascii_digits

_OPTION_LINE = re.compile(r"(?:\(([A-Za-z])\)|([A-Za-z])([).:]))\s+(.+)")

# "B", "(b)", "B) no", "B - no": the letter, the separator, and the rest.
_LETTERED = re.compile(
    r"[(\[]?([A-Za-z])(?![\w'’+#])(?:([)\].:,]++|\s*+[-–—=](?=\s)|\s)\s*+(.*))?", re.DOTALL
)
# A further letter at the start of the rest, as in "A, B" and "A) or (B)".
_FURTHER = re.compile(
    r"(?:(?:and\b|or\b|[&/,+])\s*+)*+[(\[]?(?:([A-Z])(?![\w'’])|([a-z])(?=$|[)\].,;:]|\s(?:and|or|&)\b))"
)
_PRONOUN = re.compile(r"I\s+(?!and\b|or\b)[a-z]")
_ARTICLE = re.compile(r"A\s+(?!and\b|or\b)[a-z]")
_CLAUSE_END = re.compile(r"[,.;:]\s+|\s?\(|\s[-–—]\s")
_DOUBTS = re.compile(r"(?:(?:and|or|but|maybe|perhaps|possibly)\b\s*|[&/])*+", re.IGNORECASE)
_LETTER = re.compile(r"[(\[]?[A-Za-z][)\].]+\s*+")
_MOST_CLAUSES = 20

# Ignored in comparisons of texts; signs that change a value are kept.
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_UNITS = re.compile(r"[$€£¥₹%°]")
_PAIRED = re.compile(r"(?<!\w)'([^']*+)'(?!\w)|(?<!\w)\"([^\"]*+)\"(?!\w)")
_PUNCTUATION = re.compile(
    r"[;`“”„«»‹›「」。、،؛؟?¿¡]|(?<!\d),|,(?!\d)|(?<!\d)\"|(?<!\d)…"
    r"|(?<=[^\W\d]{2})!+(?=\s|$)|(?<=[^\W\d]):(?=\s+\D|\s*$)"
    r"|^\s*(?:[*•]\s|\+(?=[\d.])|#+(?=[\d.\s]))"
)
_POINT = re.compile(r"(?<![\d.])\.(?!\d)|(?<=\d)\.(?![\d.])|(?<=[^\W\d])\.")
# A hyphen within words; between numbers or single letters it may be a minus sign.
_HYPHEN = re.compile(r"(?<=[^\W\d]{2})-(?=\w)|(?<=\w)-(?=[^\W\d]{2})")
_DASH = re.compile(
    r"(?:^|(?<=[^\W\d]{2} )) *-+ +(?!(?:sin|cos|tan|log|ln|exp|pi|sqrt)\b)(?=[^\W\d]{2})"
)
_SIGN = re.compile(r" ?([$€£¥₹%<>=≤≥≠±×÷^*/|&+∧∨→⇒↔∪∩⊂⊆∈·]) ?")
_ROOT = re.compile(r"(?:\\sqrt|√) ?(?:\{(\w+)\})?")
_LOOSE = re.compile(r"[^\w.+#$€£¥₹%<>-]")

# Reasons may name other options: "B, because A is wrong". They end with the sentence.
_REASON = re.compile(
    r"\b(?:because|since|(?<!well )as(?! well\b)|given)\b(?:[^.;\n,]|\.(?=\d)"
    r"|,(?!\s?(?:or|but|actually|maybe|perhaps|no|I mean)\b))*+",
    re.IGNORECASE,
)
_OTHER_LETTER = re.compile(
    r"(?<![\w'’])([A-Za-z])\)|\[([A-Za-z])\]"
    r"|(?:\b(?i:or|and|maybe|perhaps|possibly|also|plus|mean|meant|actually|option|choice|answer"
    r"|correction|is):?\s|[/&]\s?)(?:([AI])(?![\w'’]|\s[a-z])|([B-HJ-Z])(?![\w'’]))"
)


class Option(NamedTuple):
    """The names of one of the answers that a question allows.

    Attributes:
      letter: the letter that names the answer; may be empty.
      text: the text that names the answer; may be empty.
      answer: the choice as the example lists it.
    """

    letter: str
    text: str
    answer: str


def options_in(question: str) -> tuple[str, ...]:
    """Returns the options that a question lists, one per line: "A) yes" or "(a) yes", in order.

    All options of a list have the same style, and the last list counts: a question that begins with
    "A. baumannii grew" has no option of that name. The letters must be in order. Letters with a
    colon may also name speakers, so they are not options if one is repeated or if there is another
    letter, as in "Q: ...".
    """
    lists: dict[tuple[bool, str, bool], list[str]] = {}
    spoiled: set[tuple[bool, str, bool]] = set()
    last: tuple[bool, str, bool] | None = None
    for line in question.split("\n"):
        match = _OPTION_LINE.match(line.strip())
        if not match:
            continue
        letter = match[1] or match[2]
        style = (bool(match[1]), match[3] or "", letter.isupper())
        texts = lists.setdefault(style, [])
        if letter in "Aa":
            if style[1] == ":" and texts:
                spoiled.add(style)
            elif style[1] != ":":
                spoiled.discard(style)
            texts.clear()
        elif letter.upper() != chr(ord("A") + len(texts)):
            if texts or style[1] == ":":
                spoiled.add(style)
            continue
        texts.append(match[4])
        if len(texts) > 1:
            last = style
    return () if last is None or last in spoiled else tuple(lists[last])


def named(text: str, example: Example) -> str | None:
    """Returns the choice of `example` that `text` names, or None if it names none or several."""
    options = _options(example)
    said = markup.without_lead_ins(text)
    for words in (text, *said):
        if found := _by_text(words, options):
            return found
    bare = said[-1]
    lettered = _LETTERED.fullmatch(ascii_digits(bare))
    if lettered and any(option.letter == lettered[1].upper() for option in options):
        return _by_letter(lettered, options)
    return _by_clause(bare, options)


def _options(example: Example) -> list[Option]:
    """Returns the allowed answers, under all of their names."""
    if example.kind == "choice":
        return [Option(_letter(i), text, text) for i, text in enumerate(example.choices)]
    allowed = [
        Option(c.upper() if re.fullmatch("[A-Za-z]", c) else "", c, c) for c in example.choices
    ]
    listed = []
    for i, text in enumerate(options_in(example.question)):
        meant = _by_text(text, allowed) or _by_text(_letter(i), allowed)
        if meant:
            listed.append(Option(_letter(i), text, meant))
    return allowed + listed


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else ""


def _by_text(text: str, options: Sequence[Option]) -> str | None:
    """Returns the answer whose text equals `text`, except for case and punctuation."""
    exact = [option.answer for option in options if option.text == text]
    if exact:
        return exact[0]
    longest = max((len(option.text) for option in options), default=0)
    key = _key(text) if len(text) <= 2 * longest + 200 else ""  # a longer one is no option
    if not key:
        return None
    found = {option.answer for option in options if _listed_key(option.text) == key}
    if not found:
        # "$15" is 15, but it is not €15.
        bare = _key(_UNITS.sub("", text))
        found = {
            option.answer
            for option in options
            if _listed_key(_UNITS.sub("", option.text)) == bare != ""
            and not (_UNITS.search(text) and _UNITS.search(option.text))
        }
    return found.pop() if len(found) == 1 else None


def _by_letter(match: re.Match[str], options: Sequence[Option]) -> str | None:
    """Returns the answer that a letter names, unless the text after it ("B) no") contradicts it."""
    letter, parting, rest = match[1].upper(), (match[2] or "").strip(), (match[3] or "").strip()
    meant = {option.answer for option in options if option.letter == letter}
    answer = meant.pop()
    if meant:
        return None
    if not rest:
        return answer
    by_name = _by_text(rest, options) or _beginning(rest, options)
    if by_name not in (None, answer) or _names_another(rest, answer, options):
        return None
    if by_name:
        return answer
    if _further_letter(rest, options, after_comma="," in parting) not in ("", letter):
        return None
    # "A. baumannii" and "A man" name no option; after a dash the option's text is expected.
    if parting == "" or (parting == "." and rest[0].islower()):
        return None
    is_listed = any(option.letter == letter and len(option.text) > 1 for option in options)
    return None if parting in ("-", "–", "—", "=") and is_listed else answer


def _by_clause(text: str, options: Sequence[Option]) -> str | None:
    """Returns the answer in the first clause: "late, as 18 > 17"; but not "late, or on time"."""
    answer, rest = None, ""
    for end in itertools.islice(_CLAUSE_END.finditer(text), _MOST_CLAUSES):
        said = text[: end.start()]
        if re.fullmatch(r"\s?\(|\s[-–—]\s", end[0]) and not re.search(r"[^\W\d]{2}", said):
            continue  # "f(x)" and "x - 1" are formulas
        if found := _by_text(said, options):
            answer, rest = found, text[end.end() :]
    if answer is None or _names_another(rest, answer, options):
        return None
    doubts = _DOUBTS.match(rest)
    rest = rest[doubts.end() :] if doubts else rest
    further = _further_letter(rest, options, after_comma=True)
    letter = _LETTER.match(rest)
    rest = rest[letter.end() :] if letter else rest
    if _beginning(rest, options) not in (None, answer) or not _means(further, answer, options):
        return None
    is_number = any(char.isdigit() for char in answer)
    return None if is_number and rest[:1].isdigit() else answer


def _further_letter(text: str, options: Sequence[Option], after_comma: bool) -> str:
    """Returns the letter of the option that `text` begins with, or "" if there is none."""
    further = _FURTHER.match(text)
    if not further or _PRONOUN.match(text) or (_ARTICLE.match(text) and not after_comma):
        return ""
    letter = (further[1] or further[2]).upper()
    return letter if any(option.letter == letter for option in options) else ""


def _names_another(rest: str, answer: str, options: Sequence[Option]) -> bool:
    """Returns whether the text after an option names another, by its text or a marked letter."""
    names = [(option.text, option.answer) for option in options if option.text]
    if _by_text(rest, options) == answer:
        return False
    own = [text for text, meant in names if meant == answer]
    start = rest[: max(map(len, own), default=0)].casefold()
    for text in sorted(own, key=len, reverse=True):
        if start.startswith(text.casefold()) and not rest[len(text) : len(text) + 1].isalnum():
            rest = rest[len(text) :]
            break
    rest = _REASON.sub(" ", rest)
    for letter in _OTHER_LETTER.finditer(ascii_digits(rest)):
        if not _means((letter[1] or letter[2] or letter[3] or letter[4]).upper(), answer, options):
            return True
    words = f" {_loose_key(rest)} ".replace(" ", "  ")
    for text in own:
        if name := _loose_key(text):
            words = words.replace(f" {name.replace(' ', '  ')} ", " | ")
    others = {_loose_key(text) for text, meant in names if meant != answer}
    return any(
        f" {name.replace(' ', '  ')} " in words
        for name in others
        if len(name) > 1 or name.isdigit()
    )


def _means(letter: str, answer: str, options: Sequence[Option]) -> bool:
    return all(option.answer == answer for option in options if letter and option.letter == letter)


def _beginning(text: str, options: Sequence[Option]) -> str | None:
    """Returns the answer whose text `text` starts with, the longest if there are several."""
    longest = max((len(option.text) for option in options), default=0)
    key = _key(text[: 2 * longest + 100]) + " "
    keys = {_listed_key(option.text): option.answer for option in options if len(option.text) > 1}
    found = [name for name in keys if name and key.startswith(name + " ")]
    return keys[max(found, key=len)] if found else None


def _key(text: str) -> str:
    """Returns the form in which texts are compared: lower-case words and signs with a meaning.

    It lacks the punctuation of prose, paired quotes, and parentheses around a whole text without
    digits.
    """
    text = unicodedata.normalize("NFC", ascii_digits(unicodedata.normalize("NFC", text)).casefold())
    text = _THOUSANDS.sub("", text).replace("—", " - ").replace("⁄", "/")
    text = _ROOT.sub(lambda root: "√" + (root[1] or ""), text)
    text = _PUNCTUATION.sub(" ", _PAIRED.sub(r" \1\2 ", text.strip()))
    text = " ".join(_POINT.sub(" ", text).split())
    inner = text[1:-1]
    if text[:1] == "(" and text[-1:] == ")" and not re.search(r"[\d()]", inner):
        text = inner.strip()
    return " ".join(_SIGN.sub(r"\1", _DASH.sub(" ", _HYPHEN.sub(" ", text))).split())


_listed_key = functools.lru_cache(maxsize=4096)(_key)


def _loose_key(text: str) -> str:
    """Returns the words of a text, split at most of its signs, to search it for names."""
    return _key(_LOOSE.sub(" ", ascii_digits(text)))
