"""From an example to what the models read and are trained to write.

The instruction sits in the system message and says which mode is wanted, as the task prefixes of
Distilling Step-by-Step (2305.02301) do: an example without a rationale trains the direct answer
without teaching the model to skip its reasoning. To explain, a model is given the gold answer
(after STaR, 2203.14465).
"""

import dataclasses
from typing import Literal, NamedTuple

import numpy as np

from bridge_jax.errors import UserError
from bridge_jax.tasks.answers import ANSWER_MARK, format_completion
from bridge_jax.tasks.example import Example
from bridge_jax.text.tokenizer import Tokenizer

Mode = Literal["reason", "answer", "explain"]

INSTRUCTIONS: dict[Mode, str] = {
    "reason": "Reason step by step, then write the answer.",
    "answer": "Write only the answer.",
    "explain": "Explain the answer, then write it.",
}


class SoftTargets(NamedTuple):
    """What another model predicts at each of N targets: its K most probable tokens.

    Attributes:
      ids: int32[N, K].
      logprobs: f32[N, K], in nats, of the whole vocabulary.
    """

    ids: np.ndarray
    logprobs: np.ndarray


class Sequence(NamedTuple):
    """One training sequence, its parts apart: the masks follow from the parts, not from a search.

    Attributes:
      prompt: ids of the rendered chat, up to the assistant's turn; no loss.
      rationale: ids of the rationale; may be empty.
      answer: ids of the answer and of the end of the turn.
      soft: of another model, for rationale and answer; None where none was asked.
    """

    prompt: list[int]
    rationale: list[int]
    answer: list[int]
    soft: SoftTargets | None = None

    @property
    def length(self) -> int:
        """Tokens in all."""
        return len(self.prompt) + self.targets

    @property
    def targets(self) -> int:
        """Tokens that are trained on."""
        return len(self.rationale) + len(self.answer)

    @property
    def without_answer(self) -> "Sequence":
        """The prompt and the rationale alone, which then ends the turn."""
        return Sequence(self.prompt, [*self.rationale, self.answer[-1]], [])


def messages(example: Example, mode: Mode) -> list[dict[str, str]]:
    """Returns the chat that asks a model about `example`."""
    given = f"\n{ANSWER_MARK} {example.answer}" if mode == "explain" else ""
    return [
        {"role": "system", "content": INSTRUCTIONS[mode]},
        {"role": "user", "content": example.question + given},
    ]


def render_prompt(
    tokenizer: Tokenizer, example: Example, mode: Mode, max_tokens: int, on_long: str
) -> list[int]:
    """Returns the prompt's ids, at most `max_tokens`.

    Raises:
      UserError: it is longer, and `on_long` is not "truncate", which cuts the question's
        beginning (the question proper and its options stand at the end).
    """
    ids = tokenizer.render_chat(messages(example, mode))
    excess = len(ids) - max_tokens
    if excess <= 0:
        return ids
    if on_long != "truncate":
        raise UserError(
            f"example {example.id!r}: its prompt has {len(ids)} tokens, max_prompt_tokens is "
            f"{max_tokens}; raise it, or cut long questions with --config.on_long_prompt=truncate"
        )
    question = tokenizer.encode(example.question)
    # Decoding may merge differently at the cut, so cut until the rendered chat fits.
    while len(ids) > max_tokens and excess < len(question):
        shorter = dataclasses.replace(example, question=tokenizer.decode(question[excess:]))
        ids = tokenizer.render_chat(messages(shorter, mode))
        excess += max(1, len(ids) - max_tokens)
    if len(ids) > max_tokens:
        rest = tokenizer.render_chat(messages(dataclasses.replace(example, question=""), mode))
        raise UserError(
            f"example {example.id!r}: its prompt needs {len(rest)} tokens beside the question, "
            f"max_prompt_tokens is {max_tokens}; raise it"
        )
    return ids


def training_sequence(
    tokenizer: Tokenizer, prompt: list[int], rationale: str | None, answer: str
) -> Sequence:
    """Returns prompt, rationale and answer as one sequence; without rationale the answer alone."""
    reasoning, final = format_completion(rationale or "", answer)
    return Sequence(
        prompt, tokenizer.encode(reasoning), [*tokenizer.encode(final), tokenizer.end_id]
    )
