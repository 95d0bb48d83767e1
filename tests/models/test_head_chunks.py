import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.config import TrainConfig
from bridge_jax.models import decoder, head
from bridge_jax.models.config import DecoderConfig
from bridge_jax.selection.batches import Shape, empty
from bridge_jax.selection.scores import score_batch
from bridge_jax.text.packing import Rows
from bridge_jax.training.objectives.sft import SFT
from bridge_jax.training.step import TrainState, make_optimizer, make_train_step
from tests.jaxprs import sizes

N, V, D = 6, 40, 8


def inputs():
    keys = jax.random.split(jax.random.key(0), 3)
    hidden = 3 * jax.random.normal(keys[0], (N, D))
    table = jax.random.normal(keys[1], (V, D))
    return hidden, table, jax.random.randint(keys[2], (N,), 0, V).at[0].set(V - 1)


@jax.jit
def dense(hidden, table, targets):
    logprobs = jax.nn.log_softmax(hidden @ table.T)
    nll = -jnp.take_along_axis(logprobs, targets[:, None], 1)[:, 0]
    entropy = -(jnp.exp(logprobs) * logprobs).sum(-1)
    top, second = jnp.exp(jax.lax.top_k(logprobs, 2)[0]).T
    return head.TokenStatistics(nll, entropy, 1 - (top - second), logprobs.argmax(-1))


@functools.partial(jax.jit, static_argnums=0)
def gradients(function, hidden, table, targets):
    """Returns the gradients of weighted means of the NLL and of the entropy."""

    def total(hidden, table, part):
        return (jnp.arange(1.0, N + 1) * function(hidden, table, targets)[part]).mean()

    return [jax.grad(total, argnums=(0, 1))(hidden, table, part) for part in (0, 1)]


# Dividing, whole, larger, not dividing, and all at once.
@pytest.mark.parametrize("chunk", [8, 40, 64, 7, 39, None])
def test_chunks_equal_the_dense_softmax(chunk):
    hidden, table, targets = inputs()

    @jax.jit
    def chunked(hidden, table, targets):
        return head.token_statistics(hidden, head.Head(table), targets, head.Stream(chunk, 0))

    for a, b in zip(chunked(hidden, table, targets), dense(hidden, table, targets)):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)

    # Entropy is only reported, and its gradient cancels more digits.
    of_chunks, of_all = gradients(chunked, *inputs()), gradients(dense, *inputs())
    for ours, theirs, tolerance in zip(of_chunks, of_all, (1e-5, 1e-3)):
        for a, b in zip(ours, theirs):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


@functools.partial(jax.jit, static_argnums=3)
def statistics(hidden, table, targets, stream):
    return head.token_statistics(hidden, head.Head(table), targets, stream)


def test_uniform_prediction_by_hand():
    stats = statistics(np.zeros((1, D)), np.ones((V, D)), np.zeros(1, int), head.Stream(16))
    np.testing.assert_allclose(stats.nll, np.log(V), rtol=1e-6)
    np.testing.assert_allclose(stats.entropy, np.log(V), rtol=1e-6)
    assert stats.margin.tolist() == [1.0]
    assert stats.predicted.tolist() == [0]  # the first of equals


@pytest.mark.parametrize("places", [(0, 1), (1, 0), (3, 12), (12, 3), (4, 7), (11, 39)])
def test_the_two_likeliest_are_found_in_whatever_chunks_they_are(places):
    probabilities = np.full(V, 0.3 / (V - 2))
    probabilities[list(places)] = 0.5, 0.2
    table = np.log(probabilities)[:, None].astype(np.float32)
    stats = statistics(np.ones((1, 1), np.float32), table, np.zeros(1, int), head.Stream(4))
    np.testing.assert_allclose(stats.margin, 1 - (0.5 - 0.2), rtol=1e-5)
    assert stats.predicted.tolist() == [places[0]]


def products(function, *arguments):
    """Returns how many matrix products are traced."""
    traced = jax.make_jaxpr(function)(*arguments)
    names = [equation.primitive.name for _, equation in sizes(traced.jaxpr)]
    return names.count("dot_general")


@pytest.mark.parametrize(("kept", "expected"), [(N * V, (3, 2)), (N * V - 1, (4, 3))])
def test_kept_logits_and_a_frozen_table_each_save_a_product(kept, expected):
    def loss(hidden, table, targets):
        stream = head.Stream(8, kept)
        return head.token_statistics(hidden, head.Head(table), targets, stream).nll.sum()

    # Logits, and the gradients of both factors; logits that are not kept are computed twice.
    chunks = V // 8 if kept == N * V else 1  # A loop is traced once.
    found = [products(jax.grad(loss, by), *inputs()) / chunks for by in ((0, 1), 0)]
    assert tuple(found) == expected


def test_what_is_not_read_is_not_computed(monkeypatch):
    monkeypatch.setattr(head, "FEW", 0)  # By a call that the program names.

    def compiled(function):
        shapes = abstract((N, D), jnp.float32), abstract((V, D), jnp.float32), abstract((N,))
        return jax.jit(function).lower(*shapes).compile().as_text()

    def statistics(hidden, table, targets):
        return head.token_statistics(hidden, head.Head(table), targets, head.Stream(16))

    def loss(hidden, table, targets):
        return statistics(hidden, table, targets).nll.sum()

    assert "TopK" in compiled(statistics)
    assert "TopK" not in compiled(jax.grad(loss, (0, 1)))
    # The sum for the entropy is a second exponential of each logit.
    exponentials = [
        compiled(function).count(" exponential(")
        for function in (lambda *args: statistics(*args)[:2], lambda *args: statistics(*args).nll)
    ]
    assert exponentials[0] > exponentials[1]


