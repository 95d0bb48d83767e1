import collections
import re

import pytest

from bridge_jax.data import answers
from bridge_jax.data.practice import checkdigits, generate
from bridge_jax.data.practice.checkdigits import KINDS
from bridge_jax.data.practice.problem import COMMON
from bridge_jax.errors import UserError

QUESTION = re.compile(r"Check digit from (\d): (a \w+(?:, a \w+)*)\?")
STEP = re.compile(r"A (\w+) is (\d): (\d)\+(\d)=(\d+), so (\d)\.")
LONG = re.compile(r"of a (\w+) is (\d)\. We have (\d) and add (\d), which makes (\d+);.*? (\d)\.")


def splits_of(seed=0, pool=400, test=100, domains=("filings",), steps=(2, 4), **more):
    return generate(seed, pool, 20, test, domains, *steps, **more)


def everything(splits):
    return (*splits.pool, *splits.dev, *splits.test)


def items(example):
    found = QUESTION.fullmatch(example.question)
    assert found, example.question
    return int(found[1]), re.findall(r"a (\w+)", found[2])


@pytest.mark.parametrize("domain", KINDS)
def test_each_step_of_a_rationale_holds_and_the_last_one_is_the_answer(domain):
    values = {}
    for example in everything(splits_of(domains=(domain,))):
        digit, named = items(example)
        for length, form in (("medium", STEP), ("long", LONG)):
            steps = form.findall(example.rationales[length])
            assert [step[0] for step in steps] == named
            now = digit
            for kind, value, before, added, total, after in steps:
                assert (int(before), added) == (now, value)
                assert int(total) == now + int(value) and after == total[-1]
                assert values.setdefault(kind, value) == value  # everywhere the same
                now = int(after)
            assert example.answer == str(now)
        assert example.kind == "numeric" and not example.choices
        told = "; ".join(
            f"{kind} {before}+{value}={int(before) + int(value)}"
            for kind, value, before, *_ in steps
        )
        assert example.rationales["short"] == f"{told}, so {example.answer}."
        digits = [after for *_, after in steps]
        added = [value for _, value, *_ in steps]
        texts = dict(example.rationales)
        before = [step[2] for step in steps]
        sums = list(zip(before, added, digits, strict=True))
        assert texts.pop("digits") == "".join(map("".join, sums))
        assert texts["sums"] == " ".join(f"{a}+{b}={c}" for a, b, c in sums)
        for text in texts.values():
            assert answers.answer_in_recorded_text(text, example) == (text, example.answer)
    assert set(values) == set(KINDS[domain])


def test_half_of_the_items_are_of_the_six_common_kinds_and_none_is_named_twice():
    pool = splits_of(pool=2000, test=1, steps=(3, 3)).pool
    named = [items(example)[1] for example in pool]
    assert all(len(set(kinds)) == 3 for kinds in named)
    counts = collections.Counter(kind for kinds in named for kind in kinds)
    common = sum(counts[kind] for kind in KINDS["filings"][:COMMON])
    assert 0.4 < common / (3 * 2000) < 0.5  # Half of what is drawn; common ones are drawn again.
    rare = [counts[kind] for kind in KINDS["filings"][COMMON:]]
    assert min(rare) > 50 and max(rare) < 150


def test_values_are_drawn_by_seed_and_domain_about_as_often_each():
    first, other = checkdigits.code(0, "filings"), checkdigits.code(1, "filings")
    assert first != other == checkdigits.code(1, "filings")
    for values in (first.values, checkdigits.code(0, "samples").values):
        counts = collections.Counter(values.values())
        assert set(counts) == set(range(1, 10)) and set(counts.values()) <= {4, 5}
    assert list(first.values.values()) != list(checkdigits.code(0, "samples").values.values())


@pytest.mark.parametrize(
    ("count", "found"), [(2, [1, 4]), (4, [1, 4, 7, 8]), (5, [1, 3, 4, 7, 8]), (9, [*range(1, 10)])]
)
def test_how_many_values_there_are(count, found):
    rules = checkdigits.code(0, "filings", 24, count)
    assert sorted(set(rules.values.values())) == found and len(rules.kinds) == 24
    drawn = splits_of(0, 90, 50, steps=(1, 1), families=24, different_values=count).pool
    for example in drawn:
        start, (kind,) = items(example)
        assert example.answer == str((start + rules.values[kind]) % 10)


def test_what_an_explained_answer_tells():
    assert checkdigits.facts(ASKED, RULES) == {"map", "9+3", "copy", "2+4"}
    assert checkdigits.facts("Check digit from 9: a map, a tube?", RULES) == set()
    assert checkdigits.facts("Where is a cough sent?", RULES) == set()


def test_no_question_is_in_two_splits_and_the_test_does_not_depend_on_the_pool():
    small, large = splits_of(pool=50, steps=(1, 2)), splits_of(pool=500, steps=(1, 2))
    assert small.test == large.test and small.dev == large.dev
    questions = [example.question for example in everything(large)]
    assert len(set(questions)) == len(questions)


def test_a_domain_has_42_kinds_whose_article_is_a():
    for kinds in KINDS.values():
        assert len(set(kinds)) == 42 and not any(kind[0] in "aeiou" for kind in kinds)


def test_fewer_kinds_and_longer_questions():
    longest = splits_of(pool=30, test=5, steps=(12, 12), families=12).pool
    assert {kind for example in longest for kind in items(example)[1]} == set(KINDS["filings"][:12])
    few = splits_of(pool=20, test=10, steps=(2, 2), families=3)
    assert {kind for example in few.pool for kind in items(example)[1]} == {"map", "copy", "letter"}
    with pytest.raises(UserError, match="families=3: no question names a kind of item twice"):
        splits_of(steps=(2, 4), families=3)
    with pytest.raises(UserError, match="1 <= min <= max <= 4"):
        splits_of(domains=("filings", "fees"), steps=(1, 6))


RULES = checkdigits.Code(("map", "copy"), {"map": 3, "copy": 4})
ASKED = "Check digit from 9: a map, a copy?"


@pytest.mark.parametrize(
    ("written", "error"),
    [
        ("map 9+5=14; copy 4+4=8, so 8.\nAnswer: 8", "unknown"),
        ("map 9+3=12; copy 2+5=7, so 7.\nAnswer: 7", "forgotten"),
        ("map 9+3=11; copy 1+4=5, so 5.\nAnswer: 5", "sum"),
        ("map 9+3=12; copy 2+4=7, so 7.\nAnswer: 7", "new_sum"),
        ("map 9+3=12; copy 2+4=6, so 6.\nAnswer: 7", "answer"),
        ("A map is 3: 9+3=12, so 2. A copy is 5: 2+5=7, so 7. Answer: 7", "forgotten"),
        ("map 9+3=12; letter 2+4=6, so 6.\nAnswer: 7", "form"),
        ("Answer: 7", "form"),
    ],
)
def test_where_a_rationale_first_goes_wrong(written, error):
    assert checkdigits.error(ASKED, written, RULES, {"copy", "9+3"}) == error
    assert error in checkdigits.ERRORS


@pytest.mark.parametrize("length", ["short", "medium", "long"])
def test_all_lengths_are_read(length):
    rules = checkdigits.code(0, "filings")
    for example in splits_of(pool=20, test=1).pool:
        text = example.rationales[length]
        assert checkdigits.error(example.question, text, rules, ()) == "answer"
        changed = {kind: value % 9 + 1 for kind, value in rules.values.items()}
        other = checkdigits.Code(rules.kinds, changed)
        assert checkdigits.error(example.question, text, other, ()) == "unknown"
