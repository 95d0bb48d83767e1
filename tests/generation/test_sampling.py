import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bridge_jax.generation.sampling import BLOCK_LOGITS, sample

PROBABILITIES = [0.1, 0.4, 0.05, 0.25, 0.2]
draw = jax.jit(sample)


def drawn(logits, temperature, top_p, count=20_000):
    rows = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (count, len(logits)))
    keys = jax.random.split(jax.random.key(0), count)
    return draw(rows, keys, jnp.full(count, temperature), jnp.full(count, top_p))


@pytest.mark.parametrize(
    "top_p, expected",
    [
        (0.3, [0, 1, 0, 0, 0]),
        pytest.param(0.5, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0], marks=pytest.mark.slow),
        (0.8, [0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85]),
        pytest.param(
            0.9, [0.1 / 0.95, 0.4 / 0.95, 0, 0.25 / 0.95, 0.2 / 0.95], marks=pytest.mark.slow
        ),
        (1.0, PROBABILITIES),
    ],
)
def test_nucleus_by_hand(top_p, expected):
    found = drawn(np.log(PROBABILITIES), 1.0, top_p)
    token, counts = np.asarray(found.token), np.bincount(found.token, minlength=5)
    np.testing.assert_allclose(counts / len(token), expected, atol=0.015)
    assert not counts[np.asarray(expected) == 0].any()
    np.testing.assert_allclose(found.logprob, np.log(PROBABILITIES)[token], rtol=1e-5, atol=1e-6)
    expected = np.log(np.maximum(expected, 1e-30))[token]
    np.testing.assert_allclose(found.sampled_logprob, expected, rtol=1e-5, atol=1e-6)


def test_samples_over_two_blocks_pass_a_chi_square_test():
    temperature = 1.3
    vocab = BLOCK_LOGITS + 100
    logits = np.random.default_rng(0).normal(size=vocab) * 2
    found = drawn(logits, temperature, 1.0)
    expected = np.exp(logits / temperature) / np.exp(logits / temperature).sum() * 20_000
    counts = np.bincount(found.token, minlength=vocab)
    often = expected > 5  # Rarer ones are counted together.
    merged = [np.append(a[often], a[~often].sum()) for a in (counts, expected)]
    assert stats.chisquare(*merged).pvalue > 0.01


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.999), st.floats(0.1, 5))
def test_the_nucleus_is_that_of_sorting(seed, top_p, spread):
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(1, 50)) * spread).astype(np.float32)
    order = np.argsort(-logits[0], kind="stable")
    probabilities = np.asarray(jax.nn.softmax(jnp.asarray(logits[0])), np.float64)[order]
    before = np.cumsum(probabilities) - probabilities
    kept = set(order[before < top_p])
    if np.abs(before - top_p).min() < 1e-6:
        return  # Rounding decides.
    forced = jnp.arange(50, dtype=jnp.int32)
    rows = jnp.broadcast_to(jnp.asarray(logits), (50, 50))
    keys = jax.random.split(jax.random.key(0), 50)
    found = draw(rows, keys, jnp.ones(50), jnp.full(50, top_p, jnp.float32), forced)
    assert set(np.flatnonzero(np.isfinite(found.sampled_logprob))) == kept


def test_a_forced_token_is_written_where_all_rows_are_greedy():
    logits = jnp.asarray([[0.0, 2.0, 1.0]] * 2)
    keys, zeros = jax.random.split(jax.random.key(1), 2), jnp.zeros(2)
    found = draw(logits, keys, zeros, zeros + 1, jnp.asarray([2, -1]))
    assert found.token.tolist() == [2, 1]
    lse = np.log(np.exp([0, 2, 1]).sum())
    np.testing.assert_allclose(found.logprob, [1 - lse, 2 - lse], rtol=1e-6)


def test_each_row_has_its_own_settings():
    logits = jnp.asarray([[0.0, 2.0, 1.0]] * 4)
    keys = jax.random.split(jax.random.key(1), 4)
    temperature, top_p = jnp.asarray([0.0, 1.0, 0.0, 5.0]), jnp.asarray([1.0, 0.1, 0.5, 1.0])
    found = draw(logits, keys, temperature, top_p, jnp.asarray([-1, -1, 2, -1]))
    assert found.token[:3].tolist() == [1, 1, 2]
    lse = np.log(np.exp([0, 2, 1]).sum())
    np.testing.assert_allclose(found.logprob[:3], [2 - lse, 2 - lse, 1 - lse], rtol=1e-6)
    assert found.sampled_logprob[:2].tolist() == [0, 0]
