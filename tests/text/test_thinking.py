"""Thinking and answer, counted in tokens; and the sentence that states a budget."""

import dataclasses

import pytest

from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.text import prompts
from bridge_jax.text.thinking import (
    Thinking,
    thinking_of,
)

EXAMPLE = Example("a", "2 + 2?", "4", "numeric")


def test_a_plain_reply_is_divided_where_its_sequence_was(tiny_tokenizer):
    plain = thinking_of(tiny_tokenizer, "plain", "tiny")
    # Each text has as many characters as the other, and not as many tokens.
    for rationale in ("a tube, a tube, a tube, a tube", "0123456789 0123456789 00000000"):
        sequence = plain.sequence(tiny_tokenizer, [7], rationale, "4")
        thoughts, rest = plain.split([*sequence.rationale, *sequence.answer[:-1]])
        assert thoughts == tiny_tokenizer.encode(rationale) == sequence.rationale
        assert rest is not None and tiny_tokenizer.decode(rest) == " 4"
    lengths = {len(tiny_tokenizer.encode(text)) for text in ("a tube, a tube", "01234567890123")}
    assert len(lengths) == 2


def test_what_is_not_closed_is_all_thinking(tiny_tokenizer):
    plain = thinking_of(tiny_tokenizer, "plain", "tiny")
    ids = tiny_tokenizer.encode("Two and two are four. Answer: 4")  # no line of its own
    assert plain.split(ids) == (ids, None)
    assert plain.split([]) == ([], None)
    bare = tiny_tokenizer.encode("Answer: 4")
    thoughts, rest = plain.split(bare)
    assert thoughts == [] and rest is not None and tiny_tokenizer.decode(rest) == " 4"


def test_tags_are_the_models_own_tokens(tiny_tokenizer):
    with pytest.raises(UserError, match="tiny has no token <think>"):
        thinking_of(tiny_tokenizer, "tags", "tiny")
    tags = Thinking((500,), (501,))
    sequence = tags.sequence(tiny_tokenizer, [7], "Two and two.", "4")
    thoughts = tiny_tokenizer.encode("Two and two.")
    assert sequence.rationale == [500, *thoughts, 501]
    reply = [*sequence.rationale, *sequence.answer[:-1]]
    assert tags.split(reply) == (thoughts, sequence.answer[:-1])
    assert tags.split([500, *thoughts]) == (thoughts, None)
    assert tags.split([*thoughts, 501, 9]) == (thoughts, [9])  # The prompt may have opened it.


def test_a_marker_is_one_token_or_none(tiny_tokenizer):
    assert tiny_tokenizer.marker("<|im_end|>") == tiny_tokenizer.end_id
    assert tiny_tokenizer.marker("<think>") is None


def test_one_function_states_the_budget():
    sentence = "Think for at most 128 tokens."
    assert prompts.with_budget("", 128) == sentence
    assert prompts.with_budget("Reason.", 128) == f"Reason. {sentence}"
    assert prompts.with_budget("Reason.", 0) == "Reason."
    told = dataclasses.replace(EXAMPLE, budget=128)
    system = prompts.messages(told, "reason")[0]["content"]
    assert system == prompts.with_budget(prompts.INSTRUCTIONS["reason"], 128)
    assert prompts.messages(EXAMPLE, "reason")[0]["content"] == prompts.INSTRUCTIONS["reason"]
