"""Seats and who takes them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from bridge_jax.parallel.sharding import make_mesh
from bridge_jax.selection.coverage import cover, scaled_ranks, seats
from bridge_jax.selection.typicality import typicality
from tests.selection.pools import unit, unit_vectors


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
    assert seats(np.array(sizes), np.array(mass, float)).tolist() == expected


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0.01, 50)), min_size=1, max_size=7))
def test_seats_are_webster_s(clusters):
    sizes = np.array([size for size, _ in clusters])
    mass = np.array([weight if size else 0.0 for size, weight in clusters])
    found, held = seats(sizes, mass), np.zeros(len(sizes), int)
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
    seat = seats(np.bincount(labels), mass)
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


def test_typicality_equals_scikit_learn_s_neighbours(one_device):
    # Blocks of 32 rows: clusters share blocks, span several of them, and have few members.
    labels = np.random.default_rng(1).permutation(np.repeat(range(6), [300, 90, 60, 15, 2, 1]))
    embeddings = unit_vectors(len(labels), 6, seed=8, mean=2.0)
    expected = np.zeros(len(labels))
    for cluster in range(5):
        members = np.flatnonzero(labels == cluster)
        k = min(20, len(members) - 1)
        neighbours = NearestNeighbors(n_neighbors=k).fit(embeddings[members])
        expected[members] = 1 / neighbours.kneighbors()[0].mean(1)
    found = typicality(embeddings, labels, one_device)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert found[labels == 5].tolist() == [0]
    np.testing.assert_array_equal(found, typicality(embeddings, labels, make_mesh()))


def test_copies_are_the_most_typical_of_all_and_finite(one_device):
    embeddings = np.concatenate([np.repeat(unit([0]), 30, axis=0), unit(range(10, 40))])
    found = typicality(embeddings, np.zeros(60, int), one_device)
    assert np.isfinite(found).all()
    assert found[:30].min() > 20 * found[30:].max()
