r"""Reads numbers in the notations that people and models write, whole or not at all.

| written | read as |
|---|---|
| `12`, `+12`, `.5`, `12.50`, `1,234.5`, `1'234`, `1,23,456` (Indian) | as written |
| `-12`, `−12` (any minus or en dash), `minus 12`, `-$3.50`, `$-3.50` | negative |
| `(1,234)`, `($5)`, `(12%)` alone or after a colon or `=`; `$(5) million` | negative |
| `1e3`, `1e-05`, `1.5 × 10^3`, `2*10**3` | 1000, 0.00001, 1500, 2000 |
| `10⁵`, `10^{-3}` | 100000, 0.001 |
| `½`, `2½`, `3 1/2`, `1/2`, `10/3` | 0.5, 2.5, 3.5, 0.5, `3 1/3` |
| `\frac{3}{2}`, `1\frac{1}{2}` | 1.5, 1.5 |
| digits of any script, `１２`, `١٢`, `१२`; `٫` is a point and `٬` a comma | 12 |
| `50%`, `$5 million`, `12 mL`, `12 mL every 8 hours`, `3 days (as 5 - 2)` | 50, 5, 12, 12, 3 |
| `1 234` | by `data.decimal`: 1234 with `.` and with `,` |
| `1.234,50`, `1,5`, `1.234.567` | by `data.decimal`: 1234.5, 1.5 and 1234567 with `,` |
| `1,234` and `1.234` | 1234 and 1.234; with `data.decimal=,` 1.234 and 1234 |

Units, currencies and scales are skipped, not converted. Anything else is not a number, in
particular text that only begins like one: `2√3`, `2π`, `12²`, `5!`, `3:2`, `12:30`, `12-15`,
`12 or 13`, `1, 2`, `3 of 4`, `12 and a half`, `5 feet 3 inches`, `1.2.3`, `0x1F`, `0.33...`,
`12 ± 2`, `<12`, `12+`, `120/80` (an improper fraction has a denominator of one digit, unless it is
in TeX), `- 12`, `COVID-19`.

Reading takes time linear in the length of the text. Numbers of over 1,000 digits are not read.
"""

import functools
import re
import unicodedata
from decimal import Decimal
from fractions import Fraction
from typing import Literal, NamedTuple

DecimalMark = Literal["", ".", ","]

_MOST_DIGITS = 1000

