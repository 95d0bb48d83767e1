"""Inspection of data before a run: bad rows, prompt lengths, and what each model sees.

It reads only tokenizers, no weights, and sends nothing to a teacher.
"""

import collections
import dataclasses
import heapq
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.text import Text

from bridge_jax import display, methods
from bridge_jax.config import API_TEACHERS, RunConfig
from bridge_jax.data import dividing
from bridge_jax.data.example import Example, Splits
from bridge_jax.data.rows import BadRow, BadRows
from bridge_jax.methods import checks, teacher
from bridge_jax.methods.inputs import Inputs
from bridge_jax.pipeline.artifacts import Role
from bridge_jax.pipeline.content import Hashes
from bridge_jax.pipeline.files import write_rows
from bridge_jax.planning import proposal
from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import Mode, TrainingSequence
from bridge_jax.text.rendering import Rendering
from bridge_jax.text.tokenizer import Tokenizer

SHOWN = 20  # Most bad rows, and most labels, to print.
PARTS = ("pool", "dev", "test")

_BARS, _BAR = 10, 40  # Histogram: the most bins, and the columns of the longest bar.
_NO_LIMIT = 10**9
# If there are more examples than _MEASURED, a random sample of that size is measured, plus the
# _EXTREMES with the longest questions. Our defaults.
_MEASURED, _EXTREMES = 20_000, 1_000
_REASONING = "(The reasoning of the assistant will go here.)"
_BEGIN, _END = "⟦", "⟧"  # Mark the trained text, so that it stands out without color.


@dataclasses.dataclass(frozen=True)
class Inspection:
    """The facts about a user's data that `launch.data` prints.

    Attributes:
      splits: the examples, and the rows that are left out.
      lengths: for each role, int[N], the token count of the longest prompt of each measured
        example: all examples, or a random sample if there are many.
      most: for each role, the token count of its longest prompt; if `lengths` is of a sample, the
        examples with the longest questions are measured too.
      max_prompt_tokens, row_tokens: the values proposed for these lengths.
    """

    config: RunConfig
    splits: Splits
    inputs: Inputs
    lengths: dict[Role, np.ndarray]
    most: dict[Role, int]
    max_prompt_tokens: int
    row_tokens: int

    @property
    def longest(self) -> np.ndarray:
        """int[N], the token count of each example's longest prompt over all roles."""
        return np.max(list(self.lengths.values()), axis=0)

    def to_json(self) -> dict[str, Any]:
        """Returns the figures as JSON values."""
        config, splits = self.config, self.splits
        return {
            "rows": {"total": splits.bad.total, "bad": len(splits.bad.rows)},
            "bad_rows": [row._asdict() for row in splits.bad.rows],
            "splits": {part: len(getattr(splits, part)) for part in PARTS},
            "near_duplicate_groups": splits.groups if splits.divided else None,
            "labels": {part: dict(counts) for part, counts in label_counts(splits).items()},
            "prompt_tokens": {
                role: {f"p{q}": int(np.percentile(found, q)) for q in (50, 90, 99)}
                | {"p100": self.most[role]}
                for role, found in self.lengths.items()
            },
            "prompts_measured": len(self.longest),
            "proposed": {
                "max_prompt_tokens": self.max_prompt_tokens,
                "row_tokens": self.row_tokens,
            },
            "config": {
                "max_prompt_tokens": config.max_prompt_tokens,
                "row_tokens": config.student_training.row_tokens,
            },
        }


def inspect(config: RunConfig) -> Inspection:
    """Reads the data and measures its prompts; bad rows are left out.

    Raises:
      UserError: the data or a tokenizer cannot be read; a `BadRowsError` if too many rows are bad.
    """
    data = dataclasses.replace(config.data, on_bad_row="skip")
    config = dataclasses.replace(config, data=data)
    inputs = Inputs(config, Path(), None, Hashes())
    splits = inputs.splits
    examples = [example for part in PARTS for example in getattr(splits, part)]
    sample = dividing.sample(examples, _MEASURED, config.seed)
    extremes: list[Example] = []
    if len(sample) < len(examples):
        extremes = heapq.nlargest(_EXTREMES, examples, key=lambda e: len(e.question))
    lengths, most = {}, {}
    for role in checks.roles(methods.stages(config)):
        lengths[role] = _lengths(config, inputs, role, sample)
        longest = lengths[role]
        if extremes:
            longest = np.append(longest, _lengths(config, inputs, role, extremes))
        most[role] = int(longest.max())
    limit = proposal.prompt_tokens(np.max(list(lengths.values()), axis=0))
    row_tokens = proposal.row_tokens(config, limit)
    return Inspection(config, splits, inputs, lengths, most, limit, row_tokens)


def _lengths(
    config: RunConfig, inputs: Inputs, role: Role, examples: Sequence[Example]
) -> np.ndarray:
    """Returns int[N], the token count of each example's longest prompt for a role."""
    reading = _reading(inputs.rendering(role), _NO_LIMIT, "error")
    found = [reading.prompts(examples, "", mode).lengths for mode in _modes(config, role)]
    return np.max(found, axis=0)


