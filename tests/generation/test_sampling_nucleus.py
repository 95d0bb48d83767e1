import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.generation.engine import sample

PROBABILITIES = [0.1, 0.4, 0.05, 0.25, 0.2]


def frequencies(temperature, top_p, count=20_000):
    logits = jnp.broadcast_to(jnp.log(jnp.asarray(PROBABILITIES)), (count, 5))
    tokens, logprobs = sample(logits, jax.random.key(0), temperature, top_p)
    np.testing.assert_allclose(logprobs, np.log(PROBABILITIES)[np.asarray(tokens)], rtol=1e-5)
    return np.bincount(tokens, minlength=5) / count


@pytest.mark.parametrize(
    "top_p, expected",
    [
        (0.3, [0, 1, 0, 0, 0]),
        (0.5, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        (0.8, [0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85]),
        (0.9, [0.1 / 0.95, 0.4 / 0.95, 0, 0.25 / 0.95, 0.2 / 0.95]),
        (1.0, PROBABILITIES),
    ],
)
def test_nucleus_by_hand(top_p, expected):
    found = frequencies(1.0, top_p)
    np.testing.assert_allclose(found, expected, atol=0.015)
    assert not found[np.asarray(expected) == 0].any()


def test_temperature_sharpens():
    squared = np.asarray(PROBABILITIES) ** 2
    np.testing.assert_allclose(frequencies(0.5, 1.0), squared / squared.sum(), atol=0.015)


def test_zero_temperature_takes_the_most_probable():
    token, logprob = sample(jnp.asarray([[0.0, 2.0, 1.0]]), jax.random.key(0), 0.0, 0.5)
    assert token.tolist() == [1]
    np.testing.assert_allclose(logprob, 2 - np.log(np.exp([0, 2, 1]).sum()), rtol=1e-6)
