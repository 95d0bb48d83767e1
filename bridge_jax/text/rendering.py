"""Stub until the batched one is merged."""

import numpy as np

from bridge_jax.errors import UserError
from bridge_jax.text import prompts
from bridge_jax.text.chat import UnwrittenError


class Ragged(list):
    @property
    def lengths(self):
        return np.array([len(x) for x in self], np.int64)


class Rendering:
    def __init__(
        self, *, tokenizer, table_rows, checkpoint, max_prompt_tokens, on_long_prompt, folder, key
    ):
        self.tokenizer, self.rows, self.checkpoint = tokenizer, table_rows, checkpoint
        self.max, self.on_long = max_prompt_tokens, on_long_prompt
        self._memo = {}

    def check_ids(self, what, ids):
        if (largest := max(ids, default=0)) >= self.rows:
            raise UserError(
                f"{what}: its token {self.tokenizer.name(largest)!r} has the "
                f"id {largest}, and the embedding table of {self.checkpoint} has {self.rows:,} "
                "rows; use the tokenizer that belongs to the checkpoint, or give the table a row "
                "for each token"
            )

    def prompt(self, example, mode):
        try:
            ids = prompts.render_prompt(self.tokenizer, example, mode, self.max, self.on_long)
        except UnwrittenError as error:
            raise UserError(f"example {example.id!r}: {error}") from error
        self.check_ids(f"example {example.id!r}", ids)
        return ids

    def sequence(self, example, rationale, answer=None, mode="reason"):
        prompt = self.prompt(example, mode if rationale else "answer")
        answer = example.answer if answer is None else answer
        sequence = prompts.training_sequence(self.tokenizer, prompt, rationale, answer)
        self.check_ids(f"example {example.id!r}", [*sequence.rationale, *sequence.answer])
        return sequence

    def prompts(self, examples, digest, mode):
        if (digest, mode) not in self._memo:
            self._memo[digest, mode] = Ragged(self.prompt(e, mode) for e in examples)
        return self._memo[digest, mode]

    def answers(self, examples, digest):
        for e in examples:
            self.check_ids(f"example {e.id!r}", self.tokenizer.encode(e.answer or ""))

    def labelled(self, examples, digest):
        return [self.sequence(e, None) for e in examples]
