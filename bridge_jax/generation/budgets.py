"""Keeps a model to a budget of thinking tokens while it writes.

The engine writes given tokens at a given place (`Request.forced`), unless the model has closed its
thinking before. They are the model's context like any other token, and nothing is trained on them.

What a reply costs is counted in tokens that were decoded: forced ones, answers that were thrown
away, and the end token too. What comes with the prompt is not decoded.
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
    """Holds a reply's text, its answer, and how long its thinking is.

    Attributes:
      text: of all of it.
      answer: canonical; None if there is none.
      thinking: tokens of the thinking.
    """

    text: str
    answer: str | None
    thinking: int


class Cap(NamedTuple):
    """Says where and how thinking is cut off.

    Attributes:
      budget: tokens of thinking at most.
      thinking: how replies are divided.
      closing: ids that are said before the thinking is closed, as the last of the budget.
      answer_tokens: reserved for the answer after it; a reply that closes its thinking early may
        also use the rest of the budget.
    """

    budget: int
    thinking: Thinking
    answer_tokens: int
    closing: Sequence[int] = ()


def capped(prompt: Sequence[int], cap: Cap) -> Request:
    """Returns a request for a reply to a prompt (ids) whose thinking is cut off.

    Raises:
      UserError: the engine cannot force so many tokens.
    """
    end = cap.thinking.closing
    forced = [*cap.closing, *end, *cap.thinking.answering]
    if len(forced) > FORCED or len(end) > UNLESS:
        raise UserError(
            f"thinking.closing: {len(cap.closing)} tokens, {len(forced)} with those that end the "
            f"thinking; at most {FORCED} in all, {UNLESS} of them the end: say it in fewer words"
        )
    at = len(cap.thinking.opening) + max(0, cap.budget - len(cap.closing))
    limit = at + len(forced) + cap.answer_tokens
    return Request(prompt, limit, forced=forced, force_at=at, unless=end)


def extended(
    request: Request, written: Sequence[int], thinking: Thinking, waiting: Sequence[int]
) -> Request | None:
    """Returns the request that goes on where a model has stopped thinking too early.

    That is budget forcing, as in s1 (2501.19393): the end of the thinking and the answer are thrown
    away, and words follow that make the model think on.

    Args:
      request: of `capped`.
      written: ids of its reply.
      thinking: how replies are divided.
      waiting: ids of these words, which count as thinking.

    Returns:
      None where the budget leaves no room, nothing was thought, or the thinking was cut off.
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
    """Divides a reply to a question, and parses its answer: the first after the thinking.

    A model that was not trained on our replies may write the line of the answer in other tokens;
    then the text is divided, and its thinking is counted anew.
    """
    thoughts, rest = thinking.split(ids)
    text = tokenizer.decode(ids)
    if rest is not None:
        if not thinking.opening:
            line = tokenizer.decode(rest).strip().partition("\n")[0]
            return Reply(text, parse_answer(line, example), len(thoughts))
        # A model that thinks writes its answer in other forms too.
        _, answer = answer_in_recorded_text(tokenizer.decode(rest), example)
        return Reply(text, answer, len(thoughts))
    if thinking.opening:
        return Reply(text, answer_of(text, example), len(thoughts))
    rationale, answer = split_completion(text)
    count = len(ids) if answer is None else len(tokenizer.encode(rationale))
    return Reply(text, answer_of(text, example), count)


def spent(completion: Completion) -> int:
    """Returns the tokens that were decoded for a completion, the end token included."""
    return len(completion.ids) + completion.ended
