"""The streamed head equals log_softmax and its autodiff, whatever the shapes and the stream."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge_jax.models import head
from bridge_jax.models.head import Head, Stream


def plain(hidden, output, ids, best, k):
    """Returns what `streamed` does, by autodiff of the whole array of logits."""
    logprobs = jax.nn.log_softmax(output.logits(hidden))
    entropy = -(jnp.exp(logprobs) * logprobs).sum(-1)
    highest = jax.lax.top_k(logprobs[:, :best], k)[0]
    first, second = jnp.exp(jax.lax.top_k(logprobs, 2)[0]).T
    inside = (ids >= 0) & (ids < logprobs.shape[1])
    at_ids = jnp.take_along_axis(logprobs, jnp.where(inside, ids, 0), axis=1)
    return at_ids, -at_ids[:, 0], entropy, 1 - (first - second), highest


def streamed(hidden, output, ids, best, k, stream):
    stats = head.token_statistics(hidden, output, ids[:, 0], stream)
    highest = head.top(hidden, output, k, best, stream).logprobs
    at_ids = head.logprobs_at(hidden, output, ids, stream)
    return at_ids, stats.nll, stats.entropy, stats.margin, highest


@st.composite
def problems(draw):
    rows, vocab, width = (draw(st.integers(low, high)) for low, high in ((1, 5), (2, 40), (1, 8)))
    chunk = draw(st.integers(1, vocab + 2))
    stream = Stream(chunk, draw(st.sampled_from([0, 10_000])))
    best = draw(st.integers(1, vocab))
    k = draw(st.integers(1, best))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    hidden, table = rng.normal(size=(rows, width)) / width**0.5, rng.normal(size=(vocab, width))
    ids = rng.integers(0, vocab, (rows, draw(st.integers(1, 4))))
    weights = rng.normal(size=rows) * rng.integers(0, 2, rows)  # 0 is padding.
    arrays = (jnp.asarray(a, jnp.float32) for a in (hidden, table, weights))
    return *arrays, jnp.asarray(ids, jnp.int32), best, k, stream, draw(st.sampled_from([None, 2.0]))


@pytest.mark.slow
@settings(max_examples=5, deadline=None, derandomize=True)
@given(problems())
def test_values_and_gradients_equal_the_plain_ones(problem):
    hidden, table, weights, ids, best, k, stream, softcap = problem

    def total(of, hidden, table):
        parts = of(hidden, Head(table, softcap), ids, best, k)
        parts = [part.reshape(len(part), -1) for part in parts]
        factors = [jnp.arange(1.0, 1 + part.shape[1]) / part.shape[1] for part in parts]
        return (weights * sum(part @ f for part, f in zip(parts, factors))).sum(), parts

    def differentiated(of):
        function = jax.value_and_grad(lambda h, t: total(of, h, t), (0, 1), has_aux=True)
        return jax.jit(function)(hidden, table)

    found = differentiated(lambda *args: streamed(*args, stream))
    expected = differentiated(plain)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected
    )


def test_ids_outside_of_the_vocabulary_have_no_gradient_of_their_own():
    hidden, table = jnp.ones((2, 3)), jnp.arange(15.0).reshape(5, 3) / 20
    ids = jnp.asarray([[-1], [5]])

    def total(hidden, table):
        return head.logprobs_at(hidden, Head(table), ids, Stream(2, 0)).sum()

    def plain(hidden, table):
        return -jax.nn.logsumexp(hidden @ table.T, axis=-1).sum()

    found, expected = (
        jax.jit(jax.value_and_grad(f, (0, 1)))(hidden, table) for f in (total, plain)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)
