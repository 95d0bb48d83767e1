import json

import pytest

from bridge_jax.data.example import Example
from bridge_jax.ledger.requests import Failure, Message, Reply, Request
from bridge_jax.teachers.rounds import ask_in_rounds
from bridge_jax.teachers.verification import Rules, annotation, is_good

EXAMPLE = Example("e1", "How many?", "12", "numeric")
WORDS = "one two three"


def words(text):
    return len(text.split())


def said(answer, rationale=WORDS, finish="stop"):
    return Reply(f"{rationale}\nAnswer: {answer}", 5, 7, finish)


def row(outcomes, **rules):
    return annotation(EXAMPLE, outcomes, Rules(words, **rules))


def test_a_good_reply_is_kept():
    assert row([said("12 mg")]) == {
        "id": "e1",
        "question": "How many?",
        "rationale": WORDS,
        "answer": "12",
        "gold": "12",
        "correct": True,
        "kept": True,
        "reason": None,
        "asked": 1,
    }


def test_json_says_the_same():
    text = json.dumps({"rationale": WORDS, "answer": 12})
    assert row([Reply(text, 5, 7)]) == row([said("12")])


@pytest.mark.parametrize(
    ("outcome", "rules", "reason"),
    [
        (said("13"), {}, "the answer '13' is not the gold one"),
        (Reply("I am not sure.", 1, 1), {}, "no answer that parses"),
        (said("12", ""), {}, "no rationale"),
        (said("12", finish="length"), {}, "cut off at teacher.max_output_tokens"),
        (said("12", finish="refused"), {}, "refused"),
        (said("12", finish="empty"), {}, "an empty reply"),
        (said("12", finish="malformed"), {}, "no rationale and answer in the reply"),
        (Failure("given up"), {}, "given up"),
        (said("12"), {"max_tokens": 2}, "3 tokens, above teacher.max_rationale_tokens=2"),
        (said("12"), {"min_tokens": 4}, "3 tokens, below teacher.min_rationale_tokens=4"),
        (said("12", finish="refused"), {"keep_wrong": True}, "refused"),
    ],
)
def test_why_a_reply_is_rejected(outcome, rules, reason):
    assert (row([outcome], **rules)["kept"], row([outcome], **rules)["reason"]) == (False, reason)
    # Where a later attempt is good, it is kept, and nothing is said of the earlier one.
    good = said("12", "five words are enough here" if "min_tokens" in rules else "two words")
    retried = row([outcome, good], **rules)
    assert (retried["kept"], retried["reason"], retried["asked"]) == (True, None, 2)


def test_limits_are_inclusive():
    assert row([said("12")], min_tokens=3, max_tokens=3)["kept"]


def test_a_wrong_answer_is_kept_on_request():
    kept = row([said("13")], keep_wrong=True)
    assert (kept["kept"], kept["answer"], kept["reason"]) == (True, "13", None)


def test_all_reasons_are_given_once_and_the_row_shows_what_was_said():
    rejected = row([Failure("lost"), said("13"), said("13")])
    assert rejected["reason"] == "the answer '13' is not the gold one; lost"
    assert (rejected["rationale"], rejected["answer"]) == (WORDS, "13")


@pytest.mark.parametrize(
    ("answers", "kept", "agreement"),
    [("12 12 13", True, 2 / 3), ("13 12 14", False, 1 / 3), ("13 13 13", False, 1.0)],
)
def test_samples_have_to_agree(answers, kept, agreement):
    result = row([said(a) for a in answers.split()], samples=3, min_agreement=0.5)
    assert (result["kept"], result["agreement"]) == (kept, agreement)
    if answers == "13 12 14":
        assert result["reason"] == (
            "1 of 3 samples give this answer, below teacher.min_agreement=0.5"
        )


def test_a_further_attempt_does_not_vote():
    result = row([said("13"), said("13"), said("12")], samples=2, min_agreement=0.5)
    assert (result["kept"], result["agreement"]) == (False, 0.0)


def questions(count):
    return [Request(f"q{n}", "m", (Message("user", str(n)),), 9, None) for n in range(count)]


def test_questions_are_asked_again_only_while_no_reply_is_good():
    asked = []
    answers = {("q0", 0): "12", ("q1", 1): "12", ("q2", 2): "12"}

    def ask(requests, optional):
        asked.append(([(r.example_id, r.sample) for r in requests], optional))
        return [said(answers.get((r.example_id, r.sample), "13")) for r in requests]

    requests = questions(4)
    found = ask_in_rounds(
        requests, 1, 2, lambda n, outcomes: is_good(EXAMPLE, outcomes, Rules(words)), ask
    )
    assert asked == [
        ([("q0", 0), ("q1", 0), ("q2", 0), ("q3", 0)], False),
        ([("q1", 1), ("q2", 1), ("q3", 1)], True),
        ([("q2", 2), ("q3", 2)], True),
    ]
    assert [len(outcomes) for outcomes in found] == [1, 2, 3, 3]


def test_samples_come_before_further_attempts():
    asked = []

    def ask(requests, optional):
        asked.append([r.sample for r in requests])
        return [said("13")] * len(requests)

    ask_in_rounds(questions(2), 3, 1, lambda n, outcomes: n == 0, ask)
    assert asked == [[0, 1, 2, 0, 1, 2], [3]]
