"""Greedy choices by hand and against brute force in float64."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_jax.parallel.sharding import make_mesh
from bridge_jax.selection.greedy import (
    allocate,
    cover,
    d2_sample,
    farthest_first,
    herd,
    scaled_ranks,
)
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


@pytest.mark.parametrize(
    ("sizes", "mass", "expected"),
    [
        # One each by mass, then the quotients 24/3 = 8, 24/5 = 4.8, 24/7 = 3.4, 6/3 = 2, 6/5.
        ([4, 3], [24, 6], [0, 1, 0, 0, 0, 1, 1]),
        ([4, 3], [6, 24], [1, 0, 1, 1, 0, 0, 0]),
        # Equal quotients: the first cluster. 9/3 = 3/1, but every cluster has a seat before.
        ([3, 3], [9, 3], [0, 1, 0, 0, 1, 1]),
        ([2, 2], [5, 5], [0, 1, 0, 1]),
        # No more seats than members, and none for an empty cluster.
        ([1, 0, 3], [100, 0, 1], [0, 2, 2, 2]),
        # No mass for one: it comes last. No mass at all: sizes count.
        ([2, 2], [0, 1], [1, 0, 1, 0]),
        ([1, 3], [0, 0], [1, 0, 1, 1]),
    ],
)
def test_seats_by_hand(sizes, mass, expected):
    assert allocate(np.array(sizes), np.array(mass, float)).tolist() == expected


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0.01, 50)), min_size=1, max_size=7))
def test_seats_are_webster_s(clusters):
    sizes = np.array([size for size, _ in clusters])
    mass = np.array([weight if size else 0.0 for size, weight in clusters])
    found, held = allocate(sizes, mass), np.zeros(len(sizes), int)
    assert np.bincount(found, minlength=len(sizes)).tolist() == sizes.tolist()
    full = int((sizes > 0).sum())
    assert len(set(found[:full].tolist())) == full
    held[found[:full]] += 1
    for cluster in found[full:]:
        quotient = np.where(held < sizes, mass / (2 * held + 1), -1)
        assert cluster == np.lexsort((held, -quotient))[0]
        held[cluster] += 1


def greedy(score, embeddings, count, weight):
    """Returns the order within one cluster, by brute force."""
    rank = np.argsort(np.lexsort((-np.arange(len(score)), score))) / max(1, len(score) - 1)
    order = [int(np.argmax(rank))]
    while len(order) < count:
        nearest = np.linalg.norm(embeddings[:, None] - embeddings[order], axis=2).min(1)
        copies = nearest < 2e-5
        left = np.delete(nearest, [*order, *np.flatnonzero(copies)])
        spread = np.ptp(left) if len(left) else 0.0
        distance = (nearest - left.min()) / spread if spread > 2e-3 else np.zeros(len(score))
        value = weight * rank + (1 - weight) * distance.clip(0, 1) - copies
        value[order] = -np.inf
        order.append(int(np.argmax(value)))
    return order


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_cover_equals_brute_force_in_every_cluster(one_device, weight):
    rng = np.random.default_rng(7)
    embeddings, labels = unit_vectors(90, 5, seed=6), rng.choice(4, 90, p=(0.6, 0.2, 0.15, 0.05))
    embeddings[[10, 11]], labels[[10, 11]] = embeddings[12], labels[12]
    score, mass = rng.gamma(2, size=90), np.array([5.0, 3, 2, 0.5])
    seat = allocate(np.bincount(labels), mass)
    expected = np.zeros(90, int)
    for cluster in range(4):
        members = np.flatnonzero(labels == cluster)
        order = greedy(score[members], embeddings[members].astype(float), len(members), weight)
        expected[seat == cluster] = members[order]
    copies = [i for i in expected if i in (10, 11, 12)][1:]
    expected = np.array([i for i in expected if i not in copies] + copies)
    for count in (1, 40, 90):
        found = cover(score, embeddings, labels, mass, count, weight, one_device)
        assert found.tolist() == expected[:count].tolist()
    many = cover(score, embeddings, labels, mass, 90, weight, make_mesh())
    assert many.tolist() == expected.tolist()


def cover_one(score, embeddings, count, weight, mesh):
    labels = np.zeros(len(score), int)
    return cover(score, embeddings, labels, np.ones(1), count, weight, mesh).tolist()


def test_cover_prefers_hard_and_far(one_device):
    # Angles 0, 10, 90, 180; ranks 1, 2/3, 1/3, 0; distance of unit vectors = 2 sin(angle / 2).
    # First 0, the hardest, 0.174, 1.414 and 2 from the others: 0, 0.679 and 1 of the range. With
    # w = 1/2:
    #   1: 1/3 + 0 = 0.333;  2: 1/6 + 0.679 / 2 = 0.506;  3: 0 + 1 / 2 = 0.5  -> 2
    #   1: still the nearest, 0.333;  3: 1.414 from 2, the farthest, 0.5  -> 3, then 1.
    difficulty, embeddings = np.array([4.0, 3.0, 2.0, 1.0]), unit([0, 10, 90, 180])
    assert cover_one(difficulty, embeddings, 4, 0.5, one_device) == [0, 2, 3, 1]
    assert cover_one(difficulty, embeddings, 4, 1.0, one_device) == [0, 1, 2, 3]
    # Distance alone: the far end, then the middle, which is 1.414 from both.
    assert cover_one(difficulty, embeddings, 4, 0.0, one_device) == [0, 3, 2, 1]


def test_how_close_together_the_embeddings_lie_does_not_matter(one_device):
    """Those of language models share most of their direction; being unlike counts all the same."""
    rng = np.random.default_rng(3)
    difficulty, apart = rng.normal(size=60), unit_vectors(60, 8, seed=1)
    close = 0.02 * apart + np.eye(8)[0]
    found = cover_one(difficulty, apart, 20, 0.5, one_device)
    assert cover_one(difficulty, close, 20, 0.5, one_device) == found
    assert found != cover_one(difficulty, apart, 20, 1.0, one_device)


def test_a_copy_of_a_chosen_one_is_chosen_last_but_not_dropped(one_device):
    # 0 and 1 are the same question, both the hardest; asking twice would waste a query.
    difficulty, embeddings = np.array([9.0, 9.0, 3.0, 2.0, 1.0]), unit([0, 0, 20, 30, 40])
    order = cover_one(difficulty, embeddings, 5, 0.5, one_device)
    assert order[0] == 0 and order[-1] == 1 and sorted(order) == [0, 1, 2, 3, 4]
    # Also when the scores of the copies differ by the rounding of two batch shapes.
    embeddings[1] += 1e-6
    assert cover_one(difficulty, embeddings, 5, 0.5, one_device) == order


def test_a_cluster_of_copies_is_bought_once(one_device):
    # 8 times the same question, the hardest, and 4 others in a cluster of little mass.
    embeddings = np.concatenate([np.repeat(unit([0]), 8, axis=0), unit([90, 100, 110, 120])])
    score, labels = np.array([9.0] * 8 + [4, 3, 2, 1]), np.array([0] * 8 + [1] * 4)
    mass = np.array([72.0, 10.0])
    order = cover(score, embeddings, labels, mass, 12, 1.0, one_device).tolist()
    assert order == [0, 8, 9, 10, 11, 1, 2, 3, 4, 5, 6, 7]
    for count in range(1, 12):
        found = cover(score, embeddings, labels, mass, count, 1.0, one_device)
        assert found.tolist() == order[:count]


def test_ranks_are_within_clusters():
    score, labels = np.array([5.0, 1, 5, 2, 9]), np.array([0, 1, 0, 0, 1])
    # Cluster 0: 2 < 5 < 5, the first of equals is the highest; cluster 1: 1 < 9.
    assert scaled_ranks(score, labels).tolist() == [1.0, 0.0, 0.5, 0.0, 1.0]
    assert scaled_ranks(np.ones(1), np.zeros(1, int)).tolist() == [0.0]
