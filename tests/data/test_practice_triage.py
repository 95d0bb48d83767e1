import collections

import pytest

from bridge_jax.data import answers
from bridge_jax.data.practice import generate, open_ended, triage
from bridge_jax.errors import UserError

KIND_OF = {it: kind for kind, complaints in triage.COMPLAINTS.items() for it in complaints}


def ask(steps, pool=200, test=60):
    return generate(1, pool, 10, test, ("triage",), steps, steps)


def followed(example, steps):
    """Answers a question from its words, without looking at how it was made."""
    (it,) = [it for it in KIND_OF if f" {it} " in example.question]
    kind = KIND_OF[it]
    place = triage.PLACE_OF_COMPLAINT[kind]
    return it, (kind, place, triage.FLOORS[place])[:steps]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_answer_follows_from_the_rules(steps):
    splits = ask(steps)
    for example in (*splits.pool, *splits.test):
        it, found = followed(example, steps)
        assert example.answer == found[-1]
        assert example.kind == "label"
        assert set(example.choices) == set(triage.ANSWERS[steps - 1])
        assert answers.is_correct(example.answer, example)
        assert example.rationales["short"] == f"{it[0].upper()}{it[1:]}: {', '.join(found)}."


def test_a_rationale_says_each_rule_once():
    example = next(e for e in ask(3).pool if " a rash " in e.question)
    rules = ["a rash is skin", "skin goes to the pharmacy", "the pharmacy is on the third floor"]
    assert example.answer == "third"
    assert example.rationales["medium"] == f"A{', and '.join(rules)[1:]}."
    for rule in rules:
        assert rule.lower() in example.rationales["long"].lower()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_no_answer_is_likelier_than_another(steps):
    counts = collections.Counter(example.answer for example in ask(steps, pool=1200).pool)
    expected = 1200 / len(triage.ANSWERS[steps - 1])
    assert set(counts) == set(triage.ANSWERS[steps - 1])
    # Five standard deviations of a fair draw.
    assert all(abs(n - expected) < 5 * expected**0.5 for n in counts.values())


def test_questions_are_unlike_each_other_and_run_out():
    splits = ask(2)
    questions = [e.question for e in (*splits.pool, *splits.dev, *splits.test)]
    assert len(set(questions)) == len(questions) == 270
    with pytest.raises(UserError, match="no unseen triage question with 2 steps"):
        ask(2, pool=20_000)


def test_the_explanation_as_the_answer():
    splits = ask(2)
    example, text = splits.pool[0], open_ended(splits, 0.8).pool[0]
    assert (text.kind, text.answer) == ("text", example.rationales["medium"])
    assert set(text.rationales.values()) == {example.rationales["short"]}