def label_counts(splits: Splits) -> dict[str, collections.Counter[str]]:
    """Returns the number of examples of each label in each split; {} if answers are not labels."""
    if not any(example.kind == "label" for example in splits.pool):
        return {}
    return {
        part: collections.Counter(e.answer for e in getattr(splits, part) if e.answer)
        for part in PARTS
    }


def show_bad_rows(console: Console, bad: BadRows, path: str) -> None:
    """Prints the bad rows.

    If there are more than `SHOWN`, all of them also go to a file in the current folder, whose name
    is printed.
    """
    if not bad.rows:
        if bad.total:  # Practice tasks do not come from rows.
            say(console, f"All of {bad.total:,} rows can be used.")
        return
    say(console, (f"{len(bad.rows):,} of {bad.total:,} rows are bad:", "bold"))
    for row in bad.rows[:SHOWN]:
        say(console, f"  {_place(row, path)}: {row.reason}")
    if len(bad.rows) > SHOWN:
        file = f"{proposal.safe_name(Path(path).name)}.bad_rows.jsonl"
        write_rows(Path(file), [row._asdict() for row in bad.rows])
        say(console, f"  and {len(bad.rows) - SHOWN:,} more; the whole list is in {file}")
    say(console, f"By reason: {bad.counts()}")


def show(console: Console, seen: Inspection, rows: int) -> None:
    """Prints everything but the bad rows.

    Args:
      console: where to print.
      seen: the data.
      rows: how many examples to show as teacher, assistant and student see them.
    """
    _show_splits(console, seen.splits)
    _show_lengths(console, seen)
    for example in seen.splits.pool[:rows]:
        _show_request(console, seen, example)
        for role in seen.lengths:
            _show_prompt(console, seen, role, example)
    _show_row(console, seen)


def spelled(tokenizer: Tokenizer, ids: list[int]) -> str:
    """Returns the text of tokens, with special tokens spelled by name."""
    parts, pending = [], []
    for token in ids:
        if tokenizer.decode([token]):
            pending.append(token)
            continue
        parts += [tokenizer.decode(pending), tokenizer.name(token)]
        pending = []
    return "".join([*parts, tokenizer.decode(pending)])


class Piece(NamedTuple):
    """A part of a training row: its text, and whether it is a prompt, a rationale or an answer."""

    text: str
    of: str


def training_row(seen: Inspection) -> tuple[list[Piece], int]:
    """Returns a student training row of the first pool examples, and its number of padding tokens.

    A placeholder stands for a rationale that is not recorded, and for a missing answer.
    """
    reading, config = _as_run(seen, "student"), seen.config
    size, variant = config.student_training.row_tokens, config.data.rationale
    sequences: list[TrainingSequence] = []
    for example in seen.splits.pool:
        rationale = example.rationales.get(variant, _REASONING)
        sequence = reading.sequence(example, rationale, example.answer or "(an answer)")
        if sequences and sum(s.length for s in sequences) + sequence.length > size:
            break
        sequences.append(sequence)
    size = max(size, sequences[0].length)
    tokenizer = reading.tokenizer
    packed = pack(sequences, size, tokenizer.pad_id)
    tokens, used = packed.tokens[0], int((packed.segments[0] > 0).sum())
    kinds = np.full(len(tokens), "prompt", dtype=object)
    for weight, name in ((packed.rationale_weight, "rationale"), (packed.answer_weight, "answer")):
        # A target is the token after the position that predicts it.
        kinds[packed.target_at[0][weight[0] > 0] + 1] = name
    edges = [0, *(i for i in range(1, used) if kinds[i] != kinds[i - 1]), used]
    pieces = [
        Piece(spelled(tokenizer, tokens[start:end].tolist()), str(kinds[start]))
        for start, end in itertools.pairwise(edges)
    ]
    return pieces, len(tokens) - used


def _modes(config: RunConfig, role: Role) -> tuple[Mode, ...]:
    explains = role == "assistant" and config.data.labelled and config.rationales.show_gold
    return ("reason", "explain") if explains else ("reason",)


def _reading(reading: Rendering, most: int, on_long_prompt: str) -> Rendering:
    """Returns a copy of a rendering with another prompt limit, which caches nothing on disk."""
    return dataclasses.replace(
        reading, max_prompt_tokens=most, on_long_prompt=on_long_prompt, folder=None, key=""
    )


def _as_run(seen: Inspection, role: Role) -> Rendering:
    """Returns the run's rendering for a role; if long prompts are errors, one without a limit."""
    reading, config = seen.inputs.rendering(role), seen.config
    if config.on_long_prompt == "error":
        return _reading(reading, _NO_LIMIT, "error")
    return _reading(reading, config.max_prompt_tokens, config.on_long_prompt)


