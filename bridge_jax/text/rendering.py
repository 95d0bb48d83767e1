"""Renders examples to token ids once, and caches them in memory and on disk.

What is on disk is found by what it was made from: the tokenizer, the examples' content, the limits,
our own code and the libraries'. Before it is used, a few examples are rendered and compared.
"""

from collections.abc import Callable
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np

from bridge_jax import caches
from bridge_jax.data.answers import format_completion
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.text import prompts
from bridge_jax.text.prompts import Mode, Sequence
from bridge_jax.text.ragged import Ragged
from bridge_jax.text.renderer import Renderer
from bridge_jax.text.tokenizer import Tokenizer

_COMPARED = 4  # Examples.

# An example, its rationale, and the answer if it is not the gold one.
Item = tuple[Example, str | None, str | None]


class Labelled(Seq[Sequence]):
    """Gold answers to train on: prompts of mode "answer", and what is written after them.

    Attributes:
      prompts: ids of the prompts.
      answers: ids of the answers and of the ends of the turns.
    """

    def __init__(self, prompts: Ragged, answers: Ragged):
        self.prompts, self.answers = prompts, answers

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return Sequence(self.prompts[index], [], self.answers[index])


class Rendering:
    """Examples as one model reads them.

    Attributes:
      renderer: makes what has not been kept.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        table_rows: int,
        checkpoint: str,
        max_prompt_tokens: int,
        on_long_prompt: str,
        folder: Path | None = None,
        key: str = "",
    ):
        """Takes the settings; nothing is rendered yet.

        Args:
          tokenizer: of the model.
          table_rows: of the model's embedding table.
          checkpoint: what messages call the model.
          max_prompt_tokens: the longest prompt, in tokens.
          on_long_prompt: "truncate", or longer ones are an error.
          folder: where ids are kept on disk; None keeps them in memory alone.
          key: says which tokenizer and chat template this is, by content; "" keeps nothing on disk.
        """
        limits = table_rows, checkpoint, max_prompt_tokens, on_long_prompt
        self.renderer = Renderer(tokenizer, *limits)
        self._folder, self._key = folder if key else None, key
        self._kept: dict[tuple[str, str], Ragged] = {}
        # digest -> examples that were rendered, and where each is among them, by `id`.
        self._places: dict[str, tuple[list[Example], dict[int, int]]] = {}

    def prompts(self, examples: Seq[Example], digest: str, mode: Mode) -> Ragged:
        """Returns the ids that ask the model about each example.

        Args:
          examples: what is asked.
          digest: says which examples these are, by content; "" keeps nothing.
          mode: whether to reason, to answer or to explain.

        Raises:
          UserError: of the first example that has one, as `prompt`.
        """
        found = self._once(
            (mode, digest),
            examples,
            lambda: self.renderer.prompts(examples, mode),
            lambda example: self.renderer.prompt(example, mode),
        )
        if digest and digest not in self._places:
            places = {id(example): place for place, example in enumerate(examples)}
            self._places[digest] = list(examples), places
        return found

    def answers(self, examples: Seq[Example], digest: str) -> Ragged:
        """Returns the ids of the gold answers and the ends of turns, where no rationale is written.

        Raises:
          UserError: a token has no row in the embedding table.
        """
        return self._once(
            ("gold", digest),
            examples,
            lambda: self.renderer.answers(examples),
            self.renderer.answer,
        )

    def labelled(self, examples: Seq[Example], digest: str) -> Labelled:
        """Returns what is trained where gold answers alone are; raises what the two above do."""
        return Labelled(self.prompts(examples, digest, "answer"), self.answers(examples, digest))

    def prompt(self, example: Example, mode: Mode) -> list[int]:
        """Returns the ids that ask the model about `example`.

        Raises:
          UserError: the prompt is too long, the chat template does not write what is put in, or a
            token has no row in the embedding table.
        """
        known = self._known(example, mode)
        return self.renderer.prompt(example, mode) if known is None else known

    def sequence(
        self,
        example: Example,
        rationale: str | None,
        answer: str | None = None,
        mode: Mode = "reason",
    ) -> Sequence:
        """Returns what is learned from `example`: rationale and answer, or the answer alone.

        The answer is the gold one, unless another is given; `mode` is how a rationale is asked for.

        Raises:
          UserError: as `prompt`.
        """
        prompt = self.prompt(example, mode if rationale else "answer")
        answer = example.answer if answer is None else answer
        made = prompts.training_sequence(self.renderer.tokenizer, prompt, rationale, answer)
        self.renderer.check_ids(f"example {example.id!r}", [*made.rationale, *made.answer])
        return made

    def sequences(self, items: Seq[Item], mode: Mode = "reason") -> list[Sequence]:
        """Returns what `sequence` returns for each (example, rationale, answer).

        Raises:
          UserError: of the first that has one, as `sequence`.
        """
        try:
            return self._sequences(items, mode)
        except UserError:  # It may be another's than the first.
            return [self.sequence(*item, mode) for item in items]

    def _sequences(self, items: Seq[Item], mode: Mode) -> list[Sequence]:
        modes: list[Mode] = [mode if rationale else "answer" for _, rationale, _ in items]
        asked = [self._known(item[0], each) for item, each in zip(items, modes)]
        for each in dict.fromkeys(modes):
            new = [n for n, ids in enumerate(asked) if ids is None and modes[n] == each]
            for n, ids in zip(new, self.renderer.prompts([items[n][0] for n in new], each)):
                asked[n] = ids
        written = [
            format_completion(rationale or "", example.answer if answer is None else answer)
            for example, rationale, answer in items
        ]
        rationales = self.renderer.encode([text for text, _ in written])
        answers = self.renderer.encode([text for _, text in written])
        made = []
        for (example, _, _), prompt, rationale, answer in zip(items, asked, rationales, answers):
            made.append(
                Sequence(prompt or [], rationale, [*answer, self.renderer.tokenizer.end_id])
            )
            self.renderer.check_ids(f"example {example.id!r}", [*rationale, *made[-1].answer])
        return made

    def _once(
        self,
        what: tuple[str, str],
        examples: Seq[Example],
        make: Callable[[], Ragged],
        make_one: Callable[[Example], list[int]],
    ) -> Ragged:
        """Returns what was kept, in memory or on disk, or else makes and keeps it.

        Args:
          what: is made, and the digest of the examples.
          examples: what it is made of.
          make: makes it.
          make_one: makes it of one example.
        """
        kind, digest = what
        if not digest:
            return make()
        if what in self._kept:
            return self._kept[what]
        name = self._name(what)
        found = Ragged.load(self._folder, name) if self._folder else None
        if found is None or not _agrees(found, examples, make_one):
            found = make()
            if self._folder:
                checkpoint = self.renderer.checkpoint
                found.save(self._folder, name, {"what": kind, "checkpoint": checkpoint})
        self._kept[what] = found
        return found

    def _name(self, what: tuple[str, str]) -> str:
        made, code = self.renderer, caches.code_of("text", "tasks")
        versions = caches.versions_of("jinja2", "tokenizers", "tensorflow-text")
        limits = made.table_rows, made.max_prompt_tokens, made.on_long_prompt
        return caches.name_of("ids", code, versions, self._key, *what, *limits)

    def _known(self, example: Example, mode: Mode) -> list[int] | None:
        """Returns the ids of a prompt that was rendered before, for the same object."""
        for digest, (_, places) in self._places.items():
            if id(example) in places and (mode, digest) in self._kept:
                return self._kept[mode, digest][places[id(example)]]
        return None


def _agrees(
    found: Ragged, examples: Seq[Example], make_one: Callable[[Example], list[int]]
) -> bool:
    """Returns whether some of the ids are what is made of their examples now."""
    if len(found) != len(examples):
        return False
    places = {int(n) for n in np.linspace(0, len(examples) - 1, _COMPARED)} if len(examples) else ()
    return all(found[n] == make_one(examples[n]) for n in places)
