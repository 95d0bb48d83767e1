"""Renders examples to token ids; caches nothing.

Many examples at once get the ids, and raise the errors, that they get one by one.
"""

import dataclasses
from collections.abc import Sequence as Seq

from bridge_jax.data.answers import format_completion
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.text import prompts
from bridge_jax.text.chat import UnwrittenError
from bridge_jax.text.ragged import Ragged
from bridge_jax.text.threads import in_batches
from bridge_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Renderer:
    """A model's tokenizer and limits.

    Attributes:
      tokenizer: of the model.
      table_rows: of its embedding table.
      checkpoint: what messages call the model.
      max_prompt_tokens: the longest prompt, in tokens.
      on_long_prompt: "truncate", or longer ones are an error.
    """

    tokenizer: Tokenizer
    table_rows: int
    checkpoint: str
    max_prompt_tokens: int
    on_long_prompt: str

    def prompt(self, example: Example, mode: prompts.Mode) -> list[int]:
        """Returns the ids that ask the model about `example`.

        Raises:
          UserError: the prompt is too long, the chat template does not write what is put in, or a
            token has no row in the embedding table.
        """
        limits = self.max_prompt_tokens, self.on_long_prompt
        try:
            ids = prompts.render_prompt(self.tokenizer, example, mode, *limits)
        except UnwrittenError as error:
            raise UserError(f"example {example.id!r}: {error}") from error
        self.check_ids(f"example {example.id!r}", ids)
        return ids

    def prompts(self, examples: Seq[Example], mode: prompts.Mode) -> Ragged:
        """Returns what `prompt` returns for each, and raises the first of its errors."""

        def render(batch: Seq[Example]) -> list[list[int]]:
            return self.tokenizer.render_all([prompts.messages(e, mode) for e in batch])

        def finish(batch: Seq[Example], found: list[list[int]] | None) -> Ragged:
            if found is None:
                return Ragged.of([self.prompt(example, mode) for example in batch])
            return Ragged.of(
                [
                    ids if self._fits(ids) else self.prompt(example, mode)
                    for example, ids in zip(batch, found)
                ]
            )

        return Ragged.join(in_batches(examples, render, finish, f"prompts to {mode}"))

    def answer(self, example: Example) -> list[int]:
        """Returns the ids of the gold answer alone and of the end of the turn.

        Raises:
          UserError: a token has no row in the embedding table.
        """
        ids = prompts.training_sequence(self.tokenizer, [], None, example.answer).answer
        self.check_ids(f"example {example.id!r}", ids)
        return ids

    def answers(self, examples: Seq[Example]) -> Ragged:
        """Returns what `answer` returns for each, and raises the first of its errors."""
        pairs = [format_completion("", example.answer) for example in examples]
        found = [[*ids, self.tokenizer.end_id] for ids in self.encode([text for _, text in pairs])]
        made = Ragged.of(found)
        if made.largest >= self.table_rows:
            for example, ids in zip(examples, found):
                self.check_ids(f"example {example.id!r}", ids)
        return made

    def encode(self, texts: Seq[str]) -> list[list[int]]:
        """Returns the ids of texts; equal ones are read once."""
        different = list(dict.fromkeys(texts))

        def finish(batch: Seq[str], found: list[list[int]] | None) -> list[list[int]]:
            return [self.tokenizer.encode(text) for text in batch] if found is None else found

        batches = in_batches(different, self.tokenizer.encode_all, finish, "answers")
        ids = dict(zip(different, (ids for batch in batches for ids in batch)))
        return [ids[text] for text in texts]

    def check_ids(self, what: str, ids: Seq[int]) -> None:
        """Raises a `UserError` if a token of `what` has no row in the embedding table."""
        if (largest := max(ids, default=0)) >= self.table_rows:
            raise UserError(
                f"{what}: its token {self.tokenizer.name(largest)!r} has the "
                f"id {largest}, and the embedding table of {self.checkpoint} has "
                f"{self.table_rows:,} rows; use the tokenizer that belongs to the checkpoint, or "
                "give the table a row for each token"
            )

    def _fits(self, ids: Seq[int]) -> bool:
        return len(ids) <= self.max_prompt_tokens and max(ids, default=0) < self.table_rows