_CURRENCY = "$¢£¤¥֏؋৳฿៛\u20a0-\u20cf﷼"
_VULGAR = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"
_RAISED = str.maketrans("⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "+-0123456789")
_POWER = r"(?:\^\(?[-+]?\d++\)?|\*\*[-+]?\d++|[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]++)"

# The longest run of characters that could be one number; checked afterwards.
_TOKEN = re.compile(
    rf"""
    (?P<whole>\d++)(?:[ ]{{1,3}}(?P<over>\d++)[/⁄](?P<under>\d++)|[ ]?(?P<part>[{_VULGAR}]))
    |(?P<numerator>\d++)(?P<slash>[/⁄])(?P<denominator>\d++)
    |(?P<vulgar>[{_VULGAR}])
    |(?P<body>\.\d++|\d++(?:[.,'٫٬ ]\d++)*+)
     (?:[eE](?P<exponent>[-+]?\d++)|[ ]?[×x*·][ ]?10(?P<times>{_POWER})|(?P<power>{_POWER}))?+
    """,
    re.VERBOSE,
)
_ARABIC_SLASH = re.compile("(?<=[٠-٩۰-۹])/(?=[٠-٩۰-۹])")
_MONEY = rf"(?:[A-Za-z]{{0,3}}[{_CURRENCY}][ ]?|%)?"
_BEFORE = re.compile(rf"([-+]?){_MONEY}(?:(\()[ ]?)?([-+]?){_MONEY}([-+]?)\Z")
_CLOSED = re.compile(rf"[ ]?[%{_CURRENCY}]?[ ]?\)")
_ALLOWED_BEFORE = ":=≈~\"“„«'‘`[{#|\\"
# A colon after a digit (12:30), or a brace that makes its content part of something.
_PART_OF = re.compile(r"(?:\d:|[\^_}\]√]\{|(?:frac|binom|log|ln|overline|underline) ?\{)\Z")
_UNEQUAL = re.compile(r"[!<>≠]=\Z|(?<![=-])>\Z|[-+*/×÷·^<≤≥±∓√∛∞≠(]\Z")
# Chinese and Thai write no space before a number.
_LETTER_OF_WORD = re.compile(r"[^\W\d_\u0e00-\u0e7f\u2e80-\u9fff\uac00-\ud7af]")
# Lawyers write "thirty (30) days".
_SPELLED = re.compile(
    r"\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w{3,5}teen|twenty"
    r"|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million) *\Z",
    re.IGNORECASE,
)
# Words before a number that change its value, or make it a bound or an operand.
_BENDS = re.compile(
    r"\b(?:not|never|than|least|most|under|over|below|above|between|from|or|up to|one in|root|sqrt"
    r"|log|ln|exp|sin|cos|tan|pi|π|half|third|quarter|twice|double|triple|(?:one|half|third|quarter|root|multiple|factor|log"
    r"|power|range) of)\s*\Z",
    re.IGNORECASE,
)
_NEGATIVE = re.compile(r"(?:^|[:=]|\b(?:is|of|a))\s*(?:minus|negative)\s*\Z", re.IGNORECASE)
_MINUS_WORD = re.compile(r"\b(?:minus|negative|plus|times)\s*\Z", re.IGNORECASE)

_SIGNS = re.compile(rf"(?:[ ]?[%‰°′″{_CURRENCY})\]}}]|[\"'”’»`|])*+")
_STOPS = ".,;:?。、،؟"
_WORD = re.compile(r"\w+")
_GAP = re.compile(r"\s*+")
_NAMES = re.compile(r"=\s*+[^\W\d]\w{0,9}\s*+[.)]?\s*+\Z")
_ASIDE = re.compile(r"\s\(|[.;:—-]\s")
# Words directly after a number that change its value.
_PARTS = re.compile(
    r"squared|cubed|factorial|half|halves|(?:third|fourth|fifth|sixth|eighth|tenth|hundredth"
    r"|thousandth)s|pi|π|e|i|j|n|plus|minus|[ex]\d+"
)
_HALF = re.compile(r"and (?:an? |one |two |three )?(?:half|third|quarter|fifth|tenth)s?\b", re.I)
# Words directly after a number that join it to another one.
_NO_UNITS = ("and", "or", "to", "x", "vs", "versus")
# Words after the unit that may precede another number.
_OF_UNITS = re.compile("every|per|each|for|at|after|before|within|on|in|during|until")
_REASONS = ("because", "since", "as", "rounded", "so", "given", "which", "that", "i")
_DOUBTS = ("or", "and", "maybe", "perhaps", "possibly", "to")


class Number(NamedTuple):
    """A number.

    Attributes:
      value: the exact value.
      places: the number of decimals in the text.
    """

    value: Fraction
    places: int = 0


class _Found(NamedTuple):
    """A number's span in a text, signs included; `number` is None if it cannot be read."""

    begin: int
    end: int
    number: Number | None


def read(text: str, decimal: DecimalMark = "") -> Number | None:
    """Returns the number in `text`, or None if there is none, several or only a part of one.

    Words before the number and its unit after it are skipped: "the dose is 12 mL".

    Args:
      text: without Markdown and TeX (`markup.plain`).
      decimal: `data.decimal`: "," if the comma is the decimal mark; "." if the point is, and spaces
        group digits; "" if commas group digits and spaces are no part of a number.
    """
    text = ascii_digits(text)
    for match in _TOKEN.finditer(text):
        found = _in_context(text, match, decimal)
        if found is not None:
            break
    else:
        return None
    lead, number = text[: found.begin], found.number
    if number is None or not _ends(text, found.end, alone=not lead.strip()):
        return None
    before = lead[-40:]
    if _NEGATIVE.search(before) and number.value > 0:
        return number._replace(value=-number.value)
    return None if _MINUS_WORD.search(before) or _BENDS.search(before) else number


def last(text: str, decimal: DecimalMark = "") -> Number | None:
    """Returns the last number of a longer text, or None if it cannot be read whole.

    The last operand of a calculation without a result does not count.
    """
    text = ascii_digits(text)
    for match in reversed(list(_TOKEN.finditer(text))):
        found = _in_context(text, match, decimal)
        if found is not None:
            return None if _continues(text, found.end) else found.number
    return None


def canonical(value: Fraction, decimal: DecimalMark = "") -> str:
    """Returns the canonical form of `value`, which `read` reads back.

    It is a decimal number without grouping and trailing zeros, or a mixed number ("3 1/3") if the
    decimals would not end.
    """
    sign, value = "-" if value < 0 else "", abs(value)
    whole, rest = divmod(value.numerator, value.denominator)
    places, power = 0, 1
    # Denominators are powers of ten or have few digits, so this ends soon.
    while power % value.denominator and places < _MOST_DIGITS:
        places, power = places + 1, power * 10
    if power % value.denominator:
        return f"{sign}{f'{whole} ' if whole else ''}{rest}/{value.denominator}"
    if not places:
        return f"{sign}{whole}"
    digits = rest * power // value.denominator
    return f"{sign}{whole}{decimal or '.'}{digits:0{places}}"


def from_json(value: float, decimal: DecimalMark = "") -> str:
    """Returns a JSON number as text that `read` reads, with the decimal mark of `decimal`."""
    if not isinstance(value, float):
        return str(value)
    return format(Decimal(str(value)), "f").replace(".", decimal or ".")


def ascii_digits(text: str) -> str:
    """Returns `text` with digits, signs and full-width forms in ASCII; drops format characters."""
    if text.isascii():
        return text
    # In Persian a slash may be the decimal mark, so it is read neither as that nor as a fraction.
    return "".join(map(_ascii, _ARABIC_SLASH.sub(":", text)))


@functools.lru_cache(maxsize=4096)
def _ascii(char: str) -> str:
    digit = unicodedata.decimal(char, None)
    if digit is not None:
        return str(digit)
    if "\uff01" <= char <= "\uff5e":
        return chr(ord(char) - 0xFEE0)
    category = unicodedata.category(char)
    if category == "Zs":
        return " "
    if category == "Cf":  # Such as direction marks; a zero-width space still separates words.
        return "\n" if char == "\u200b" else ""
    same = {"-": "−‐‑‒–﹣", "'": "’‘ʼ", "%": "٪﹪", "/": "∕", "·": "⋅∙", "×": "✕✖⨯"}
    return next((plain for plain, others in same.items() if char in others), char)


def _in_context(text: str, match: re.Match[str], decimal: DecimalMark) -> _Found | None:
    """Returns a number with its sign, or None for digits within a word ("B12", "COVID-19")."""
    number, end = _number(match, decimal), match.end()
    start = max(0, match.start() - 16)
    before = _BEFORE.search(text[start : match.start()])
    assert before is not None  # It matches at least the empty end.
    begin = start + before.start()
    lead = text[max(0, begin - 40) : begin]
    if lead and (lead[-1] == "_" or _LETTER_OF_WORD.match(lead[-1])):
        return None
    signs = [sign for sign in before.group(1, 3, 4) if sign]
    if number is None or len(signs) > 1 or _belongs(lead):
        return _Found(begin, end, None)
    negative = "-" in signs
    if before[2]:
        closed, spelled = _CLOSED.match(text, end), _SPELLED.search(lead)
        is_alone = lead.rstrip()[-1:] in ("", ":", "=") and (
            closed is None
            or not _WORD.search(text, closed.end())
            or any(char in _CURRENCY for char in text[begin : match.start()])
        )
        if closed is None or not (spelled or is_alone):
            return _Found(begin, end, None)
        end, negative = closed.end(), negative or not (signs or spelled)
    return _Found(begin, end, Number(-number.value if negative else number.value, number.places))


def _belongs(lead: str) -> bool:
    """Returns whether a number after `lead` is an operand, a bound or a part of something."""
    if lead and not lead[-1].isspace():
        if lead[-1].isnumeric() or not (lead[-1] in _ALLOWED_BEFORE or lead[-1].isalpha()):
            return True
        if _PART_OF.search(lead[-12:]):
            return True
    return _UNEQUAL.search(lead.rstrip()) is not None


def _number(match: re.Match[str], decimal: DecimalMark) -> Number | None:
    """Returns the number without its sign."""
    if match["body"]:
        return _decimal_number(match, decimal)
    parts = match.group("whole", "over", "under", "numerator", "denominator")
    if any(len(part) > 12 for part in parts if part):
        return None
    if len(match["under"] or match["denominator"] or "") > 3:  # 2018/2019 is a year range
        return None
    whole = Fraction(match["whole"] or 0)
    if vulgar := match["part"] or match["vulgar"]:
        return Number(whole + Fraction(unicodedata.numeric(vulgar)).limit_denominator(10))
    over = int(match["over"] or match["numerator"])
    under = int(match["under"] or match["denominator"])
    if not under or (match["whole"] and over >= under):
        return None
    if over >= under > 9 and match["slash"] == "/":
        return None
    return Number(whole + Fraction(over, under))


def _decimal_number(match: re.Match[str], decimal: DecimalMark) -> Number | None:
    body, power = match["body"], match["power"]
    if len(body) > 2 * _MOST_DIGITS or (power and body != "10"):
        return None
    read_body = _digits(body, decimal)
    exponent = _exponent(match["exponent"] or match["times"] or power or "0")
    if read_body is None or exponent is None:
        return None
    digits, places = read_body
    if power:
        digits, places = "1", 0
    places -= exponent
    if max(len(digits) - min(places, 0), places + 1) > _MOST_DIGITS:
        return None
    return Number(int(digits) * Fraction(10) ** -places, max(0, places))


def _exponent(text: str) -> int | None:
    text = text.translate(_RAISED).strip("^*()")
    return int(text) if len(text) <= 5 else None


def _digits(body: str, decimal: DecimalMark) -> tuple[str, int] | None:
    """Returns the digits of a number, and how many of them are decimals."""
    point = "," if decimal == "," else "."
    body = body.replace("٫", point).replace("٬", "." if point == "," else ",")
    groups = re.split(r"\D", body)
    marks = re.sub(r"\d", "", body)
    decimals = ""
    if marks[-1:] == point and marks.count(point) == 1:
        decimals, groups, marks = groups[-1], groups[:-1], marks[:-1]
    grouping = {"": ",'", ".": ",' ", ",": ".' "}[decimal]
    if marks and (marks.strip(marks[0]) or marks[0] not in grouping):
        return None
    if len(groups) > 1:
        first, middle, end = groups[0], groups[1:-1], groups[-1]
        by_three = len(first) <= 3 and all(len(group) == 3 for group in middle)
        indian = marks[0] == "," and len(first) <= 2 and all(len(group) == 2 for group in middle)
        if len(end) != 3 or first.startswith("0") or not (by_three or indian):
            return None
    return "".join(groups) + decimals, len(decimals)


def _ends(text: str, at: int, alone: bool) -> bool:
    """Returns whether the text after a number neither continues it nor holds another.

    Args:
      text: the whole text.
      at: the end of the number.
      alone: whether nothing comes before the number. Then its unit or a reason may hold numbers
        ("12 mL every 8 hours").
    """
    if _continues(text, at):
        return False
    signs = _signs(text, at)
    before, unit = "", signs.strip(" )]}\"'”’»`|") != ""
    at = previous = at + len(signs)
    for word in _WORD.finditer(text, at):
        name, between = word[0].casefold(), text[previous : word.start()]
        if unicodedata.category(name[0]).startswith("N"):
            if not alone or not _OF_UNITS.fullmatch(before):
                return False
        elif previous == at and not between.strip(" /-—") and name in _NO_UNITS:
            return False
        elif alone and name not in _DOUBTS and (name in _REASONS or _ASIDE.search(between)):
            return True
        # The first word is the unit itself: "1 in 5" is no number, "1 mL in 5 hours" is.
        before, unit = name if unit else "", True
        previous = word.end()
    return True


def _continues(text: str, at: int) -> bool:
    """Returns whether the text after a number belongs to it, so that only a part of it was read."""
    signs = _signs(text, at)
    at += len(signs)
    gap = _GAP.match(text, at)
    assert gap is not None  # It may be empty.
    glued, at = not gap[0], gap.end()
    rest, after = text[at : at + 1], text[at + 1 : at + 2]
    if text.startswith("..", at):
        return True
    if rest and rest in _STOPS:
        return glued and not (not after or after.isspace() or after in "*_" or _signs(text, at + 1))
    if rest == "/" or (rest in ("-", "—") and (glued or after.isspace())):
        at += 2 if after == " " else 1
        rest = text[at : at + 1]
        if not rest.isalpha():
            return True
    if rest == "=":  # "12 = x"
        return _NAMES.match(text, at) is None
    if (
        not rest
        or (rest == "\\" and not after.isalpha())
        or (rest == "(" and not glued)
        or unicodedata.category(rest) == "So"
    ):
        return False
    if not rest.isalpha():
        return True
    unit = _WORD.match(text, at)
    assert unit is not None  # It begins with a letter.
    name = unit[0].casefold()
    if glued and any(char.isdecimal() for char in name):
        return True
    return bool(_PARTS.fullmatch(name) or _HALF.match(text, at))


def _signs(text: str, at: int) -> str:
    """Returns the unit signs, closing brackets and closing quotes at `at`."""
    match = _SIGNS.match(text, at)
    return match[0] if match else ""
