"""Plans batches of packed rows for scoring a whole pool: few shapes and little padding.

Sequences are packed into rows of a few widths, since attention over a row costs the square of its
width. Each width has one batch shape. The plan depends only on the sequence lengths, the batch size
and the mesh, so a scoring run that was interrupted plans the same batches again.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from bridge_jax.models.attention import LANES
from bridge_jax.parallel.sharding import batch_devices
from bridge_jax.text.packing import best_fit
from bridge_jax.text.prompts import TrainingSequence

Array = Any  # A NumPy array outside of jit, a JAX array inside.

# Candidate sets of row widths, in eighths of the widest. Each width needs one compiled program.
EIGHTHS = ((8, 6, 4, 3, 2, 1), (8, 4, 2))
BUCKET = 32  # Widths are rounded up to multiples of this; on a TPU, of an attention block.
ROUND = 8  # Target and sequence counts are rounded up to multiples of this.
SHORT = 512  # Several of the longest sequences may share a row of at most this many tokens.
# The row width at which attention costs as much per token as the rest of the model, measured with
# 30M parameters on a CPU. It is larger for a wider model, but only serves to compare widths.
EQUAL = 1200
STEP = 1 / 16  # The fixed cost of a batch, as a share of a full one. Our default.


class Shape(NamedTuple):
    """The shape of a batch, which has one part for each device that its rows are split over.

    Attributes:
      parts: P, the number of parts.
      rows: rows per part.
      width: S, tokens per row.
      targets: T, target slots per part.
      sequences: G, sequences per part at most.
    """

    parts: int
    rows: int
    width: int
    targets: int
    sequences: int

    @property
    def tokens(self) -> int:
        """The number of tokens, padding included."""
        return self.parts * self.rows * self.width


class ScoreBatch(NamedTuple):
    """A batch of R packed rows in P parts; each part numbers its sequences from 1, 0 is padding.

    Attributes:
      tokens, positions, segments: int32[R, S]; positions restart at 0.
      target_at: int32[P, T], the index of the predicting token among the part's R / P * S tokens.
      target: int32[P, T], the answer tokens.
      target_of: int32[P, T], the number of the sequence that each target belongs to.
      prompt_length: int32[P, 1 + G], tokens of each sequence's prompt; 0 for padding.
    """

    tokens: Array
    positions: Array
    segments: Array
    target_at: Array
    target: Array
    target_of: Array
    prompt_length: Array


class PlannedBatch(NamedTuple):
    """A batch before it is filled: the rows of each part, each a list of sequence indices."""

    shape: Shape
    parts: list[list[list[int]]]

    @property
    def members(self) -> list[list[int]]:
        """The sequence indices of each part, in the order in which `fill` numbers them."""
        return [[index for row in part for index in row] for part in self.parts]


def plan(
    lengths: Sequence[int], targets: Sequence[int], batch_tokens: int, mesh: Mesh
) -> list[PlannedBatch]:
    """Returns the batches that hold N sequences, the widest rows first.

    Rows have one width or several, whichever is estimated to be cheaper.

    Args:
      lengths: the length of each sequence, in tokens.
      targets: the number of targets of each sequence.
      batch_tokens: the maximum number of tokens in a batch, padding included; exceeded only by one
        row per device.
      mesh: the rows of a batch are split over it.
    """
    parts, longest = batch_devices(mesh), max(lengths)
    is_tpu = mesh.devices.flat[0].platform == "tpu"

    def rounded(width: float) -> int:
        block = max(LANES, 1 << int(width).bit_length() >> 3) if is_tpu else BUCKET
        return _up(math.ceil(width), block)

    def cost(found: list[PlannedBatch]) -> float:
        shapes = [batch.shape for batch in found]
        programs = len(set(shapes)) * batch_tokens
        return programs + sum(s.tokens * (1 + s.width / EQUAL) for s in shapes)

    share = min(SHORT, batch_tokens // parts) // longest
    choices = [[rounded(times * longest)] for times in range(1, max(1, share) + 1)]
    choices += [[rounded(longest * part / 8) for part in each] for each in EIGHTHS]

    def planned(widths: list[int]) -> list[PlannedBatch]:
        rows = _without_few(lengths, sorted(set(widths)), batch_tokens, parts)
        return [
            batch
            for width in sorted(rows, reverse=True)
            for batch in _batches(rows[width], width, targets, batch_tokens, parts)
        ]

    return min(map(planned, choices), key=cost)


def _batches(
    rows: list[list[int]], width: int, targets: Sequence[int], batch_tokens: int, parts: int
) -> Iterator[PlannedBatch]:
    """Yields batches of one shape that hold all `rows`, with about as many targets in each part."""
    most = _most(batch_tokens, width, parts)
    count = math.ceil(len(rows) / parts)  # rows per part, over all batches
    # The rows per part of a batch: few should stay empty, but every batch has a fixed cost too.
    size = min(range(1, most + 1), key=lambda r: (math.ceil(count / r) * (r + STEP * most), -r))
    weights = [sum(targets[i] for i in row) for row in rows]
    bins = _deal(weights, math.ceil(count / size) * parts, size)
    shape = Shape(
        parts,
        size,
        width,
        _up(max(sum(weights[r] for r in part) for part in bins), ROUND),
        _up(max(sum(len(rows[r]) for r in part) for part in bins), ROUND),
    )
    for first in range(0, len(bins), parts):
        yield PlannedBatch(shape, [[rows[r] for r in part] for part in bins[first : first + parts]])


def empty(shape: Shape, pad_id: int = 0) -> ScoreBatch:
    """Returns a batch of padding."""
    rows = np.zeros((shape.parts * shape.rows, shape.width), np.int32)
    small = np.zeros((shape.parts, shape.targets), np.int32)
    each = np.zeros((shape.parts, 1 + shape.sequences), np.int32)
    return ScoreBatch(
        rows + pad_id, rows.copy(), rows.copy(), small.copy(), small.copy(), small.copy(), each
    )


def fill(planned: PlannedBatch, sequences: Sequence[TrainingSequence], pad_id: int) -> ScoreBatch:
    """Returns the batch filled with its sequences; rationales are neither scored nor embedded."""
    batch, shape = empty(planned.shape, pad_id), planned.shape
    for p, part in enumerate(planned.parts):
        number = done = 0
        for r, row in enumerate(part):
            start = 0
            for index in row:
                s, number = sequences[index], number + 1
                before, answer = s.length - len(s.answer), len(s.answer)
                where = p * shape.rows + r, slice(start, start + s.length)
                batch.tokens[where] = s.prompt + s.rationale + s.answer
                batch.positions[where] = np.arange(s.length)
                batch.segments[where] = number
                slots = slice(done, done + answer)
                first = r * shape.width + start + before - 1
                batch.target_at[p, slots] = np.arange(first, first + answer)
                batch.target[p, slots] = s.answer
                batch.target_of[p, slots] = number
                batch.prompt_length[p, number] = len(s.prompt)
                start, done = start + s.length, done + answer
    return batch


def _without_few(
    lengths: Sequence[int], widths: list[int], batch_tokens: int, parts: int
) -> dict[int, list[list[int]]]:
    """Returns width -> rows; sequences of a width that does not fill a batch move to wider rows.

    Args:
      lengths: the length of each sequence.
      widths: the narrowest first; the last one is always kept.
      batch_tokens, parts: the tokens and parts of a batch.
    """
    while True:
        rows = best_fit(lengths, widths)
        few = [
            width
            for width in rows
            if width < widths[-1] and len(rows[width]) < _most(batch_tokens, width, parts) * parts
        ]
        if not few:
            return rows
        widths = [width for width in widths if width in rows and width != min(few)]


def _most(batch_tokens: int, width: int, parts: int) -> int:
    """Returns the maximum number of rows per part of a batch, at least 1."""
    return max(1, batch_tokens // width // parts)


def _deal(weights: Sequence[int], bins: int, size: int) -> list[list[int]]:
    """Returns the items of each bin, at most `size`, so that the sums of weights are about equal.

    The heaviest item left goes to the smallest sum among bins with room.
    """
    found: list[list[int]] = [[] for _ in range(bins)]
    heap = [(0, index) for index in range(bins)]
    for item in sorted(range(len(weights)), key=lambda i: -weights[i]):
        total, index = heapq.heappop(heap)
        found[index].append(item)
        if len(found[index]) < size:
            heapq.heappush(heap, (total + weights[item], index))
    return found


def _up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
