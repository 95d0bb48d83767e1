"""Packs sequences into rows: of one static shape for training, of a few widths for scoring."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bridge_jax.errors import UserError
from bridge_jax.text.prompts import TrainingSequence


class Rows(NamedTuple):
    """Packed rows. Segments count from 1 within a row; 0 is padding. Positions restart at 0.

    The loss needs the vocabulary head at only a few positions, so the targets are listed, T per
    row.

    Attributes:
      tokens, positions, segments: int32[R, S].
      target_at: int32[R, T], the position that predicts the target.
      target: int32[R, T], the token to predict.
      rationale_weight, answer_weight: f32[R, T], 1 if the target belongs to that part, else 0.
      extra_targets: what the objective reads at the targets, a tree of arrays [R, T, ...] that are
        0 for sequences without it; None if no sequence has any.
    """

    tokens: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    target_at: np.ndarray
    target: np.ndarray
    rationale_weight: np.ndarray
    answer_weight: np.ndarray
    extra_targets: Any = None


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Returns the sequences of each row: each sequence goes to the first row with room for it.

    Takes n log n steps: a binary tree holds the maxima of the rows' free room, and is descended to
    the first row that has enough. It has a leaf for each possible row, all empty at first.
    """
    leaves = 1 << max(0, len(lengths) - 1).bit_length()
    room = [capacity] * (2 * leaves)  # node i has the children 2i and 2i + 1
    rows: list[list[int]] = []
    for index, length in enumerate(lengths):
        node = 1
        while node < leaves:
            node *= 2
            node += room[node] < length
        room[node] -= length
        row = node - leaves
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return rows


def best_fit(lengths: Sequence[int], widths: Sequence[int]) -> dict[int, list[list[int]]]:
    """Returns width -> the sequences of each row of that width; widths without rows are left out.

    The longest remaining sequence goes to the row with the smallest sufficient room or, if there is
    none, to a new row of the narrowest width that holds it. So short sequences fill up the rows of
    long ones, and otherwise share short rows. At least one of `widths` must hold the longest
    sequence.
    """
    rows: dict[int, list[list[int]]] = {}
    by_room: dict[int, list[list[int]]] = {}
    there = 0  # Bit i is set if a row has room for exactly i tokens.
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if enough := there >> lengths[index]:
            room = lengths[index] + (enough & -enough).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                there ^= 1 << room
        else:
            room, row = min(width for width in widths if width >= lengths[index]), []
            rows.setdefault(room, []).append(row)
        row.append(index)
        if left := room - lengths[index]:
            by_room.setdefault(left, []).append(row)
            there |= 1 << left
    return rows


def pack(
    sequences: Sequence[TrainingSequence], row_tokens: int, pad_id: int, packed: bool = True
) -> Rows:
    """Packs `sequences`, in order, into rows of `row_tokens`.

    Args:
      sequences: the training sequences.
      row_tokens: S.
      pad_id: the token that fills the rest of a row.
      packed: False gives each sequence a row of its own.

    Raises:
      UserError: a sequence is longer than a row, or there are no sequences.
    """
    if not sequences:
        raise UserError("there is nothing to train on: no sequence was kept")
    lengths = [s.length for s in sequences]
    if max(lengths) > row_tokens:
        raise UserError(
            f"a training sequence has {max(lengths)} tokens, but a row holds {row_tokens}: raise "
            "row_tokens, or lower max_prompt_tokens or generation.max_new_tokens"
        )
    plan = first_fit(lengths, row_tokens) if packed else [[i] for i in range(len(lengths))]
    targets = [s.targets for s in sequences]
    # Rounded up to a multiple of 32, so that stages with similar data share a compilation.
    width = max(sum(targets[i] for i in row) for row in plan)
    width = min(-(-width // 32) * 32, row_tokens)

    shape, small = (len(plan), row_tokens), (len(plan), width)
    rows = Rows(
        np.full(shape, pad_id, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.int32),
        np.zeros(small, np.int32), np.zeros(small, np.int32),
        np.zeros(small, np.float32), np.zeros(small, np.float32),
    )  # fmt: skip
    given = next((s.extra_targets for s in sequences if s.extra_targets is not None), None)
    extra_targets = jax.tree.map(lambda a: np.zeros((*small, *a.shape[1:]), a.dtype), given)
    for r, members in enumerate(plan):
        start = filled = 0
        for segment, index in enumerate(members, start=1):
            s = sequences[index]
            part = slice(start, start + s.length)
            rows.tokens[r, part] = s.prompt + s.rationale + s.answer
            rows.positions[r, part] = np.arange(s.length)
            rows.segments[r, part] = segment
            first = start + len(s.prompt)
            slots = slice(filled, filled + targets[index])
            rows.target_at[r, slots] = np.arange(first - 1, first - 1 + targets[index])
            rows.target[r, slots] = s.rationale + s.answer
            rows.rationale_weight[r, filled : filled + len(s.rationale)] = 1
            rows.answer_weight[r, filled + len(s.rationale) : filled + targets[index]] = 1
            for to, of_one in zip(jax.tree.leaves(extra_targets), jax.tree.leaves(s.extra_targets)):
                to[r, slots] = of_one
            start, filled = start + s.length, filled + targets[index]
    return rows._replace(extra_targets=extra_targets)
