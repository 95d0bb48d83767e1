"""A sweep over generated answers: values times notations times decorations.

Each text is written from a value by the rules of its notation, so the right reading is known
without the parser: the value itself, or None for a text that only looks like a number.
"""

from fractions import Fraction
from itertools import cycle, product

import pytest

from bridge_jax.data.answers import answer_in_recorded_text, answer_of, parse_answer
from bridge_jax.data.example import Example

DECIMALS = ("0", "7", "12", "-12", "1234", "-1234567", "0.5", "-2.75", "1234.5", "0.00001")
DIGITS = "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "০১২৩৪৫৬৭৮৯", "๐๑๒๓๔๕๖๗๘๙", "０１２３４５６７８９"


def grouped(text, comma, point):
    """Writes a decimal with marks between groups of three."""
    sign = "-" * text.startswith("-")
    whole, _, decimals = text.removeprefix("-").partition(".")
    return f"{sign}{int(whole):,}".replace(",", comma) + (point + decimals if decimals else "")


def in_digits(text, digits):
    return text.translate(str.maketrans("0123456789", digits))


def accounted(text):
    return f"({grouped(text.removeprefix('-'), ',', '.')})" if text.startswith("-") else text


def scientific(text):
    mantissa, exponent = f"{float(text):.8e}".split("e")
    return mantissa.rstrip("0").rstrip("."), int(exponent)


def raised(exponent):
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def of_quarters(text, write):
    """Writes a multiple of a quarter as a mixed number; other values plainly."""
    value = abs(Fraction(text))
    whole, rest = divmod(value, 1)
    if rest.denominator not in (2, 4):
        return text
    return "-" * text.startswith("-") + write(str(int(whole)) if whole else "", rest)


# Notation -> (data.decimal, how a decimal is written in it).
NOTATIONS = {
    "plain": ("", str),
    "commas": ("", lambda t: grouped(t, ",", ".")),
    "apostrophes": ("", lambda t: grouped(t, "'", ".")),
    "spaces": (".", lambda t: grouped(t, " ", ".")),
    "narrow spaces": (".", lambda t: grouped(t, "\u202f", ".")),
    "German": (",", lambda t: grouped(t, ".", ",")),
    "French": (",", lambda t: grouped(t, "\u00a0", ",")),
    "true minus": ("", lambda t: t.replace("-", "\u2212")),
    "accounting": ("", accounted),
    "e": ("", lambda t: "{}e{}".format(*scientific(t))),
    "E+": ("", lambda t: "{}E{:+03d}".format(*scientific(t))),
    "times ten": ("", lambda t: "{} × 10^{}".format(*scientific(t))),
    "superscript": ("", lambda t: f"{scientific(t)[0]}×10{raised(scientific(t)[1])}"),
    "TeX power": ("", lambda t: r"{} \times 10^{{{}}}".format(*scientific(t))),
    "vulgar": ("", lambda t: of_quarters(t, lambda w, r: w + {1: "¼", 2: "½", 3: "¾"}[int(4 * r)])),
    "mixed": ("", lambda t: of_quarters(t, lambda w, r: f"{w} {r}".strip())),
    "TeX mixed": (
        "",
        lambda t: of_quarters(t, lambda w, r: rf"{w}\frac{{{r.numerator}}}{{{r.denominator}}}"),
    ),
    "dollars": ("", lambda t: t.replace("-", "-$") if t.startswith("-") else f"${t}"),
    "TeX dollars": ("", lambda t: rf"\${grouped(t, '{,}', '.')}"),
    "percent": ("", lambda t: f"{t}%"),
    "unit": ("", lambda t: f"{t} mL"),
    "glued unit": ("", lambda t: f"{t}kg"),
    "Arabic": ("", lambda t: in_digits(grouped(t, "٬", "٫"), DIGITS[0])),
    **{
        f"digits {digits[1]}": (
            "",
            lambda t, digits=digits: in_digits(grouped(t, ",", "."), digits),
        )
        for digits in DIGITS[1:]
    },
}
# Around the answer of a reply, with what it says left as it is.
DECORATIONS = (
    "{}",
    "**{}**",
    "*{}*",
    "`{}`",
    '"{}"',
    "[{}]",
    "{}.",
    r"\boxed{{{}}}",
    r"$\boxed{{{}}}$",
    r"\({}\)",
    "<answer>{}</answer>",
    "The answer is {}.",
    "Final answer: {}",
    "ANSWER: **{}**",
    "**Answer:** {}",
    "Total: {}",
)
# Each begins or ends like the number that is put into it, and says something else.
TRAPS = (
    "{}√3",
    "{}π",
    "{}!",
    "{}²",
    "{}:30",
    "{}-99",
    "{} ± 1",
    "{} to 99",
    "{} or 99",
    "{}; 99",
    "{}, 99",
    "{} x 99",
    "99 - {}",
    "99 {}",
    "x_{{{}}}",
    "{}...",
    "{} and a half",
    "{} of 99",
    "{} feet 3 inches",
    "<{}",
    "at most {}",
    "not {}",
    "B{}",
    "{}e",
    "{}_000",
    "{}.5.6",
    "{}=x+1",
)


