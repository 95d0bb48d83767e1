"""Enforces a budget of thinking tokens during generation.

The engine inserts given tokens at a given position (`Request.forced`), unless the model has closed
its thinking before. Inserted tokens are part of the model's context like any other token, and no
model is trained on them.

The cost of a reply is the number of tokens decoded for it, including forced tokens, discarded
answers and the end token. Tokens that come with the prompt are not decoded.
"""

from collections.abc import Sequence
from typing import NamedTuple

from bridge_jax.data.answers import (
    answer_in_recorded_text,
    answer_of,
    parse_answer,
    split_completion,
)
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.generation.engine import Completion, Request
from bridge_jax.generation.slots import FORCED, UNLESS
from bridge_jax.text.thinking import Thinking
from bridge_jax.text.tokenizer import Tokenizer


class Reply(NamedTuple):
    """A reply's text, its answer, and the length of its thinking.

    Attributes:
      text: the whole reply.
      answer: the canonical answer; None if there is none.
      thinking: number of thinking tokens.
    """

    text: str
    answer: str | None
    thinking: int


class Cap(NamedTuple):
    """The limit of thinking, and the tokens that close it there.

    Attributes:
      budget: maximum number of thinking tokens.
      thinking: how replies are split into thinking and answer.
      answer_tokens: tokens reserved for the answer after the thinking; a reply that closes its
        thinking early may also use the rest of the budget.
      closing: ids inserted before the thinking is closed; they are the last tokens of the budget.
    """

    budget: int
    thinking: Thinking
    answer_tokens: int
    closing: Sequence[int] = ()


def capped(prompt: Sequence[int], cap: Cap) -> Request:
    """Returns a request for a reply to `prompt` (ids) whose thinking is cut off by `cap`.

    Raises:
      UserError: the cap needs more forced tokens than the engine supports.
    """
    end = cap.thinking.closing
    forced = [*cap.closing, *end, *cap.thinking.answering]
    if len(forced) > FORCED or len(end) > UNLESS:
        raise UserError(
            f"thinking.closing: {len(cap.closing)} tokens, {len(forced)} including those that end "
            f"the thinking; at most {FORCED} in total, {UNLESS} of them for the end: shorten it"
        )
    at = len(cap.thinking.opening) + max(0, cap.budget - len(cap.closing))
    limit = at + len(forced) + cap.answer_tokens
    return Request(prompt, limit, forced=forced, force_at=at, unless=end)


def extended(
    request: Request, written: Sequence[int], thinking: Thinking, waiting: Sequence[int]
) -> Request | None:
    """Returns a request that continues a reply whose thinking ended too early.

    This is budget forcing, as in s1 (2501.19393): the end of the thinking and the answer are
    discarded, and words are appended that make the model continue thinking.

    Args:
      request: from `capped`, or from an earlier extension.
      written: ids of its reply.
      thinking: how replies are split.
      waiting: ids of the appended words, which count as thinking.

    Returns:
      The request, or None if the budget leaves no room, the reply has no thinking, or the thinking
      was cut off.
    """
    thoughts, rest = thinking.split(written)
    kept = list(written)
    if rest is not None:
        kept = kept[: len(written) - len(rest) - len(thinking.closing)]
    used = len(kept) + len(waiting)
    if not thoughts or used >= request.force_at:
        return None
    return request._replace(
        prompt=[*request.prompt, *kept, *waiting],
        limit=(request.limit or 0) - used,
        force_at=request.force_at - used,
    )


def read(tokenizer: Tokenizer, thinking: Thinking, ids: Sequence[int], example: Example) -> Reply:
    """Splits a reply into thinking and answer, and parses the answer.

    In a plain reply the answer is the first line after the thinking. With tags it may have any form
    that `answer_in_recorded_text` reads.

    A model that was not trained on our replies may tokenize a plain answer line differently. Then
    the text is split instead, and its thinking is encoded again to count the tokens.
    """
    thoughts, rest = thinking.split(ids)
    text = tokenizer.decode(ids)
    if rest is not None:
        if not thinking.opening:
            line = tokenizer.decode(rest).strip().partition("\n")[0]
            return Reply(text, parse_answer(line, example), len(thoughts))
        # A model with thinking tags also writes its answer in other forms.
        _, answer = answer_in_recorded_text(tokenizer.decode(rest), example)
        return Reply(text, answer, len(thoughts))
    if thinking.opening:
        return Reply(text, answer_of(text, example), len(thoughts))
    rationale, answer = split_completion(text)
    count = len(ids) if answer is None else len(tokenizer.encode(rationale))
    return Reply(text, answer_of(text, example), count)


def spent(completion: Completion) -> int:
    """Returns the number of tokens decoded for a completion, including the end token."""
    return len(completion.ids) + completion.ended