def _show_splits(console: Console, splits: Splits) -> None:
    _head(console, "Splits")
    for part in PARTS:
        there = splits.cut.get(part)
        of = f" of {there:,}, a random sample" if there else ""
        say(console, f"  {part:<5}{len(getattr(splits, part)):>9,}{of}")
    if splits.divided:
        say(
            console,
            f"No row has a split, so the rows were divided by the seed of the run. "
            f"{splits.groups:,} groups of near-duplicate questions stay together, each in one "
            "split.",
        )
    if splits.replaced:
        say(console, f"{splits.replaced:,} rows had invalid characters, replaced by U+FFFD.")
    counts = label_counts(splits)
    if not counts:
        return
    _head(console, "Labels")
    table = display.table("label", *PARTS)
    in_pool = counts["pool"].most_common()
    for label, count in in_pool[:SHOWN]:
        others = [f"{counts[part][label]:,}" for part in PARTS[1:]]
        table.add_row(display.cell(label), f"{count:,}", *others)
    console.print(table)
    if len(in_pool) > SHOWN:
        say(console, f"and {len(in_pool) - SHOWN:,} more")


def _show_lengths(console: Console, seen: Inspection) -> None:
    longest, config = seen.longest, seen.config
    _head(console, "Tokens of the prompts")
    top = seen.max_prompt_tokens
    most = max(seen.most.values())
    end = min(top, int(longest.max())) + 1
    edges = np.unique(np.linspace(int(longest.min()), end, _BARS + 1).astype(int))
    bars = [
        (f"{a}-{b - 1}" if b > a + 1 else str(a), int(((longest >= a) & (longest < b)).sum()))
        for a, b in itertools.pairwise(edges.tolist())
    ]
    over = int((longest > top).sum())
    if over:
        bars.append((f"over {top}", over))
    largest = max(count for _, count in bars)
    for name, count in bars:
        bar = "█" * (-(-_BAR * count // largest))
        say(console, f"  {name:>12} {count:>8,} {bar}")
    for role, found in seen.lengths.items():
        median = int(np.median(found))
        say(console, f"  {role}: median {median}, maximum {seen.most[role]:,}")
    total = sum(len(getattr(seen.splits, part)) for part in PARTS)
    if len(longest) < total:
        say(
            console,
            f"Measured on {len(longest):,} of {total:,} examples, a random sample; the maximum "
            f"also covers the {_EXTREMES:,} with the longest questions.",
        )
    beside = ", which all prompts fit"
    if over:
        beside = f", which {over:,} prompts exceed"
    elif most > top:
        beside = ", which the longest exceed"
    say(
        console,
        f"Proposed: max_prompt_tokens={top}{beside}; row_tokens={seen.row_tokens} for a prompt and "
        f"generation.max_new_tokens={config.generation.max_new_tokens}. The config has "
        f"max_prompt_tokens={config.max_prompt_tokens} and "
        f"student_training.row_tokens={config.student_training.row_tokens}, "
        f"on_long_prompt={config.on_long_prompt}.",
    )


def _show_request(console: Console, seen: Inspection, example: Example) -> None:
    asked = methods.annotation_stages(methods.stages(seen.config))
    if not asked:
        return
    request, settings = teacher.make_request(asked[-1].params, example), seen.config.teacher
    _head(console, f"What the teacher is asked about {display.line(example.id)}")
    form = ", as JSON" if request.structured else ""
    at = f" at {request.server}" if request.server else ""
    name = request.model or "the model that teacher.model names"
    if settings.kind in API_TEACHERS:
        said = f"To {name}{at}; a reply has at most {request.max_output_tokens} tokens{form}."
    else:
        said = f"Nothing is sent: {name} is a recording or a program. On the ledger the request is:"
    say(console, said)
    for message in request.messages:
        say(console, (f"[{message.role}]", "bold"))
        say(console, message.content)


def _show_prompt(console: Console, seen: Inspection, role: Role, example: Example) -> None:
    reading, mode = _as_run(seen, role), _modes(seen.config, role)[-1]
    ids = reading.prompt(example, mode)
    _head(console, f"What the {role} is asked: {len(ids)} tokens")
    say(console, spelled(reading.tokenizer, ids))


def _show_row(console: Console, seen: Inspection) -> None:
    pieces, padding = training_row(seen)
    _head(console, "A row of the student's training")
    say(
        console,
        f"Only the text between {_BEGIN} and {_END} is trained on: ",
        ("rationale", "green"),
        " and ",
        ("answer", "bold cyan"),
        ".",
    )
    styles = {"prompt": "dim", "rationale": "green", "answer": "bold cyan"}
    parts: list[display.Part] = []
    for before, piece in zip(["prompt", *(p.of for p in pieces)], pieces):
        if before == "prompt" and piece.of != "prompt":
            parts.append(_BEGIN)
        if before != "prompt" and piece.of == "prompt":
            parts.append(f"{_END}\n")
        parts.append((piece.text, styles[piece.of]))
    if pieces[-1].of != "prompt":
        parts.append(_END)
    say(console, *parts)
    say(console, f"and {padding:,} tokens of padding")


def _place(row: BadRow, path: str) -> str:
    return row.row if row.file == path else f"{row.file}, {row.row}"


def _head(console: Console, text: str) -> None:
    console.print()
    say(console, (text, "bold underline"))


def say(console: Console, *parts: display.Part) -> None:
    """Prints parts as a paragraph, wrapped between words."""
    made: Text = display.text(*parts)
    console.print(made, highlight=False)
