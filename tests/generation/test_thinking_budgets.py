"""Budgets that are kept while a model writes."""

from typing import Any

import numpy as np
import pytest

from bridge_jax.config import GenerationConfig
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.generation import budgets
from bridge_jax.generation.budgets import Cap, capped, extended
from bridge_jax.generation.engine import Completion, Engine
from bridge_jax.text.thinking import Thinking, thinking_of

PLAIN, TAGS = Thinking((), (7, 8, 9)), Thinking((5,), (6,), answering=(7, 9))
PROMPT = np.random.default_rng(0).integers(10, 500, 12).tolist()
SAMPLING = GenerationConfig(max_new_tokens=40, batch_size=4, temperature=1.0)


def engine_of(model, mesh):
    return Engine(*model, (-1,), 2, SAMPLING, mesh, 3)


@pytest.mark.parametrize("budget", [1, 4, 16])
def test_thinking_is_cut_off_at_its_budget_in_batches_and_in_streams(
    budget, tiny_model, one_device
):
    engine = engine_of(tiny_model, one_device)
    cap = Cap(budget, PLAIN, answer_tokens=5)
    requests = [capped(PROMPT, cap)._replace(stream=stream) for stream in range(6)]
    done = dict(pair for ended in engine.complete(requests) for pair in ended)
    for stream, request in enumerate(requests):
        thoughts, rest = PLAIN.split(done[stream].ids)
        assert (
            len(thoughts) <= budget and rest is not None and len(rest) == 5 + budget - len(thoughts)
        )
        assert list(engine.stream(request)) == done[stream].ids
        assert budgets.spent(done[stream]) == len(done[stream].ids) == budget + 3 + 5


def test_a_closing_sentence_is_the_last_of_the_budget(tiny_model, one_device):
    request = capped(PROMPT, Cap(10, TAGS, 2, closing=(400, 401, 402)))
    assert (request.force_at, request.limit) == (1 + 7, 1 + 7 + 6 + 2)
    engine = engine_of(tiny_model, one_device)
    ((_, done),) = [pair for ended in engine.complete([request]) for pair in ended]
    # After the end of the thinking comes the answer's line.
    assert done.ids[8:14] == [400, 401, 402, 6, 7, 9]
    with pytest.raises(UserError, match="shorten it"):
        capped(PROMPT, Cap(10, TAGS, 2, closing=tuple(range(40))))


def test_thinking_that_ends_early_is_extended_within_its_budget():
    request = capped(PROMPT, Cap(20, PLAIN, answer_tokens=3))
    longer = extended(request, [11, 12, 13, 7, 8, 9, 30, 31], PLAIN, [99, 98])
    assert longer is not None
    assert longer.prompt == [*PROMPT, 11, 12, 13, 99, 98]
    # What comes before counts: 15 of the 20 tokens are left, and after them mark and answer.
    assert (longer.force_at, longer.limit) == (15, 15 + 3 + 3)
    # It ended without a mark that we know.
    whole = extended(request, [11, 12, 13], PLAIN, [99])
    assert whole is not None and whole.prompt == [*PROMPT, 11, 12, 13, 99]
    cut = [*range(30, 50), 7, 8, 9, 40]
    assert extended(request, cut, PLAIN, [99]) is None
    assert extended(request, cut[1:], PLAIN, [99]) is None  # No room for more than the words.
    assert extended(request, [7, 8, 9, 40], PLAIN, [99]) is None  # Nothing was thought.
    tags = capped(PROMPT, Cap(20, TAGS, answer_tokens=3))
    longer = extended(tags, [5, 11, 12, 6, 30], TAGS, [99])
    assert longer is not None
    assert longer.prompt == [*PROMPT, 5, 11, 12, 99] and longer.force_at == 21 - 4
    assert extended(tags, [5, *range(30, 50), 6, 40], TAGS, [99]) is None


def test_a_reply_is_read_by_its_tokens_or_else_by_its_text(tiny_tokenizer):
    example = Example("a", "2 + 2?", "4", "numeric")
    plain = thinking_of(tiny_tokenizer, "plain", "tiny")
    parts = [tiny_tokenizer.encode(text) for text in ("Two and two.", "\nAnswer: 4")]
    reply = budgets.read(tiny_tokenizer, plain, [*parts[0], *parts[1]], example)
    assert (reply.answer, reply.thinking) == ("4", len(parts[0]))
    other = tiny_tokenizer.encode("Two and two.\n**Answer:** 4")
    reply = budgets.read(tiny_tokenizer, plain, other, example)
    assert (reply.answer, reply.thinking) == ("4", len(parts[0]))
    reply = budgets.read(tiny_tokenizer, plain, parts[0], example)
    assert (reply.answer, reply.thinking) == (None, len(parts[0]))
    # Nothing is thought after the answer: another one does not count.
    more = tiny_tokenizer.encode("\nNo, wait. It is five.\nAnswer: 5")
    reply = budgets.read(tiny_tokenizer, plain, [*parts[0], *parts[1], *more], example)
    assert (reply.answer, reply.thinking) == ("4", len(parts[0]))


def test_every_token_that_was_decoded_is_spent():
    cut: Any = Completion([1, 2, 3], [0.0] * 3, None)
    assert budgets.spent(cut) == 3
    assert budgets.spent(cut._replace(end=9)) == 4