def numeric(decimal):
    return Example(id="n", question="How much?", answer="0", kind="numeric", decimal=decimal)


@pytest.mark.parametrize("notation", NOTATIONS)
def test_every_notation_under_every_decoration(notation):
    mark, write = NOTATIONS[notation]
    for value, decoration in product(DECIMALS, DECORATIONS):
        text = decoration.format(write(value))
        expected = value.replace(".", mark or ".")
        assert parse_answer(text, numeric(mark)) == expected, text
        reply = f"We add it all up.\n{text}"
        if "nswer" in decoration.lower() and "The" not in decoration:
            assert answer_of(reply, numeric(mark)) == expected, reply
            rationale, answer = answer_in_recorded_text(reply, numeric(mark))
            assert (rationale, answer) == ("We add it all up.", expected), reply


@pytest.mark.parametrize("trap", TRAPS)
def test_what_only_looks_like_a_number_is_none_under_every_decoration(trap):
    for value, decoration in product(("7", "12", "2.75", "1,234"), DECORATIONS):
        text = decoration.format(trap.format(value))
        assert parse_answer(text, numeric("")) is None, text


def test_decimal_marks_are_never_guessed():
    """Without data.decimal, a notation of other countries is no number."""
    for value in ("1234.5", "-2.75", "0.5"):
        assert parse_answer(grouped(value, ".", ","), numeric("")) is None
        assert parse_answer(grouped(value, "\u00a0", ","), numeric("")) is None
        assert parse_answer(grouped(value, ".", ","), numeric(".")) is None
    for value in ("-2.75", "0.5", "1234.5"):
        assert parse_answer(grouped(value, ",", "."), numeric(",")) is None


OPTIONS = ("aspirin", "warfarin 5 mg", "vitamin K, slowly", "none of them")
LISTED = "Which?\n" + "\n".join(f"{a}) {text}" for a, text in zip("ABCD", OPTIONS))
# How an option is named by letter and text.
NAMES = (
    "{a}",
    "({b})",
    "{a}.",
    "{a})",
    "Option {a}",
    "{a}) {text}",
    "({b}) {text}",
    "{a} - {text}",
)
KINDS = {
    "choice": (OPTIONS, OPTIONS),
    "label": (OPTIONS, OPTIONS),
    "letters": (tuple("ABCD"), tuple("ABCD")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_of_every_option_under_every_decoration(kind):
    choices, answers = KINDS[kind]
    example = Example("c", LISTED, answers[0], "choice" if kind == "choice" else "label", choices)
    others = cycle("BCDA")
    for i, (letter, text) in enumerate(zip("ABCD", OPTIONS)):
        other = next(others)
        for name, decoration in product((*NAMES, "{text}"), DECORATIONS):
            said = decoration.format(name.format(a=letter, b=letter.lower(), text=text))
            if decoration.startswith("Total"):
                continue
            assert parse_answer(said, example) == answers[i], said
        for trap in (
            "{a}, {other}",
            "{a} or {other}",
            "({a}) and ({other})",
            "not {a}",
            "{a}/{other}",
        ):
            for decoration in DECORATIONS:
                said = decoration.format(trap.format(a=letter, other=other))
                assert parse_answer(said, example) is None, said
        contradiction = f"{other}) {text}"
        assert parse_answer(contradiction, example) is None, contradiction


def test_the_sweep_is_as_large_as_it_says():
    texts = {
        decoration.format(write(value))
        for _, write in NOTATIONS.values()
        for value, decoration in product(DECIMALS, DECORATIONS)
    }
    assert len(texts) > 2000
