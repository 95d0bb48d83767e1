"""Renders examples to token ids once, and keeps the ids in memory and on disk.

A batch of examples gets the same ids, and raises the same errors, as its examples one by one.
Tokenizing releases Python's lock, so one thread tokenizes while another fills in the chat template.
We do not use the threads of the tokenizers library, which do not survive a fork, because Grain
forks; ours end when the work is done.

Ids on disk are named by a hash of the tokenizer, the examples' content, the limits, our code and
the versions of libraries. Before they are used, a few examples are rendered again and compared.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bridge_jax import caches, progress
from bridge_jax.data.answers import ANSWER_MARK, format_completion
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.text import prompts
from bridge_jax.text.chat import UnwrittenError
from bridge_jax.text.prompts import Mode, TrainingSequence
from bridge_jax.text.tokenizer import Tokenizer

_BATCH = 1024
_LONG = 5_000  # Progress is shown for at least this many texts.
_COMPARED = 4  # Examples that are rendered again to check the ids on disk.
_FILES = ("tokens.npy", "offsets.npy")

# An example, its rationale, and the answer if it is not the gold one.
Item = tuple[Example, str | None, str | None]
Input = TypeVar("Input")


@dataclasses.dataclass(frozen=True, eq=False)
class Ragged(Sequence[list[int]]):
    """N lists of token ids as two arrays, which are saved to disk and memory-mapped from there.

    Attributes:
      tokens: int32[T], all lists, concatenated.
      offsets: int64[N+1], the start of each list, and T.
      cut: number of lists that are prompts whose question was cut.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    cut: int = 0

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> "Ragged":
        """Returns lists of ids as a `Ragged`."""
        offsets = np.zeros(len(lists) + 1, np.int64)
        np.cumsum([len(ids) for ids in lists], out=offsets[1:])
        flat = itertools.chain.from_iterable(lists)
        return cls(np.fromiter(flat, np.int32, int(offsets[-1])), offsets)

    @classmethod
    def join(cls, parts: Iterable["Ragged"]) -> "Ragged":
        """Returns the lists of all `parts`, in order."""
        parts = [cls.of([]), *parts]
        starts = np.cumsum([0, *(part.offsets[-1] for part in parts[:-1])])
        offsets = [part.offsets[1:] + start for part, start in zip(parts, starts)]
        tokens = np.concatenate([part.tokens for part in parts])
        return cls(tokens, np.concatenate([np.zeros(1, np.int64), *offsets]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> list[int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"list {index} of {len(self)}")
        start = index % len(self)
        return self.tokens[self.offsets[start] : self.offsets[start + 1]].tolist()

    @property
    def lengths(self) -> np.ndarray:
        """int64[N], the number of tokens in each list."""
        return np.diff(self.offsets)

    @property
    def largest(self) -> int:
        """The largest id; 0 if there are no ids."""
        return int(self.tokens.max(initial=0))

    def save(self, folder: Path, name: str, facts: dict[str, Any]) -> None:
        """Writes the arrays as entry `name` of a cache."""
        parts = {
            file: functools.partial(np.save, arr=array, allow_pickle=False)
            for file, array in zip(_FILES, (self.tokens, self.offsets))
        }
        facts = {**facts, "lists": len(self), "tokens": len(self.tokens), "cut": self.cut}
        caches.write(folder, name, parts, facts)

    @classmethod
    def load(cls, folder: Path, name: str) -> "Ragged | None":
        """Returns the arrays of cache entry `name`, memory-mapped; None unless it is complete."""
        facts = caches.read(folder, name, _FILES)
        if facts is None:
            return None
        files = [caches.path_of(folder, name, file) for file in _FILES]
        try:
            tokens, offsets = (np.load(file, mmap_mode="r", allow_pickle=False) for file in files)
            return cls(tokens, offsets, facts["cut"])
        except (OSError, ValueError):  # Another process has removed or replaced it since.
            return None


class Labelled(Sequence[TrainingSequence]):
    """Training sequences of gold answers alone: prompts of mode "answer", and their completions.

    Attributes:
      prompts: ids of the prompts.
      answers: ids of the answers and the end tokens.
    """

    def __init__(self, prompts: Ragged, answers: Ragged):
        self.prompts, self.answers = prompts, answers

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        answer = self.answers[index]
        if not answer:
            raise ValueError(f"example {index} has no gold answer to learn or to score")
        return TrainingSequence(self.prompts[index], [], answer)


class OwnAnswers(Sequence[TrainingSequence]):
    """Sequences with only the answers' own tokens as answers (`TrainingSequence.own_answer`)."""

    def __init__(self, sequences: Sequence[TrainingSequence], mark: list[int], ends: Sequence[int]):
        self._sequences, self._mark, self._ends = sequences, mark, ends

    def __len__(self) -> int:
        return len(self._sequences)

    def __getitem__(self, index: Any) -> Any:
        found = self._sequences[index]
        if isinstance(index, slice):
            return [sequence.own_answer(self._mark, self._ends) for sequence in found]
        return found.own_answer(self._mark, self._ends)


@dataclasses.dataclass(eq=False)
class Rendering:
    """Renders examples for one model, and keeps the ids.

    Attributes:
      table_rows: number of rows in the model's embedding table.
      checkpoint: the model's name in messages.
      max_prompt_tokens: the longest prompt, in tokens.
      on_long_prompt: as in `RunConfig`.
      folder: where ids are kept on disk; None keeps them only in memory.
      key: a hash of the tokenizer and its chat template; "" keeps nothing on disk.
    """

    tokenizer: Tokenizer
    _: dataclasses.KW_ONLY
    table_rows: int
    checkpoint: str
    max_prompt_tokens: int
    on_long_prompt: str
    folder: Path | None = None
    key: str = ""

    def __post_init__(self):
        self._kept: dict[tuple[str, str], Ragged] = {}
        # By digest: the examples that were rendered, and `id(example)` -> its index among them.
        self._places: dict[str, tuple[list[Example], dict[int, int]]] = {}

    def prompts(self, examples: Sequence[Example], digest: str, mode: Mode) -> Ragged:
        """Returns the ids of the prompt for each example.

        Args:
          examples: the questions.
          digest: identifies the examples by their content; "" keeps nothing.
          mode: whether to reason, to answer or to explain.

        Raises:
          UserError: the error of the first example that has one, as in `prompt`.
        """
        found = self._once(
            (mode, digest),
            examples,
            lambda: self._render_all(examples, mode),
            lambda example: self._render(example, mode),
        )
        if digest and digest not in self._places:
            places = {id(example): place for place, example in enumerate(examples)}
            self._places[digest] = list(examples), places
        return found

    def answers(self, examples: Sequence[Example], digest: str) -> Ragged:
        """Returns the ids of the gold answers without rationale, each with the end token.

        An example without a gold answer gets an empty list.

        Raises:
          UserError: a token has no row in the embedding table.
        """
        return self._once(
            ("gold", digest),
            examples,
            lambda: self._gold_answers(examples),
            self._gold_answer,
        )

    def labelled(self, examples: Sequence[Example], digest: str) -> Labelled:
        """Returns sequences of gold answers alone; raises like `prompts` and `answers`."""
        return Labelled(self.prompts(examples, digest, "answer"), self.answers(examples, digest))

    def own_answers(self, sequences: Sequence[TrainingSequence]) -> OwnAnswers:
        """Returns sequences of answers alone as they are scored: without mark and end token."""
        mark = self.tokenizer.encode(ANSWER_MARK)
        return OwnAnswers(sequences, mark, self.tokenizer.end_ids)

    def prompt(self, example: Example, mode: Mode) -> list[int]:
        """Returns the ids of the prompt for `example`.

        Raises:
          UserError: the prompt is too long, the chat template does not render a message unchanged,
            or a token has no row in the embedding table.
        """
        known = self._known(example, mode)
        return self._render(example, mode) if known is None else known

    def sequence(
        self,
        example: Example,
        rationale: str | None,
        answer: str | None = None,
        mode: Mode = "reason",
    ) -> TrainingSequence:
        """Returns the training sequence of `example`: rationale and answer, or the answer alone.

        The answer is the gold one unless another is given; `mode` is the prompt that asks for a
        rationale.

        Raises:
          UserError: as in `prompt`.
        """
        return self._sequences([(example, rationale, answer)], mode)[0]

    def sequences(self, items: Sequence[Item], mode: Mode = "reason") -> list[TrainingSequence]:
        """Returns the result of `sequence` for each (example, rationale, answer).

        Raises:
          UserError: the error of the first item that has one, as in `sequence`.
        """
        try:
            return self._sequences(items, mode)
        except UserError:  # One by one, so that the error names the first bad example.
            return [self.sequence(*item, mode) for item in items]

    def check_ids(self, what: str, ids: Sequence[int]) -> None:
        """Raises a `UserError` if a token of `what` has no row in the embedding table."""
        if (largest := max(ids, default=0)) >= self.table_rows:
            raise UserError(
                f"{what}: its token {self.tokenizer.name(largest)!r} has id "
                f"{largest}, but the embedding table of {self.checkpoint} has "
                f"{self.table_rows:,} rows; use the tokenizer that belongs to the checkpoint, or "
                "extend the table to one row for each token"
            )

    def _sequences(self, items: Sequence[Item], mode: Mode) -> list[TrainingSequence]:
        modes: list[Mode] = [mode if rationale else "answer" for _, rationale, _ in items]
        asked = [self._known(item[0], each) for item, each in zip(items, modes)]
        for each in dict.fromkeys(modes):
            new = [n for n, ids in enumerate(asked) if ids is None and modes[n] == each]
            for n, ids in zip(new, self._render_all([items[n][0] for n in new], each)):
                asked[n] = ids
        written = [
            format_completion(rationale or "", example.gold if answer is None else answer)
            for example, rationale, answer in items
        ]
        rationales = self._encode_all([text for text, _ in written])
        answers = self._encode_all([text for _, text in written])
        made = []
        for (example, _, _), prompt, rationale, answer in zip(items, asked, rationales, answers):
            made.append(TrainingSequence(prompt or [], rationale, [*answer, self.tokenizer.end_id]))
            self.check_ids(f"example {example.id!r}", [*rationale, *made[-1].answer])
        return made

    def _once(
        self,
        key: tuple[str, str],
        examples: Sequence[Example],
        make: Callable[[], Ragged],
        make_one: Callable[[Example], list[int]],
    ) -> Ragged:
        """Returns the ids from memory or from disk, or else makes and keeps them.

        Args:
          key: the kind of ids (a mode or "gold") and the digest of the examples.
          examples: the source of the ids.
          make: makes the ids of all examples.
          make_one: makes the ids of one example, for the comparison.
        """
        kind, digest = key
        if not digest:
            return make()
        if key in self._kept:
            return self._kept[key]
        code = caches.code_of("text", "data")
        versions = caches.versions_of("jinja2", "tokenizers", "tensorflow-text")
        limits = self.table_rows, self.max_prompt_tokens, self.on_long_prompt
        name = caches.name_of("ids", code, versions, self.key, kind, digest, *limits)
        folder = self.folder if self.key else None
        found = Ragged.load(folder, name) if folder else None
        if found is None or not _agrees(found, examples, make_one):
            found = make()
            if folder:
                found.save(folder, name, {"what": kind, "checkpoint": self.checkpoint})
        self._kept[key] = found
        return found

    def _known(self, example: Example, mode: Mode) -> list[int] | None:
        """Returns the ids of a prompt if this very object was rendered before, else None."""
        for digest, (_, places) in self._places.items():
            if id(example) in places and (mode, digest) in self._kept:
                return self._kept[mode, digest][places[id(example)]]
        return None

    def _render(self, example: Example, mode: Mode) -> list[int]:
        """Returns the ids of one prompt; raises like `prompt`."""
        try:
            ids = prompts.render_prompt(
                self.tokenizer, example, mode, self.max_prompt_tokens, self.on_long_prompt
            )
        except UnwrittenError as error:
            raise UserError(f"example {example.id!r}: {error}") from error
        self.check_ids(f"example {example.id!r}", ids)
        return ids

    def _render_all(self, examples: Sequence[Example], mode: Mode) -> Ragged:
        """Returns the result of `_render` for each example, or raises the first of its errors."""
        most, rows = self.max_prompt_tokens, self.table_rows

        def render(batch: Sequence[Example]) -> list[list[int]]:
            return self.tokenizer.render_all([prompts.messages(e, mode) for e in batch])

        cut = 0

        def checked(example: Example, ids: list[int] | None) -> list[int]:
            nonlocal cut
            if ids is None or len(ids) > most or max(ids, default=0) >= rows:
                cut += ids is not None and len(ids) > most
                return self._render(example, mode)
            return ids

        found = _in_batches(examples, render, checked, f"prompts to {mode}")
        return dataclasses.replace(found, cut=cut)

    def _gold_answer(self, example: Example) -> list[int]:
        """Returns the ids of one gold answer, like `answers`."""
        if example.answer is None:
            return []
        ids = self.tokenizer.encode(format_completion("", example.gold)[1])
        return [*ids, self.tokenizer.end_id]

    def _gold_answers(self, examples: Sequence[Example]) -> Ragged:
        """Returns the ids of gold answers, and raises, like `answers`."""
        known = [example for example in examples if example.answer is not None]
        texts = [format_completion("", example.gold)[1] for example in known]
        ids_of = {id(e): ids for e, ids in zip(known, self._encode_all(texts))}
        end = self.tokenizer.end_id
        found = [[*ids_of[id(e)], end] if id(e) in ids_of else [] for e in examples]
        for example, ids in zip(examples, found):
            self.check_ids(f"example {example.id!r}", ids)
        return Ragged.of(found)

    def _encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of texts; equal texts are tokenized once."""
        different = list(dict.fromkeys(texts))

        def checked(text: str, ids: list[int] | None) -> list[int]:
            return self.tokenizer.encode(text) if ids is None else ids

        found = _in_batches(different, self.tokenizer.encode_all, checked, "answers")
        ids = dict(zip(different, found))
        return [ids[text] for text in texts]


def _in_batches(
    items: Sequence[Input],
    work: Callable[[Sequence[Input]], list[list[int]]],
    finish: Callable[[Input, list[int] | None], list[int]],
    what: str,
) -> Ragged:
    """Returns the ids of each item, in order, or raises the first error in that order.

    Args:
      items: texts or examples.
      work: makes the ids of a batch; several batches are made in several threads.
      finish: called in this thread, in order, with an item and its ids, or with None if `work`
        raised a `UserError` for its batch; returns the ids to keep.
      what: the items' name in the progress bar.
    """

    def tried(batch: Sequence[Input]) -> list[list[int]] | list[None]:
        try:
            return work(batch)
        except UserError:
            return [None] * len(batch)

    batches = [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
    bar = contextlib.nullcontext(lambda count: None)
    if len(items) >= _LONG:
        bar = progress.track(what, len(items), "texts")
    kept = []
    with contextlib.ExitStack() as stack:
        found = map(tried, batches)
        if len(batches) > 1:  # Starting a thread takes longer than tokenizing a short text.
            pool = ThreadPoolExecutor(min(len(batches), os.cpu_count() or 1, 16))
            stack.callback(pool.shutdown, cancel_futures=True)
            found = pool.map(tried, batches)
        advance = stack.enter_context(bar)
        for batch, made in zip(batches, found):
            kept.append(Ragged.of([finish(item, ids) for item, ids in zip(batch, made)]))
            advance(len(batch))
    return Ragged.join(kept)


def _agrees(
    found: Ragged, examples: Sequence[Example], make_one: Callable[[Example], list[int]]
) -> bool:
    """Returns whether every example has ids, and a few of them equal newly made ones."""
    places = range(0, len(found), max(1, len(found) // _COMPARED))[:_COMPARED]
    return len(found) == len(examples) and all(found[n] == make_one(examples[n]) for n in places)
