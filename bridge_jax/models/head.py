"""The output head, streamed over chunks of the vocabulary: log-probabilities, entropy and top k.

For logits z the streaming sums m = max z, s = sum exp(z - m) and w = sum exp(z - m) (z - m) give
lse = m + log s, log-probabilities z - lse and the entropy log s - w / s, in nats. The gradient of
the logits of a row, for the cotangents g of log p at some ids and h of the entropy H, is

    dz = onehot(ids) g - p (sum g + h (log p + H)),    p = exp(z - lse),

and needs neither the running sums nor the order of the chunks, so the backward pass streams as
well. It reads the logits of the forward pass if they were kept, and otherwise recomputes them chunk
by chunk.

On a mesh every chip streams its own rows of the table. The results are combined over the vocabulary
axis, which takes a few numbers per prediction. If the width D is split, each chunk is gathered.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.sharding import PartitionSpec

from bridge_jax.models.projection import matmul
from bridge_jax.parallel.sharding import RULES, on_each_device

# Most logits of a chunk on a chip (f32, 64 MiB), except that a chunk never has fewer than
# `CHUNK_COLUMNS` columns, however many rows there are.
CHUNK_LOGITS = 1 << 24
CHUNK_COLUMNS = 1024
# Up to this k, the k largest are found by repeated argmax: `top_k` sorts whole rows on a GPU.
FEW = 2
# Logits per block of the top-k search, which first takes the maximum of each block.
TOP_K_BLOCK_LOGITS = 128
# Up to this many logits per chip (f32, 512 MiB) are kept for the backward pass. Our default.
KEPT_LOGITS = 1 << 27


class Head(NamedTuple):
    """The output head, which turns hidden states into logits.

    Attributes:
      table: f[V, D].
      softcap: c in c * tanh(logits / c); None applies no cap.
      dtype: dtype in which table and hidden states are multiplied; None is that of the latter.
    """

    table: jax.Array
    softcap: float | None = None
    dtype: Any = None

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Returns all logits f32[..., V] of f[..., D]; for few positions or a small table."""
        found = matmul("...D,VD->...V", hidden, self.table, self.dtype or hidden.dtype)
        return found if self.softcap is None else self.softcap * jnp.tanh(found / self.softcap)


class TokenStatistics(NamedTuple):
    """Statistics of each prediction.

    Attributes:
      nll, entropy: f32[N], nats.
      margin: f32[N], 1 - (p1 - p2) of the two likeliest tokens: 1 if they are equally likely.
      predicted: int32[N], the likeliest token; the first one on ties.
    """

    nll: jax.Array
    entropy: jax.Array
    margin: jax.Array
    predicted: jax.Array


class Top(NamedTuple):
    """The K most probable tokens of each prediction, the most probable first.

    Attributes:
      ids: int32[N, K].
      logprobs: f32[N, K], in nats.
    """

    ids: jax.Array
    logprobs: jax.Array


