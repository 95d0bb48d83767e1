"""A few entries of each prediction, chunk by chunk, against the dense softmax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.models import head
from bridge_jax.models.head import Head, Stream

N, V, D, K = 6, 40, 8, 5
KEYS = jax.random.split(jax.random.key(0), 3)
HIDDEN, TABLE = 3 * jax.random.normal(KEYS[0], (N, D)), jax.random.normal(KEYS[1], (V, D))
IDS = jax.random.randint(KEYS[2], (N, K), 0, V).at[0, 0].set(V - 1).at[1, :2].set(3)


def dense(hidden=HIDDEN, table=TABLE, softcap=None):
    return jax.nn.log_softmax(Head(table, softcap).logits(hidden))


@functools.partial(jax.jit, static_argnums=2)
def highest_of_all(hidden, table, softcap):
    whole = dense(hidden, table, softcap)
    return whole, *jax.lax.top_k(whole, K)


@pytest.mark.parametrize("chunk", [8, 40, 64, 7, 39, 3])  # less than K, too
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_the_most_probable_tokens(chunk, softcap):
    @jax.jit
    def top(hidden, table):
        return head.top(hidden, Head(table, softcap), K, V, Stream(chunk))

    found = jax.tree.map(np.asarray, top(HIDDEN, TABLE))
    whole, highest, ids = map(np.asarray, highest_of_all(HIDDEN, TABLE, softcap))
    np.testing.assert_allclose(found.logprobs, highest, rtol=1e-5, atol=1e-5)
    if softcap is None:
        np.testing.assert_array_equal(found.ids, ids)
    # Soft-capped logits are nearly equal: which of two comes first is the processor's rounding.
    np.testing.assert_allclose(
        found.logprobs, np.take_along_axis(whole, found.ids, axis=1), rtol=1e-5, atol=1e-5
    )
    assert all(len(set(row)) == K for row in found.ids.tolist())


def test_ids_from_the_limit_on_are_left_out_but_keep_their_probability():
    found = head.top(HIDDEN, Head(TABLE), 20, 20, Stream(8))
    assert sorted(found.ids[0].tolist()) == list(range(20))
    inside = np.exp(dense())[:, :20].sum(1)
    np.testing.assert_allclose(np.exp(found.logprobs).sum(1), inside, rtol=1e-5)
    assert inside.min() < 0.9


@pytest.mark.parametrize("chunk", [8, 64, 7])
def test_log_probabilities_of_given_tokens_and_their_gradients(chunk):
    def chunked(hidden, table):
        return head.logprobs_at(hidden, Head(table), IDS, Stream(chunk, 0))

    def whole(hidden, table):
        return jnp.take_along_axis(dense(hidden, table), IDS, axis=1)

    def weighted(hidden, table, function):
        found = function(hidden, table)
        return (jnp.arange(1.0, N * K + 1).reshape(N, K) * found).mean(), found

    compute = jax.jit(jax.grad(weighted, argnums=(0, 1), has_aux=True), static_argnums=2)
    ours, theirs = (compute(HIDDEN, TABLE, function) for function in (chunked, whole))
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5, atol=1e-5)
    for a, b in zip(ours[0], theirs[0]):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


def test_no_array_of_all_logits_exists():
    def best(hidden, table):
        return head.top(hidden, Head(table), K, V, Stream(8)).logprobs.sum()

    def given(hidden, table):
        return head.logprobs_at(hidden, Head(table), IDS, Stream(8, 0)).sum()

    programs = best, jax.grad(given, argnums=(0, 1)), lambda h, t: dense(h, t).sum()
    texts = [str(jax.make_jaxpr(program)(HIDDEN, TABLE)) for program in programs]
    assert [f"[{N},{V}]" in text for text in texts] == [False, False, True]
