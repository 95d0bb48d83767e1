"""Plans batches of packed rows for reading a whole pool: few shapes, and little padding.

Sequences are packed into rows of a few widths, as attention costs a row the square of its width,
and each width has one shape of a batch. The plan follows from the lengths alone, so a scoring that
was interrupted finds the same batches again.
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

# The widths of rows in eighths of the widest: several, or fewer. A width has one program.
EIGHTHS = ((8, 6, 4, 3, 2, 1), (8, 4, 2))
BUCKET = 32  # Widths are rounded up to multiples of this, on a TPU to blocks of its kernel.
ROUND = 8  # Numbers of targets and of sequences are rounded up to multiples of this.
SHORT = 512  # Where several of the longest sequences fit into so many tokens, they may share rows.
# In a row of so many tokens, attention costs a token as much as the rest of the model: measured
# with 30M parameters on a CPU. It is more in a wider model, but serves only to compare widths.
EQUAL = 1200
STEP = 1 / 16  # The fixed cost of a batch, as a share of a full one. Our default.


class Shape(NamedTuple):
    """The shape of a batch, which consists of one part for each device that rows are split over.

    Attributes:
      parts: P.
      rows: of each part.
      width: S, of a row.
      targets: T, of each part.
      sequences: G, of each part, at most.
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
    """A batch of R packed rows in P parts; the sequences of a part count from 1, padding is 0.

    Attributes:
      tokens, positions, segments: int32[R, S]; positions restart at 0.
      target_at: int32[P, T], the place among the R / P * S tokens of the part that predicts.
      target: int32[P, T], the answer tokens.
      target_of: int32[P, T], the sequences that they belong to.
      prompt_length: int32[P, 1 + G], of each sequence; that of padding is 0.
    """

    tokens: Array
    positions: Array
    segments: Array
    target_at: Array
    target: Array
    target_of: Array
    prompt_length: Array


class PlannedBatch(NamedTuple):
    """A batch before it is filled: for each part its rows, as lists of sequences' indices."""

    shape: Shape
    parts: list[list[list[int]]]

    @property
    def members(self) -> list[list[int]]:
        """The sequences of each part, in the order in which they count."""
        return [[index for row in part for index in row] for part in self.parts]


def plan(
    lengths: Sequence[int], targets: Sequence[int], batch_tokens: int, mesh: Mesh
) -> list[PlannedBatch]:
    """Returns the batches that read N sequences, the widest rows first.

    Rows are of one width or of several, whichever is cheaper.

    Args:
      lengths: of the sequences, in tokens.
      targets: the number of targets of each.
      batch_tokens: the most tokens in a batch, padding included; it has a row of each device.
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
    """Yields batches of one shape with all `rows`: about as many targets in each part."""
    most = _most(batch_tokens, width, parts)
    count = math.ceil(len(rows) / parts)  # of each part, in all batches
    # As many rows a batch as leave few rows empty; every batch has a fixed cost too.
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
    """Returns the batch with its sequences; a rationale is neither scored nor embedded."""
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
    """Returns width -> rows, without widths whose rows fill no batch: the next wider ones do.

    Args:
      lengths: of the sequences.
      widths: the narrowest first; the last one stays.
      batch_tokens, parts: of a batch.
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
    """Returns the most rows of each part."""
    return max(1, batch_tokens // width // parts)


def _deal(weights: Sequence[int], bins: int, size: int) -> list[list[int]]:
    """Returns the items of each bin, at most `size`, with sums of weights about as large.

    The heaviest item that is left goes to the bin with the smallest sum.
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
