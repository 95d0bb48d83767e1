"""Divides a reply into thinking and answer, in tokens.

A budget limits only the thinking, counted in tokens of the model that thinks. In a `plain` reply
the thinking is all text before the answer line. In a reply with `tags` it is the text between
<think> and </think>, each of which is a single token of the model.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from bridge_jax.data.answers import ANSWER_MARK
from bridge_jax.errors import UserError
from bridge_jax.text.prompts import TrainingSequence, training_sequence
from bridge_jax.text.tokenizer import Tokenizer

Form = Literal["plain", "tags"]
TAGS = "<think>", "</think>"


class Thinking(NamedTuple):
    """Divides a model's replies into thinking and answer.

    Attributes:
      opening: ids before the thinking; empty for plain replies.
      closing: ids after it.
      unopened: ids at the beginning of a reply that has no thinking; empty with tags.
      answering: ids that begin the answer line after `closing`; empty for plain replies, where
        `closing` already begins that line.
    """

    opening: tuple[int, ...]
    closing: tuple[int, ...]
    unopened: tuple[int, ...] = ()
    answering: tuple[int, ...] = ()

    def sequence(
        self, tokenizer: Tokenizer, prompt: list[int], rationale: str, answer: str
    ) -> TrainingSequence:
        """Returns prompt, thinking and answer as a training sequence.

        Args:
          prompt: ids.
          rationale: the thinking.
          answer: the answer alone.
        """
        if not self.opening:
            return training_sequence(tokenizer, prompt, rationale, answer)
        thinking = [*self.opening, *tokenizer.encode(rationale.strip()), *self.closing]
        final = tokenizer.encode(f"\n{ANSWER_MARK} {answer}")
        return TrainingSequence(prompt, thinking, [*final, tokenizer.end_id])

    def split(self, ids: Sequence[int]) -> tuple[list[int], list[int] | None]:
        """Returns the ids of the thinking, and those after it or None if it was not closed.

        Args:
          ids: the ids of a reply, without the end token.
        """
        skip, size = len(self.opening), len(self.closing)
        if self.unopened and tuple(ids[: len(self.unopened)]) == self.unopened:
            return [], list(ids[len(self.unopened) :])
        start = skip if tuple(ids[:skip]) == self.opening else 0
        for at in range(start, len(ids) - size + 1):
            if tuple(ids[at : at + size]) == self.closing:
                return list(ids[start:at]), list(ids[at + size :])
        return list(ids[start:]), None


def thinking_of(tokenizer: Tokenizer, form: Form, checkpoint: str) -> Thinking:
    """Returns how replies of a form are divided.

    Args:
      form: `plain`, or `tags`.
      checkpoint: the name of the model, for messages.

    Raises:
      UserError: the tokenizer has no tokens for the tags.
    """
    if form == "plain":
        closing, unopened = tokenizer.encode_all([f"\n{ANSWER_MARK}", ANSWER_MARK])
        return Thinking((), tuple(closing), tuple(unopened))
    found = [tokenizer.marker(tag) for tag in TAGS]
    if None in found:
        raise UserError(
            f"thinking.form=tags: the tokenizer of {checkpoint} has no token "
            f"{TAGS[found.index(None)]}; use thinking.form=plain, or a reasoning model"
        )
    opening, closing = ((token,) for token in found if token is not None)
    return Thinking(opening, closing, answering=tuple(tokenizer.encode(f"\n{ANSWER_MARK}")))
