"""The confidence of an answer is over its own tokens; what is right of those that are trusted."""

import math

import pytest

from bridge_jax.evaluation import confidence
from bridge_jax.generation.engine import Completion


def completion(tokenizer, *parts):
    """Returns a completion of (text, log-probability of each of its tokens)."""
    ids, logprobs = [], []
    for text, logprob in parts:
        found = tokenizer.encode(text)
        ids += found
        logprobs += [logprob] * len(found)
    return Completion(ids, [*logprobs, -9.0], 1)


@pytest.mark.parametrize(
    "parts",
    [
        [("Answer: ", -5), ("60", -0.1)],
        [("3 x 20 = 60\nAnswer: ", -5), ("60 mg", -0.1), ("\nand 60 more", -5)],
        [("Answer: 1\nNo.\n**Answer:** ", -5), ("late", -0.1), ("  \n", -5)],
        [("So the answer is 7.\nAnswer: ", -5), ("naïve é", -0.1)],
    ],
)
def test_the_frame_does_not_count(tiny_tokenizer, parts):
    found = confidence.of_answer(tiny_tokenizer, completion(tiny_tokenizer, *parts))
    assert found == pytest.approx(math.exp(-0.1), abs=1e-4)


def test_it_is_the_geometric_mean(tiny_tokenizer):
    assert len(tiny_tokenizer.encode("60")) == 2
    parts = [("Answer: ", -5), ("6", math.log(0.9)), ("0", math.log(0.4))]
    assert confidence.of_answer(tiny_tokenizer, completion(tiny_tokenizer, *parts)) == 0.6


def test_a_reply_without_an_answer_has_none(tiny_tokenizer):
    for text in ("", "60", "Answer:", "Answer:  \n"):
        assert (
            confidence.of_answer(tiny_tokenizer, completion(tiny_tokenizer, (text, -0.1))) is None
        )


def test_after_divided_thinking_the_first_line_is_the_answer(tiny_tokenizer):
    thinking = tiny_tokenizer.encode("So\nAnswer:")
    parts = [("So\nAnswer:", -5), (" 60", -0.1), ("\nmore", -5)]
    found = confidence.of_answer(tiny_tokenizer, completion(tiny_tokenizer, *parts), len(thinking))
    assert found == pytest.approx(math.exp(-0.1), abs=1e-4)


def answered(*sure, wrong=()):
    """Returns rows of these confidences; None is no answer. Those numbered in `wrong` are wrong."""
    return [
        {
            "answer": None if each is None else "x",
            "confidence": each,
            "correct": each is not None and number not in wrong,
        }
        for number, each in enumerate(sure)
    ]


def test_a_higher_threshold_trusts_fewer_answers():
    """Of five one has no answer; the two least sure of the others are wrong."""
    rows = answered(0.9, 0.5, 0.8, None, 0.6, wrong=(1, 4))
    found = {least: confidence.trusted(rows, least) for least in (0.0, 0.6, 0.8, 0.81, 0.95)}
    counts = {least: (each["trusted"], each["right"]) for least, each in found.items()}
    assert counts == {0.0: (4, 2), 0.6: (3, 2), 0.8: (2, 2), 0.81: (1, 1), 0.95: (0, 0)}
    assert found[0.8]["n"] == 5 and found[0.8]["share"] == 0.4 and found[0.8]["accuracy"] == 1.0
    # Wilson's interval of 2 of 2: from 2 / (2 + 1.96²).
    assert (found[0.8]["low"], found[0.8]["high"]) == pytest.approx((0.342380, 1.0), abs=1e-5)
    assert found[0.95]["accuracy"] is found[0.95]["low"] is None


def test_thresholds_trust_about_these_shares_of_the_questions():
    """95, 90, 80, 70 and 50% of twenty are 19, 18, 16, 14 and 10 answers."""
    rows = answered(*(i / 100 for i in range(20)))
    assert confidence.thresholds(rows) == [0.0, 0.01, 0.02, 0.04, 0.06, 0.10]
    # No threshold trusts 95 or 90% where three have no answer, and equals are trusted together.
    rows = answered(*[0.4] * 10, *[0.9] * 7, None, None, None)
    assert confidence.thresholds(rows) == [0.0, 0.4]
    assert confidence.thresholds(answered(None, None)) == [0.0]


def test_an_answer_of_unknown_confidence_is_trusted_only_from_0():
    row = {"answer": "x", "confidence": None, "correct": True}
    assert confidence.is_trusted(row, 0.0) and not confidence.is_trusted(row, 0.01)
