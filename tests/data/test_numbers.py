"""The table of notations: one number is read whole, everything else is none."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_jax.data import numbers
from bridge_jax.data.answers import answer_in_recorded_text, is_correct, parse_answer
from bridge_jax.data.example import Example


def numeric(answer="12", decimal=""):
    return Example(id="n", question="How much?", answer=answer, kind="numeric", decimal=decimal)


# Written, and what is read by default, with data.decimal=. and with data.decimal=, (canonically).
TABLE = [
    # Plain and grouped.
    ("12", "12", "12", "12"),
    ("+12", "12", "12", "12"),
    ("007", "7", "7", "7"),
    (".5", "0.5", "0.5", None),
    ("12.50", "12.5", "12.5", None),
    ("1,234", "1234", "1234", "1,234"),
    ("1.234", "1.234", "1.234", "1234"),
    ("1,234.5", "1234.5", "1234.5", None),
    ("1,234,567", "1234567", "1234567", None),
    ("1'234.5", "1234.5", "1234.5", None),
    ("1’234", "1234", "1234", "1234"),
    ("1,23,456", "123456", "123456", None),
    ("1 234", None, "1234", "1234"),
    ("1\u202f234", None, "1234", "1234"),
    ("12 345.5 mL", None, "12345.5", None),
    ("1 234,5", None, None, "1234,5"),
    ("1.234,50", None, None, "1234,5"),
    ("1.234.567", None, None, "1234567"),
    ("1,5", None, None, "1,5"),
    ("1,2345", None, None, "1,2345"),
    ("0,123", None, None, "0,123"),
    ("12 15", None, None, None),
    ("1,23", None, None, "1,23"),
    ("12,34,56", None, None, None),
    ("1.2.3", None, None, None),
    ("1,234'567", None, None, None),
    # Signs.
    ("-12", "-12", "-12", "-12"),
    ("\u221212", "-12", "-12", "-12"),
    ("–12", "-12", "-12", "-12"),
    ("－12", "-12", "-12", "-12"),
    ("Total: −12", "-12", "-12", "-12"),
    ("minus 12", "-12", "-12", "-12"),
    ("Total: negative 12", "-12", "-12", "-12"),
    ("x minus 12", None, None, None),
    ("(1,234)", "-1234", "-1234", "-1,234"),
    ("($5)", "-5", "-5", "-5"),
    ("$(9.8) million", "-9.8", "-9.8", None),
    ("Loss: (12%)", "-12", "-12", "-12"),
    ("(-12)", "-12", "-12", "-12"),
    ("-(12)", "-12", "-12", "-12"),
    ("loss (12)", None, None, None),
    ("( 1,234 )", "-1234", "-1234", "-1,234"),
    ("( 12 mL)", None, None, None),
    ("thirty (30) days", "30", "30", "30"),
    ("within twenty-one (21) days", "21", "21", "21"),
    ("the answer (12)", None, None, None),
    ("(12 mL)", None, None, None),
    ("(1, 2)", None, None, None),
    ("- 12", None, None, None),
    ("--12", None, None, None),
    ("-+12", None, None, None),
    ("±12", None, None, None),
    ("—12", None, None, None),
    # Powers of ten.
    ("1e3", "1000", "1000", "1000"),
    ("1E3", "1000", "1000", "1000"),
    ("1e-7", "0.0000001", "0.0000001", "0,0000001"),
    ("1e-05", "0.00001", "0.00001", "0,00001"),
    ("1.5 × 10^3", "1500", "1500", None),
    ("1.5·10³", "1500", "1500", None),
    ("2*10**3", "2000", "2000", "2000"),
    ("2 x 10^-3 mL", "0.002", "0.002", "0,002"),
    ("10⁵", "100000", "100000", "100000"),
    ("10⁻²", "0.01", "0.01", "0,01"),
    ("10^5", "100000", "100000", "100000"),
    (r"$10^{-3}$", "0.001", "0.001", "0,001"),
    (r"3 \times 10^{5}", "300000", "300000", "300000"),
    ("1e3.5", None, None, None),
    ("10^{5}3", None, None, None),
    ("12²", None, None, None),
    ("2^10", None, None, None),
    ("1e999999999", None, None, None),
    # Fractions.
    ("½", "0.5", "0.5", "0,5"),
    ("2½", "2.5", "2.5", "2,5"),
    ("-2 ¾", "-2.75", "-2.75", "-2,75"),
    ("⅓", "1/3", "1/3", "1/3"),
    ("⅐ L", "1/7", "1/7", "1/7"),
    ("3 1/2", "3.5", "3.5", "3,5"),
    ("1 1/2", "1.5", "1.5", "1,5"),
    ("1 1/2 cups", "1.5", "1.5", "1,5"),
    ("1/2", "0.5", "0.5", "0,5"),
    ("10/3", "3 1/3", "3 1/3", "3 1/3"),
    (r"\frac{1}{2}", "0.5", "0.5", "0,5"),
    (r"-\dfrac{22}{7}", "-3 1/7", "-3 1/7", "-3 1/7"),
    (r"1\frac{1}{2}", "1.5", "1.5", "1,5"),
    (r"\frac12", "0.5", "0.5", "0,5"),
    (r"\frac{1}{2}3", None, None, None),
    ("120/80", None, None, None),
    ("2018/2019", None, None, None),
    ("1/2/2020", None, None, None),
    ("1/0", None, None, None),
    ("3 3/2", None, None, None),
    ("1-1/2", None, None, None),
    ("1 234 1/2", None, None, None),
    ("۱/۵", None, None, None),
    # Units, currencies and scales are read past.
    ("50%", "50", "50", "50"),
    ("12 %", "12", "12", "12"),
    ("٪12", "12", "12", "12"),
    ("12 mL", "12", "12", "12"),
    ("12mL.", "12", "12", "12"),
    ("1.25 mg", "1.25", "1.25", None),
    ("$5 million", "5", "5", "5"),
    ("US$1,200.00", "1200", "1200", None),
    ("12 €", "12", "12", "12"),
    ("-$3.50", "-3.5", "-3.5", None),
    ("3 days", "3", "3", "3"),
    ("12-hour", "12", "12", "12"),
    ("12/day", "12", "12", "12"),
    ("12 m²", "12", "12", "12"),
    ("12°C", "12", "12", "12"),
    ("12元", "12", "12", "12"),
    ("答案是12元", "12", "12", "12"),
    ("約１２個", "12", "12", "12"),
    ("十12", None, None, None),
    ("12万5", None, None, None),
    ("12 mL every 8 hours", "12", "12", "12"),
    ("36% in 2019", "36", "36", "36"),
    ("12 (twelve)", "12", "12", "12"),
    ("12, because 3 x 4 = 12", "12", "12", "12"),
    ("12. This is 3 x 4.", "12", "12", "12"),
    ("3 days (as 5 - 2)", "3", "3", "3"),
    ("May 14", "14", "14", "14"),
    ("x = 12", "12", "12", "12"),
    ("=> 12", "12", "12", "12"),
    ("≈ 12", "12", "12", "12"),
    # Not a number, though it begins, or ends, like one.
    ("2√3", None, None, None),
    (r"2\sqrt{3}", None, None, None),
    ("√12", None, None, None),
    ("2π", None, None, None),
    ("2 pi", None, None, None),
    ("5!", None, None, None),
    ("3:2", None, None, None),
    ("12:30", None, None, None),
    ("12-15 mL", None, None, None),
    ("12 to 15", None, None, None),
    ("12 or 13", None, None, None),
    ("12 or more", None, None, None),
    ("12 mL or 15 mL", None, None, None),
    ("795; 772", None, None, None),
    ("1, 2", None, None, None),
    ("[1,2]", None, None, "1,2"),
    ("3 of 4", None, None, None),
    ("1 in 5", None, None, None),
    ("12% of 50", None, None, None),
    ("12 and a half", None, None, None),
    ("3 tenths", None, None, None),
    ("3 squared", None, None, None),
    ("5 feet 3 inches", None, None, None),
    ("5'3\"", None, None, None),
    ("3h15", None, None, None),
    ("1 hour and 30 minutes", None, None, None),
    ("0x1F", None, None, None),
    ("1_000", None, None, None),
    ("0.33...", None, None, None),
    ("12 ...", None, None, None),
    ("12n", None, None, None),
    ("sin 30", None, None, None),
    (r"\pi 12", None, None, None),
    ("x != 12", None, None, None),
    ("x <= 12", None, None, None),
    (">12", None, None, None),
    ("one in 12", None, None, None),
    ("x_{12}", None, None, None),
    ("0.33…", None, None, None),
    ("0.3\u0305", None, None, None),
    (r"0.\overline{3}", None, None, None),
    ("12 ± 2", None, None, None),
    ("12+", None, None, None),
    ("<12", None, None, None),
    ("≥ 12", None, None, None),
    ("at most 12", None, None, None),
    ("not 12", None, None, None),
    ("half of 12", None, None, None),
    ("12 = 3 x 4", None, None, None),
    ("3 x 4", None, None, None),
    ("3x + 2", None, None, None),
    ("23 - (-2)", None, None, None),
    ("some - 8", None, None, None),
    ("B12", None, None, None),
    ("COVID-19", None, None, None),
    ("f(12)", None, None, None),
    (r"5\(6\)", None, None, None),
    (r"2\boxed{3}", None, None, None),
    ("twelve", None, None, None),
    ("Ⅻ", None, None, None),
    ("①", None, None, None),
    ("nan", None, None, None),
    ("inf", None, None, None),
    # The digits of other scripts.
    ("１２.５", "12.5", "12.5", None),
    ("１，２３４", "1234", "1234", "1,234"),
    ("١٢", "12", "12", "12"),
    ("−١٢٫٥", "-12.5", "-12.5", "-12,5"),
    ("١٬٢٣٤٫٥", "1234.5", "1234.5", "1234,5"),
    ("१,२३,४५६", "123456", "123456", None),
    ("১২", "12", "12", "12"),
    ("๑๒ mL", "12", "12", "12"),
    ("𝟏𝟐", "12", "12", "12"),
    ("\u200f١٢\u200f", "12", "12", "12"),
    ("1\u200b2", None, None, None),
]


@pytest.mark.parametrize(("text", "default", "point", "comma"), TABLE)
def test_the_table_of_notations(text, default, point, comma):
    read = [parse_answer(text, numeric(decimal=mark)) for mark in ("", ".", ",")]
    assert read == [default, point, comma]


@pytest.mark.parametrize(("text", "default", "point", "comma"), TABLE)
def test_golds_are_read_as_replies_are(text, default, point, comma):
    for mark, value in (("", default), (".", point), (",", comma)):
        assert is_correct(text, numeric(text, mark)) is (value is not None)
        if value is not None:
            assert is_correct(value, numeric(text, mark))
            assert not is_correct(f"{value}7" if "/" not in value else "7", numeric(text, mark))


MARKS = st.sampled_from(["", ".", ","])


@given(
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**40), max_value=10**40), MARKS
)
def test_canonical_decimals_are_read_back(value, mark):
    fraction = Fraction(value)
    written = numbers.canonical(fraction, mark)
    found = numbers.read(written, mark)
    assert found is not None and found.value == fraction
    assert parse_answer(written, numeric(decimal=mark)) == written


@given(st.integers(-(10**9), 10**9), st.integers(1, 999), MARKS)
def test_canonical_fractions_are_read_back(over, under, mark):
    written = numbers.canonical(Fraction(over, under), mark)
    found = numbers.read(written, mark)
    assert found is not None and found.value == Fraction(over, under)
    assert parse_answer(written, numeric(decimal=mark)) == written


@given(st.text(st.sampled_from("0123456789.,'() -+−½√²⁵⁄/eE%$x*^٣٫"), max_size=12), MARKS)
def test_what_is_read_is_canonical_at_once(text, mark):
    read = parse_answer(text, numeric(decimal=mark))
    if read is not None:
        assert parse_answer(read, numeric(decimal=mark)) == read


@given(st.text(max_size=60), MARKS)
def test_no_text_raises(text, mark):
    answer_in_recorded_text(text, numeric(decimal=mark))
    is_correct("12", numeric(text, mark))


@pytest.mark.parametrize(
    ("gold", "predicted", "right"),
    [
        ("1.25 mg", "1.254", True),
        ("1.25 mg", "1.256", False),
        ("$1,234.50", "1234.504", True),
        ("12.5 mL", "12.54", False),
        ("50.25%", "50.254", True),
        ("Total: 1.25 (rounded)", "1.254", True),
        ("(1.25)", "-1.254", True),
        # 1e-05 is 0.00001, with five decimals.
        ("1e-05", "0.00001", True),
        ("1e-05", "0.000014", True),
        ("1e-05", "0.00002", False),
        ("1.25e3", "1250", True),
        ("1.25e3", "1250.004", False),
        ("1.25e1", "12.504", False),
        ("2½", "2.504", False),
        ("1/3", "0.33", False),
    ],
)
def test_the_tolerance_is_that_of_the_golds_own_decimals(gold, predicted, right):
    assert is_correct(predicted, numeric(gold)) is right


def test_the_tolerance_with_a_decimal_comma():
    assert is_correct("1,254", numeric("1,25 mg", ","))
    assert not is_correct("1,256", numeric("1,25 mg", ","))


@pytest.mark.parametrize(
    ("value", "mark", "canonical"),
    [
        (1e-05, "", "0.00001"),
        (1e-7, "", "0.0000001"),
        (2.0, "", "2"),
        (12, "", "12"),
        (1.234, ",", "1,234"),
        (1e22, ",", "1" + "0" * 22),
        (float("nan"), "", None),
        (float("-inf"), "", None),
    ],
)
def test_numbers_of_json(value, mark, canonical):
    assert parse_answer(value, numeric(decimal=mark)) == canonical


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("We add.\nTotal: −12", "-12"),
        ("We add:\n12", "12"),
        ("We add\n-12\n", "-12"),
        ("We add 3 and 9\n12 mL", "12"),
        ("So he has 17 - 14 = 3 left.", "3"),
        ("Solve for x: 38 = 32 + x, or 6 = x", "6"),
        ("She went 24 / 8 = 3 times", "3"),
        ("That makes 2½.", "2.5"),
        ("So he gave 31 - 23 crackers.", None),
        ("So it is 20 * (19 * 18).", None),
        ("It starts at 12:30.", None),
        ("The side is 2√3.", None),
        ("The ratio is 3:2.", None),
        ("He pays 325 000 dollars.", None),
        ("It takes 2 and a half hours.", None),
    ],
)
def test_the_last_number_of_a_chain_is_read_whole(text, canonical):
    assert answer_in_recorded_text(text, numeric()) == (text.strip(), canonical)
