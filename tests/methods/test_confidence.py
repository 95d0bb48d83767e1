"""Steps of a rationale and the log-probability of each."""

import pytest

from bridge_jax.generation.engine import Completion
from bridge_jax.methods.rationales import step_logprobs


class Words:
    """A tokenizer whose ids are indices into a list of texts."""

    def __init__(self, *texts):
        self.texts = texts

    def decode(self, ids):
        return "".join(self.texts[i] for i in ids)


def steps(*pieces, ended=True):
    """Returns the steps of (text, log-probability) pieces, the last of which ends the turn."""
    texts, logprobs = zip(*pieces)
    count = len(pieces) - ended
    return step_logprobs(
        Completion(list(range(count)), list(logprobs), 2 if ended else None), Words(*texts)
    )


def test_a_step_is_a_sentence_or_a_line():
    found = steps(
        ("Two", -1), (" and", -2), (" 1", -3), (".", -1), ("5", -1), (" is", -1), (" more", -1),
        (".", -2),
        (" So", -4), (" three", -2),
        ("\nAnswer", -0.5), (":", 0), (" 3", -1), ("", -0.5),
    )  # fmt: skip
    # The point of 1.5 ends no sentence; the end token belongs to the answer line.
    assert found == [pytest.approx(-12 / 8), -3, -0.5]


def test_a_full_stop_before_a_line_break_is_one_end():
    assert steps(("It is.", -1), ("\n", -2), ("Answer: 3", -4), ("", -6)) == [-1, -4]


def test_a_token_over_the_end_of_a_step_belongs_to_it():
    assert steps(("It is. So", -1), (" three", -2), ("", -2)) == [-1, -2]


def test_a_completion_that_was_cut_off_has_no_end_token():
    assert steps(("It is.", -1), (" And", -3), (" so", -5), ended=False) == [-1, -4]


def test_nothing_written_has_no_steps():
    assert step_logprobs(Completion([], [], None), Words()) == []
    assert step_logprobs(Completion([], [-2.0], 2), Words()) == [-2]


def test_with_a_real_tokenizer(tiny_tokenizer):
    text = "The dose is 5 mg. Twice a day.\nAnswer: 10"
    ids = tiny_tokenizer.encode(text)
    cuts = [len(tiny_tokenizer.encode(part)) for part in ("The dose is 5 mg.", " Twice a day.")]
    logprobs = [-1.0] * cuts[0] + [-2.0] * cuts[1] + [-3.0] * (len(ids) - sum(cuts))
    assert step_logprobs(Completion(ids, logprobs, None), tiny_tokenizer) == [-1, -2, -3]