def memory(function, *shapes):
    """Returns the bytes that a compiled function needs beside its arguments and results."""
    return jax.jit(function).lower(*shapes).compile().memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_the_vocabulary():
    rows, width = 512, 16

    def statistics(hidden, table, targets):
        return head.token_statistics(hidden, head.Head(table), targets, head.Stream(1024, 0))

    def loss(hidden, table, targets):
        return statistics(hidden, table, targets).nll.sum()

    used = []
    for vocab in (8_192 + 496, 150_000):  # The last chunk is of one size.
        shapes = (rows, width), (vocab, width)
        arrays = (*(abstract(shape, jnp.float32) for shape in shapes), abstract((rows,)))
        used.append((memory(statistics, *arrays), memory(jax.grad(loss, (0, 1)), *arrays)))
    for few, many in zip(*used):
        assert 4 * rows * 1024 <= few <= many <= 1.1 * few


def test_extreme_logits_stay_finite():
    table, hidden = np.eye(V, D, dtype=np.float32) * 1e4, np.ones((1, D), np.float32)
    stats = statistics(hidden, -table, np.zeros(1, int), head.Stream(16))
    np.testing.assert_allclose(stats.nll, 1e4 + np.log(V - D), rtol=1e-5)
    np.testing.assert_allclose(stats.entropy, np.log(V - D), rtol=1e-4)


BIG = DecoderConfig(100_000, 16, 2, 2, 1, 8, 32)
ROWS, WIDTH, TARGETS = 64, 64, 32  # N = 2,048 targets: N x V is 205 million numbers


def abstract(shape, dtype=jnp.int32):
    return jax.ShapeDtypeStruct(shape, dtype)


def big_params():
    return nn.unbox(jax.eval_shape(functools.partial(decoder.init, BIG), jax.random.key(0)))


def train_jaxpr():
    optimizer = make_optimizer(TrainConfig())
    params = big_params()
    state = TrainState(params, jax.eval_shape(optimizer.init, params), abstract(()))
    tokens, targets = abstract((ROWS, WIDTH)), abstract((ROWS, TARGETS))
    weights = abstract((ROWS, TARGETS), jnp.float32)
    rows = Rows(tokens, tokens, tokens, targets, targets, weights, weights)
    return jax.make_jaxpr(make_train_step(SFT(), BIG, optimizer))(state, {}, rows, 1e-3)


def score_jaxpr():
    batch = empty(Shape(1, ROWS, WIDTH, ROWS * TARGETS, ROWS))
    return jax.make_jaxpr(score_batch, static_argnums=0)(BIG, big_params(), batch)


@pytest.mark.parametrize("trace", [train_jaxpr, score_jaxpr])
def test_no_array_of_all_logits_exists(trace):
    limit = ROWS * TARGETS * BIG.vocab_size
    found = list(sizes(trace().jaxpr))
    assert any("scan" in str(equation.primitive) for _, equation in found)
    largest, equation = max(found, key=lambda pair: pair[0])
    # The largest is a chunk of logits, or the embedding, V x D.
    assert largest <= head.CHUNK_LOGITS < head.KEPT_LOGITS < limit, equation
    assert largest >= BIG.vocab_size * BIG.model_dim  # the walk has seen the inner jaxprs


@functools.partial(jax.jit, static_argnums=(2, 3))
def top(hidden, table, k, among):
    return head.top(hidden, head.Head(table), k, among)


@functools.partial(jax.jit, static_argnums=1)
def top_by_sorting(logits, k):
    return jax.lax.top_k(logits, k), jax.nn.logsumexp(logits, axis=1, keepdims=True)


@pytest.mark.parametrize("values", [3, 50, 10**6])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_largest_logits_are_those_of_top_k_in_its_order_of_equals(k, values):
    table = (
        np.random.default_rng(k)
        .integers(0, values, (40 * head.TOP_K_BLOCK_LOGITS, 7))
        .astype(np.float32)
    )
    found = top(np.eye(7, dtype=np.float32), table, k, len(table))
    (logits, ids), lse = top_by_sorting(table.T, k)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_allclose(found.logprobs, logits - lse, rtol=1e-5, atol=1e-5)


def test_the_likeliest_of_few_allowed_tokens_are_different_ones():
    """As few as fill one block of a chunk, whose other blocks have no allowed token."""
    vocab, among = 16 * head.TOP_K_BLOCK_LOGITS, head.TOP_K_BLOCK_LOGITS
    hidden = jax.random.normal(jax.random.key(0), (5, D))
    table = jax.random.normal(jax.random.key(1), (vocab, D))
    found = top(hidden, table, 2, among)
    expected = jax.jit(lambda h, t: jax.lax.top_k((h @ t.T)[:, :among], 2)[1])(hidden, table)
    np.testing.assert_array_equal(found.ids, expected)


@pytest.mark.parametrize(
    ("rows", "vocab", "size", "rest"),
    [
        (4096, 49152, 4096, 0),
        (4096, 150000, 3840, 240),  # 4,096 would leave 2,544
        (2048, 8192, 8192, 0),
        (1 << 20, 151936, 640, 256),
    ],
)
def test_chunks_leave_a_small_rest(rows, vocab, size, rest):
    assert head.STREAM.columns(rows, vocab) == size
    assert vocab % size == rest
    assert head.Stream(1000).columns(rows, vocab) == 1000
