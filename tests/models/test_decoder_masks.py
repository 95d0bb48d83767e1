import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.models.attention import SlidingWindow, dense_mask, rotate, rotation
from bridge_jax.models.config import Rope


def test_segment_mask_of_a_packed_row():
    segments = jnp.asarray([[1, 1, 2, 2, 2, 0]])
    mask = dense_mask(segments)
    assert mask.shape == (1, 1, 6, 6)
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    np.testing.assert_array_equal(np.asarray(mask[0, 0], int), expected)


@pytest.mark.parametrize("applies", [True, False])
def test_window_of_a_packed_row(applies):
    window = SlidingWindow(2, jnp.asarray(applies))
    segments = jnp.ones((1, 4), int)
    mask = np.asarray(dense_mask(segments, window), int)[0, 0]
    near = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    np.testing.assert_array_equal(mask, near if applies else np.tril(np.ones((4, 4))))


def test_rope_by_hand():
    # One pair of halves, position 2, theta irrelevant for the first frequency (1).
    x = jnp.asarray([1.0, 0.0]).reshape(1, 1, 1, 2)
    turned = rotate(x, rotation(Rope(10_000.0), 2, jnp.asarray([[2]]))).reshape(2)
    np.testing.assert_allclose(turned, [np.cos(2), np.sin(2)], atol=1e-6)
    # The second frequency of H=4 is theta^(-1/2).
    x = jnp.asarray([0.0, 1.0, 0.0, 0.0]).reshape(1, 1, 1, 4)
    turned = rotate(x, rotation(Rope(100.0), 4, jnp.asarray([[3]]))).reshape(4)
    np.testing.assert_allclose(turned, [0, np.cos(0.3), 0, np.sin(0.3)], atol=1e-6)
