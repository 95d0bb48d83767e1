"""Centers against brute force in float64."""

import jax
import numpy as np
import pytest

from bridge_jax.parallel.sharding import make_mesh
from bridge_jax.selection.centers import d2_sample, farthest_first
from bridge_jax.selection.herding import herd
from tests.selection.pools import unit, unit_vectors


def k_center(embeddings, count):
    x = embeddings.astype(np.float64)
    order = [int(np.argmin(np.linalg.norm(x - x.mean(0), axis=1)))]
    while len(order) < count:
        nearest = np.linalg.norm(x[:, None] - x[order], axis=2).min(1)
        nearest[order] = -1
        order.append(int(np.argmax(nearest)))
    return order


def herding(embeddings, count):
    x = embeddings.astype(np.float64)
    mean, w, order = x.mean(0), x.mean(0), []
    for _ in range(count):
        value = x @ w
        value[order] = -np.inf
        order.append(int(np.argmax(value)))
        w = w + mean - x[order[-1]]
    return order


@pytest.mark.parametrize("seed", range(3))
def test_k_center_and_herding_equal_brute_force(one_device, seed):
    embeddings = unit_vectors(120, 7, seed, mean=2.0)
    assert farthest_first(embeddings, 120, one_device).tolist() == k_center(embeddings, 120)
    assert herd(embeddings, 120, one_device).tolist() == herding(embeddings, 120)


def test_k_center_by_hand(one_device):
    # The mean is at 32 degrees; then 70, 30 and 10 degrees from the nearest before.
    assert farthest_first(unit([0, 10, 30, 100]), 4, one_device).tolist() == [2, 3, 0, 1]


def test_of_equals_the_first_is_taken(one_device):
    square = unit([0, 90, 180, 270])
    # All are as far from the mean; 180 is across, the others are equally far from both.
    assert farthest_first(square, 4, one_device).tolist() == [0, 2, 1, 3]


def test_copies_come_after_all_others(one_device):
    embeddings = unit([0, 0, 40, 40, 90, 0, 300])
    order = farthest_first(embeddings, 7, one_device).tolist()
    assert {0, 2, 4, 6} == set(order[:4])
    assert order[4:] == [1, 3, 5]
    embeddings[[1, 3]] += 1e-6  # the rounding of two batch shapes
    nearly = farthest_first(embeddings, 7, one_device).tolist()
    drawn = d2_sample(embeddings, 7, 0, one_device).tolist()
    for order in (nearly, drawn):
        assert len({0, 1, 5} & set(order[:4])) == len({2, 3} & set(order[:4])) == 1
        assert sorted(order) == list(range(7))


def test_only_copies_are_taken_in_their_order(one_device):
    embeddings = np.repeat(unit([30]), 5, axis=0)
    assert farthest_first(embeddings, 5, one_device).tolist() == [0, 1, 2, 3, 4]
    assert d2_sample(embeddings, 5, 0, one_device).tolist() == [0, 1, 2, 3, 4]


def test_badge_starts_with_the_longest_and_draws_by_squared_distance(one_device):
    # From (3, 0): squared distances 1, 4 and 9 to the second, third and fourth.
    vectors = np.array([[3.0, 0], [2, 0], [1, 0], [0, 0]], np.float32)
    draws = np.array([d2_sample(vectors, 2, seed, one_device) for seed in range(400)])
    assert set(draws[:, 0]) == {0}
    counts = np.bincount(draws[:, 1], minlength=4)
    for place, share in ((1, 1 / 14), (2, 4 / 14), (3, 9 / 14)):
        assert abs(counts[place] - 400 * share) < 4 * np.sqrt(400 * share * (1 - share))


def test_badge_does_not_depend_on_the_unit_of_the_gradients(one_device):
    vectors = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    one, other = (d2_sample(vectors * scale, 30, 3, one_device) for scale in (1.0, 2.0**-20))
    np.testing.assert_array_equal(one, other)
    assert d2_sample(vectors, 30, 4, one_device).tolist() != one.tolist()
    zeros = np.zeros((4, 2), np.float32)
    assert d2_sample(zeros, 4, 0, one_device).tolist() == [0, 1, 2, 3]


def test_herding_keeps_the_mean(one_device):
    embeddings = unit_vectors(500, 16, seed=1, mean=1.0)
    chosen = embeddings[herd(embeddings, 50, one_device)].mean(0)
    drawn = embeddings[np.random.default_rng(0).permutation(500)[:50]].mean(0)
    error, by_chance = (np.linalg.norm(m - embeddings.mean(0)) for m in (chosen, drawn))
    assert error < by_chance / 3


def test_herding_by_hand(one_device):
    # w = mean = (1/3, 1/3): <w, x> = 1/3, 1/3, 0. w = (-1/3, 2/3): 2/3 for the second, 0.
    embeddings = np.array([[1, 0], [0, 1], [0, 0]], np.float32)
    assert herd(embeddings, 3, one_device).tolist() == [0, 1, 2]


def test_every_device_count_gives_the_same_centers(one_device):
    assert jax.device_count() == 8
    embeddings = unit_vectors(700, 24, seed=5, mean=3.0)
    for pick in (farthest_first, herd, lambda x, n, mesh: d2_sample(x, n, 0, mesh)):
        one, many = (pick(embeddings, 150, mesh) for mesh in (one_device, make_mesh()))
        np.testing.assert_array_equal(one, many)