@dataclasses.dataclass(frozen=True)
class Stream:
    """Settings of the streaming, which change results only by rounding.

    Attributes:
      chunk: columns of logits in a chunk on a chip; None derives them from `CHUNK_LOGITS`.
      kept: most logits that a chip keeps for the backward pass.
    """

    chunk: int | None = None
    kept: int = KEPT_LOGITS

    def columns(self, rows: int, vocab: int) -> int:
        """Returns the columns of a chunk, for `rows` predictions and `vocab` entries on a chip.

        By default this is the size, between half the maximum and the maximum, that leaves the
        smallest remainder.
        """
        if self.chunk:
            return min(vocab, self.chunk)
        most = max(CHUNK_COLUMNS, CHUNK_LOGITS // rows // CHUNK_COLUMNS * CHUNK_COLUMNS)
        if vocab <= most:
            return vocab
        # XLA allocates a second buffer for the logits of a shorter last chunk.
        return min(range(most, most // 2, -TOP_K_BLOCK_LOGITS), key=lambda size: vocab % size)

    def keeps(self, rows: int, vocab: int) -> bool:
        """Returns whether a chip keeps its logits for the backward pass."""
        return rows * vocab <= self.kept


STREAM = Stream()


def token_statistics(
    hidden: jax.Array, head: Head, targets: jax.Array, stream: Stream = STREAM
) -> TokenStatistics:
    """Returns the NLL of `targets`, and the entropy, margin and argmax of every prediction.

    Args:
      hidden: f[N, D], after the final norm.
      head: the output head, with V logits.
      targets: int32[N].
      stream: how the head is streamed.
    """
    wanted = _wanted(hidden, head, 2, None, stream)
    found: Any = _predict(hidden, head.table, targets[:, None], wanted)
    first, second = jnp.exp(found.top.logprobs).T
    margin = 1 - (first - second)
    return TokenStatistics(-found.logprobs[:, 0], found.entropy, margin, found.top.ids[:, 0])


def top(hidden: jax.Array, head: Head, k: int, among: int, stream: Stream = STREAM) -> Top:
    """Returns the `k` most probable of the first `among` tokens at every position.

    Args:
      hidden: f[N, D], after the final norm.
      head: the output head, with V logits.
      k: K, at most `among`.
      among: ids from here on are not returned, but the probabilities are over all V ids.
      stream: how the head is streamed.
    """
    none = jnp.zeros((hidden.shape[0], 0), jnp.int32)
    found: Any = _predict(hidden, head.table, none, _wanted(hidden, head, k, among, stream))
    return found.top


def logprobs_at(
    hidden: jax.Array, head: Head, ids: jax.Array, stream: Stream = STREAM
) -> jax.Array:
    """Returns f32[N, K], the log-probabilities of tokens int32[N, K], in nats.

    Args:
      hidden: f[N, D], after the final norm.
      head: the output head, with V logits.
      ids: int32[N, K].
      stream: how the head is streamed.
    """
    found: Any = _predict(hidden, head.table, ids, _wanted(hidden, head, 0, None, stream))
    return found.logprobs


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """Static settings: soft cap and dtype, top `k` of the first `among` ids, and the streaming."""

    softcap: float | None
    dtype: Any
    k: int
    among: int | None
    stream: Stream


def _wanted(hidden: jax.Array, head: Head, k: int, among: int | None, stream: Stream) -> _Wanted:
    dtype = jnp.dtype(hidden.dtype if head.dtype is None else head.dtype)
    return _Wanted(head.softcap, dtype, k, among, stream)


class _Predictions(NamedTuple):
    """Log-probabilities at the ids f32[N, K], entropies f32[N], and the likeliest tokens."""

    logprobs: jax.Array
    entropy: jax.Array
    top: Top


class _Sums(NamedTuple):
    """The streaming sums m, s and w, f32[N] each."""

    most: jax.Array
    total: jax.Array
    weighted: jax.Array

    def below(self, most: jax.Array) -> "_Sums":
        """Returns the same sums, rescaled to a larger m."""
        less = self.most - most
        scale = jnp.exp(less)
        return _Sums(most, scale * self.total, scale * (self.weighted + less * self.total))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Residuals:
    """Residuals that the backward pass reads.

    `logits` holds those of each chunk, f32[N, C], if they are kept. Without `trains_table` the
    table gets no gradient.
    """

    hidden: jax.Array
    table: jax.Array
    ids: jax.Array
    top_ids: jax.Array
    logsumexp: jax.Array
    entropy: jax.Array
    logits: tuple[jax.Array, ...] | None
    trains_table: bool = dataclasses.field(metadata={"static": True})


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _predict(hidden: jax.Array, table: jax.Array, ids: jax.Array, wanted: _Wanted) -> _Predictions:
    return _stream(hidden, table, ids, wanted, keep=False)[0]


def _forward(hidden: Any, table: Any, ids: Any, wanted: _Wanted):
    """Takes `CustomVJPPrimal`s, whose `perturbed` tells whether their gradient is wanted."""
    found, logsumexp, logits = _stream(hidden.value, table.value, ids.value, wanted, keep=True)
    return found, _Residuals(
        hidden.value, table.value, ids.value, found.top.ids, logsumexp, found.entropy, logits,
        table.perturbed,
    )  # fmt: skip


def _stream(
    hidden: jax.Array, table: jax.Array, ids: jax.Array, wanted: _Wanted, keep: bool
) -> tuple[_Predictions, jax.Array, tuple[jax.Array, ...] | None]:
    """Returns the predictions, the lse f32[N], and the logits of each chunk if they are kept."""
    axes = _axes(table)

    def on_chip(hidden: jax.Array, table: jax.Array, ids: jax.Array):
        count, vocab = hidden.shape[0], table.shape[0]
        first = _first(axes, vocab)

        def see(run: tuple[_Sums, jax.Array, Top], logits: jax.Array, start: Any):
            (sums, at_ids, best), size = run, logits.shape[1]
            most = jnp.maximum(sums.most, logits.max(-1))
            sums = sums.below(most)
            # If both sums shared exp(z - m), a CPU would write it to memory, which takes longer
            # than computing it twice. The barrier hides from XLA that it is the same.
            apart = jax.lax.platform_dependent(
                most, cpu=jax.lax.optimization_barrier, default=lambda most: most
            )
            less = logits - apart[:, None]
            total = sums.total + jnp.exp(logits - most[:, None]).sum(-1)
            weighted = sums.weighted + (jnp.exp(less) * less).sum(-1)
            at = ids - first - start
            inside = (at >= 0) & (at < size)
            values = jnp.take_along_axis(logits, jnp.where(inside, at, 0), axis=1)
            at_ids += jnp.where(inside, values, 0.0)
            if wanted.k:
                if wanted.among is not None:
                    named = first + start + jnp.arange(size)
                    # Not -inf, which marks logits that were taken already.
                    logits = jnp.where(named < wanted.among, logits, jnp.finfo(jnp.float32).min)
                values, at = _top_k(logits, min(wanted.k, size))
                best = _best(wanted.k, best, Top(first + start + at, values))
            return _Sums(most, total, weighted), at_ids, best

        zeros = jnp.zeros(count)
        nothing = jnp.zeros((count, wanted.k), jnp.int32), jnp.full((count, wanted.k), -jnp.inf)
        run = _Sums(zeros - 1e30, zeros, zeros), jnp.zeros(ids.shape), Top(*nothing)

        def step(run: Any, start: Any, size: int) -> tuple[Any, jax.Array]:
            chunk, _ = _logits(hidden, table, start, size, wanted, axes)
            return see(run, chunk, start), chunk

        size, logits = wanted.stream.columns(count, vocab), None
        if keep and wanted.stream.keeps(count, vocab):
            # The few chunks are separate arrays: a single one would be zeroed first, and copied.
            chunks = []
            for start in range(0, vocab, size):
                run, chunk = step(run, start, min(size, vocab - start))
                chunks.append(chunk)
            logits = tuple(chunks)
        else:
            run = _over_chunks(lambda *at: step(*at)[0], run, vocab, size)
        sums, at_ids, best = run
        if axes.vocab:
            sums = sums.below(jax.lax.pmax(sums.most, axes.vocab))
            total, weighted, at_ids = jax.lax.psum((*sums[1:], at_ids), axes.vocab)
            sums = _Sums(sums.most, total, weighted)
            best = _best(wanted.k, jax.lax.all_gather(best, axes.vocab, axis=1, tiled=True))
        lse = sums.most + jnp.log(sums.total)
        best = best._replace(logprobs=best.logprobs - lse[:, None])
        entropy = jnp.log(sums.total) - sums.weighted / sums.total
        return _Predictions(at_ids - lse[:, None], entropy, best), lse, logits

    rows = PartitionSpec(axes.rows)
    on_chips = on_each_device(
        on_chip,
        (rows, PartitionSpec(axes.vocab, axes.embed), rows),
        (rows, rows, PartitionSpec(axes.rows, axes.vocab)),
    )
    return on_chips(hidden, table, ids)


def _backward(wanted: _Wanted, kept: _Residuals, cotangents: _Predictions):
    """Returns the gradients of the hidden states and the table, and None for the ids."""
    axes = _axes(kept.table)
    pairs = (kept.ids, cotangents.logprobs), (kept.top_ids, cotangents.top.logprobs)
    pairs = [(ids, g) for ids, g in pairs if not isinstance(g, SymbolicZero)]
    none = jnp.zeros((len(kept.hidden), 0))
    ids = jnp.concatenate([none.astype(jnp.int32), *(ids for ids, _ in pairs)], axis=1)
    by_ids = jnp.concatenate([none, *(g for _, g in pairs)], axis=1)
    h = None if isinstance(cotangents.entropy, SymbolicZero) else cotangents.entropy

    def on_chip(kept: _Residuals, ids: jax.Array, by_ids: jax.Array, h: jax.Array | None):
        hidden, table, logits, lse = kept.hidden, kept.table, kept.logits, kept.logsumexp
        count, vocab = hidden.shape[0], table.shape[0]
        first = _first(axes, vocab)

        def step(rows: jax.Array, z: jax.Array, start: Any) -> tuple[jax.Array, Any]:
            """Returns a chunk's part of the gradient by `hidden`, and the gradient of its rows."""
            size = z.shape[1]
            logprobs = z - lse[:, None]
            factor = -by_ids.sum(-1, keepdims=True)
            if h is not None:
                factor -= h[:, None] * (logprobs + kept.entropy[:, None])
            by_logits = jnp.exp(logprobs) * factor
            at = ids - first - start
            at = jnp.where(at < 0, size, at)  # Negative indices would count from the end.
            by_logits = by_logits.at[jnp.arange(count)[:, None], at].add(by_ids, mode="drop")
            if wanted.softcap is not None:
                by_logits *= 1 - (z / wanted.softcap) ** 2
            by_hidden = matmul("NC,CD->ND", by_logits, rows, wanted.dtype)
            if not kept.trains_table:
                return by_hidden, None
            by_rows = matmul("NC,ND->CD", by_logits, hidden, wanted.dtype)
            if axes.embed:
                by_rows = jax.lax.psum_scatter(by_rows, axes.embed, scatter_dimension=1, tiled=True)
            return by_hidden, by_rows.astype(table.dtype)

        def again(run: tuple[jax.Array, jax.Array | None], start: Any, size: int):
            z, rows = _logits(hidden, table, start, size, wanted, axes)
            more, by_rows = step(rows, z, start)
            by_hidden, by_table = run
            if by_table is not None:
                by_table = jax.lax.dynamic_update_slice_in_dim(by_table, by_rows, start, axis=0)
            return by_hidden + more, by_table

        by_hidden, by_table = jnp.zeros(hidden.shape), None
        if logits is None:
            run = by_hidden, jnp.zeros_like(table) if kept.trains_table else None
            size = wanted.stream.columns(count, vocab)
            by_hidden, by_table = _over_chunks(again, run, vocab, size)
        else:
            start, parts = 0, []
            for z in logits:
                rows = _rows(table, start, z.shape[1], wanted.dtype, axes)
                more, by_rows = step(rows, z, start)
                by_hidden, start = by_hidden + more, start + z.shape[1]
                parts.append(by_rows)
            by_table = jnp.concatenate(parts) if kept.trains_table else None
        others = tuple(axis for axis in axes.rows if axis not in axes.embed)
        if axes.vocab:
            by_hidden = jax.lax.psum(by_hidden, axes.vocab)
        if by_table is not None and others:
            by_table = jax.lax.psum(by_table, others)
        return by_hidden.astype(hidden.dtype), by_table

    rows, places = PartitionSpec(axes.rows), PartitionSpec(axes.vocab, axes.embed)
    of_logits: Any = PartitionSpec(axes.rows, axes.vocab)
    specs = _Residuals(rows, places, rows, rows, rows, rows, of_logits, kept.trains_table)  # type: ignore[arg-type]
    on_chips = on_each_device(on_chip, (specs, rows, rows, rows), (rows, places))
    by_hidden, by_table = on_chips(kept, ids, by_ids, h)
    return by_hidden, by_table, None


_predict.defvjp(_forward, _backward, symbolic_zeros=True)


class _Axes(NamedTuple):
    """The mesh axes that split predictions, vocabulary and width; empty outside of a mesh."""

    rows: tuple[str, ...] = ()
    vocab: tuple[str, ...] = ()
    embed: tuple[str, ...] = ()


def _axes(table: jax.Array) -> _Axes:
    """Returns the mesh axes by `RULES`, without those of size 1.

    A dimension of the table that its mesh axes do not divide is not split.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return _Axes()

    def names(name: str, size: int = 0) -> tuple[str, ...]:
        rule = RULES[name] or ()
        axes = (rule,) if isinstance(rule, str) else rule
        axes = tuple(axis for axis in axes if mesh.shape[axis] > 1)
        return axes if size % math.prod(mesh.shape[axis] for axis in axes) == 0 else ()

    return _Axes(names("batch"), names("vocab", table.shape[0]), names("embed", table.shape[1]))


def _first(axes: _Axes, vocab: int) -> Any:
    """Returns the id of the first of the `vocab` table rows that this chip holds."""
    return jax.lax.axis_index(axes.vocab) * vocab if axes.vocab else 0


def _rows(table: jax.Array, start: Any, size: int, dtype: Any, axes: _Axes) -> jax.Array:
    """Returns rows of this chip's part of the table, gathered to full width: f[C, D]."""
    rows = jax.lax.dynamic_slice_in_dim(table, start, size).astype(dtype)
    return jax.lax.all_gather(rows, axes.embed, axis=1, tiled=True) if axes.embed else rows


def _logits(
    hidden: jax.Array, table: jax.Array, start: Any, size: int, wanted: _Wanted, axes: _Axes
) -> tuple[jax.Array, jax.Array]:
    """Returns the logits f32[N, C] of a chunk, and its rows of the table."""
    rows = _rows(table, start, size, wanted.dtype, axes)
    return Head(rows, wanted.softcap, wanted.dtype).logits(hidden), rows


def _over_chunks(step: Callable[[Any, Any, int], Any], run: Any, vocab: int, size: int) -> Any:
    """Folds `run = step(run, start, size)` over the chunks; the last chunk may be shorter."""
    whole, rest = divmod(vocab, size)
    if whole == 1:
        run = step(run, 0, size)
    else:
        run = jax.lax.fori_loop(0, whole, lambda i, run: step(run, i * size, size), run)
    return step(run, whole * size, rest) if rest else run


def _top_k(logits: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Returns the k largest of f32[N, C] and their indices, like `jax.lax.top_k`.

    They are in the k blocks with the largest maxima, so only these are searched. The blocks stay in
    index order, so that of equal logits the first ones are found.
    """
    count, size = logits.shape
    if size % TOP_K_BLOCK_LOGITS or 4 * k * TOP_K_BLOCK_LOGITS > size:
        return _largest(logits, k)
    blocks = logits.reshape(count, -1, TOP_K_BLOCK_LOGITS)
    chosen = jnp.sort(_largest(blocks.max(-1), k)[1])
    values = jnp.take_along_axis(blocks, chosen[..., None], axis=1).reshape(count, -1)
    places = (chosen[..., None] * TOP_K_BLOCK_LOGITS + jnp.arange(TOP_K_BLOCK_LOGITS)).reshape(
        count, -1
    )
    values, at = _largest(values, k)
    return values, jnp.take_along_axis(places, at, axis=1)


def _largest(values: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Returns the k largest of f32[N, C] and their indices, like `jax.lax.top_k`.

    Up to `FEW` are found one after the other, since `top_k` sorts whole rows on a GPU.
    """
    if not 0 < k <= FEW:
        return jax.lax.top_k(values, k)
    found, places, row = [], [], jnp.arange(len(values))
    for _ in range(k):
        place = jnp.argmax(values, -1)
        found.append(values[row, place])
        places.append(place.astype(jnp.int32))
        values = values.at[row, place].set(-jnp.inf)
    return jnp.stack(found, -1), jnp.stack(places, -1)


def _best(k: int, *found: Top) -> Top:
    """Returns the `k` best of several sets of candidates; the first ones on ties."""
    ids, values = (jnp.concatenate(parts, axis=1) for parts in zip(*found))
    values, at = _largest(values, k)
    return Top(jnp.take_along_axis(ids, at, axis=1), values)
