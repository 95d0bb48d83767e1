import re

import pytest

from bridge_jax.data import answers
from bridge_jax.data.practice import instructions


@pytest.fixture(scope="module")
def examples():
    return instructions.generate_instructions(0, 360)


def by_type(examples, name):
    return [row for row in examples if row.id.startswith(f"instruction-{name}-")]


def test_answers_parse(examples):
    for row in examples:
        assert answers.parse_answer(row.answer, row) == row.answer, row
        assert answers.is_correct(row.answer, row)
        assert set(row.rationales) == {"medium"}


def test_types_take_turns_and_nothing_repeats(examples):
    counts = {}
    for row in examples:
        name = re.sub(r"instruction-(\w+)-\d{5}", r"\1", row.id)
        counts[name] = counts.get(name, 0) + 1
    assert len(counts) == len(instructions.TYPES) >= 15
    assert max(counts.values()) <= 1.5 * min(counts.values())
    assert len({row.id for row in examples}) == len({row.question for row in examples}) == 360


def test_prompts_are_short(examples):
    counts = [len(row.question.split()) for row in examples]
    assert 10 <= sum(counts) / len(counts) <= 25
    assert max(counts) <= 25


def test_same_seed_same_instructions(examples):
    assert instructions.generate_instructions(0, 360) == examples
    assert instructions.generate_instructions(0, 50) == examples[:50]
    assert instructions.generate_instructions(1, 360) != examples


def test_too_many_is_an_error(monkeypatch):
    monkeypatch.setattr(instructions, "TYPES", (instructions._letters,))
    with pytest.raises(ValueError, match="different instructions, 500 were asked for"):
        instructions.generate_instructions(0, 500)


def test_numbers_recomputed_from_the_question(examples):
    for row in by_type(examples, "add"):
        assert sum(map(int, re.findall(r"\d+", row.question))) == int(row.answer)
    for row in by_type(examples, "subtract"):
        a, b = map(int, re.findall(r"\d+", row.question))
        assert abs(a - b) == int(row.answer)
    for row in by_type(examples, "sort"):
        numbers = list(map(int, re.findall(r"\d+", row.question)))
        expected = sorted(numbers, reverse="largest to" in row.question)
        assert row.answer == ", ".join(map(str, expected))
    for row in by_type(examples, "largest"):
        numbers = list(map(int, re.findall(r"\d+", row.question)))
        assert int(row.answer) == (max if "largest" in row.question else min)(numbers)


def test_words_recomputed_from_the_question(examples):
    for row in by_type(examples, "reverse"):
        listed = row.question.partition(": ")[2].rstrip(".").split(", ")
        assert row.answer.split(", ") == listed[::-1]
    for row in by_type(examples, "longest"):
        assert [w for w in row.choices if len(w) >= len(row.answer)] == [row.answer]
    for row in by_type(examples, "count"):
        assert row.question.count(",") + 1 == int(row.answer)
    for row in by_type(examples, "letters"):
        assert len(row.question.partition(": ")[2].rstrip("?")) == int(row.answer)
    for row in by_type(examples, "first_letter"):
        word = row.question.rstrip(".").split()[-1]
        assert row.answer == (word[0] if " first " in row.question else word[-1])
    for row in by_type(examples, "belongs"):
        group = next(words for name, words in instructions.GROUPS.items() if name in row.question)
        assert [word for word in row.choices if word in group] == [row.answer]
    for row in by_type(examples, "has"):
        owner, asked = (
            row.question.split()[0],
            re.findall(r"(\w+)(?: have the|\? Say)", row.question),
        )
        assert row.answer == ("yes" if owner in asked else "no")
    for row in by_type(examples, "who"):
        order = re.findall(r"(\w+) is taller than (\w+)", row.question)
        assert row.answer == (order[0][0] if "tallest" in row.question else order[1][1])
