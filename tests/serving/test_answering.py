"""The confidence of an answer is over its own tokens."""

import math

import pytest

from bridge_jax.generation.engine import Completion
from bridge_jax.serving.answering import confidence


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
    found = confidence(tiny_tokenizer, completion(tiny_tokenizer, *parts))
    assert found == pytest.approx(math.exp(-0.1), abs=1e-4)


def test_it_is_the_geometric_mean(tiny_tokenizer):
    assert len(tiny_tokenizer.encode("60")) == 2
    parts = [("Answer: ", -5), ("6", math.log(0.9)), ("0", math.log(0.4))]
    assert confidence(tiny_tokenizer, completion(tiny_tokenizer, *parts)) == 0.6


def test_a_reply_without_an_answer_has_none(tiny_tokenizer):
    for text in ("", "60", "Answer:", "Answer:  \n"):
        assert confidence(tiny_tokenizer, completion(tiny_tokenizer, (text, -0.1))) is None


def test_after_divided_thinking_the_first_line_is_the_answer(tiny_tokenizer):
    thinking = tiny_tokenizer.encode("So\nAnswer:")
    parts = [("So\nAnswer:", -5), (" 60", -0.1), ("\nmore", -5)]
    found = confidence(tiny_tokenizer, completion(tiny_tokenizer, *parts), len(thinking))
    assert found == pytest.approx(math.exp(-0.1), abs=1e-4)
