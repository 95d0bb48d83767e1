"""k-means and typicality against scikit-learn, and where rows are copies of each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neighbors import NearestNeighbors

from bridge_jax.parallel.sharding import make_mesh
from bridge_jax.selection.clusters import (
    digit,
    kmeans,
    lloyd,
    neighbour_distances,
    typicality,
)
from bridge_jax.selection.greedy import centers
from bridge_jax.selection.pool import PoolRows, place_rows
from tests.jaxprs import sizes
from tests.selection.pools import blobs, unit, unit_vectors


def test_three_blobs_are_found(one_device):
    embeddings, truth = blobs([12, 7, 9])
    found = kmeans(embeddings, 3, 0, one_device)
    assert adjusted_rand_score(found.labels, truth) == 1
    means = [embeddings[found.labels == c].mean(0) for c in range(3)]
    np.testing.assert_allclose(found.centroids, means, atol=1e-6)


@pytest.mark.parametrize(("rows", "clusters"), [(400, 7), (1000, 30)])
def test_as_tight_as_scikit_learn(one_device, rows, clusters):
    embeddings = unit_vectors(rows, 12, seed=1, mean=1.0)
    found = kmeans(embeddings, clusters, 0, one_device)
    reference = KMeans(clusters, n_init=4, random_state=0).fit(embeddings)
    assert found.inertia < 1.02 * reference.inertia_
    distances = euclidean_distances(embeddings, found.centroids)
    np.testing.assert_array_equal(found.labels, distances.argmin(1))
    np.testing.assert_allclose(found.inertia, (distances.min(1) ** 2).sum(), rtol=1e-4)


def test_a_fixed_point_of_lloyd_is_that_of_scikit_learn(one_device):
    embeddings = unit_vectors(300, 6, seed=2)
    found = kmeans(embeddings, 8, 0, one_device, restarts=1)
    again = KMeans(8, init=found.centroids, n_init=1, max_iter=100).fit(embeddings)
    # Both stop a little before the end.
    assert (again.labels_ == found.labels).mean() > 0.97
    np.testing.assert_allclose(again.inertia_, found.inertia, rtol=2e-3)


def test_more_restarts_are_no_worse(one_device):
    embeddings = unit_vectors(200, 4, seed=3)
    several = [kmeans(embeddings, 12, 5, one_device, restarts=n).inertia for n in (1, 8)]
    assert several[1] < several[0]


def test_seeding_draws_in_proportion_to_the_squared_distance(one_device):
    # From 0, the others are at 0, 1 and 2: drawn never, 1 in 5 times and 4 in 5 times.
    values = np.array([[0.0, 0], [0, 0], [0.25, 0], [0, 0.5]], np.float32)
    rows = place_rows(values, one_device)
    draws = 500
    starts = np.zeros(draws, int)
    seeds = np.asarray(centers(rows, starts, 2, one_device, seed=0, expanded=True))
    assert set(seeds[:, 0]) == {0}
    counts = np.bincount(seeds[:, 1], minlength=4)
    assert counts[0] == counts[1] == 0
    assert abs(counts[2] - draws / 5) < 4 * np.sqrt(draws * 0.2 * 0.8)


def test_copies_are_one_cluster_and_more_clusters_than_rows_are_too_many(one_device):
    two = np.repeat(unit_vectors(2, 3), 4, axis=0)
    found = kmeans(two, 5, 0, one_device)
    assert adjusted_rand_score(found.labels, [0] * 4 + [1] * 4) == 1
    assert found.inertia < 1e-6
    assert np.isfinite(found.centroids).all()
    apart = unit_vectors(5, 3, seed=4)
    assert sorted(kmeans(apart, 9, 0, one_device).labels) == [0, 1, 2, 3, 4]


def test_one_cluster_is_the_mean(one_device):
    embeddings = unit_vectors(50, 5, mean=2.0)
    found = kmeans(embeddings, 1, 0, one_device)
    assert set(found.labels) == {0}
    np.testing.assert_allclose(found.centroids[0], embeddings.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.inertia, 50 * embeddings.var(0).sum(), rtol=1e-5)


def test_an_empty_cluster_keeps_its_centroid(one_device):
    values = np.array([[1.0, 0], [0.9, 0], [-1, 0], [-0.9, 0]], np.float32)
    # Both seeds are the same row, so the second has nothing that is nearer.
    rows, seeds = place_rows(values, one_device), jnp.zeros(2, jnp.int32)
    labels, _, centroids = lloyd(rows, seeds, digit(4), 0.0, one_device)
    assert set(np.asarray(labels).ravel()[:4].tolist()) <= {0, 1}
    assert np.isfinite(centroids).all()
    assert np.abs(centroids).max() <= 1


@pytest.mark.parametrize("count", [2, 1000, 1_000_000, 100_000_000])
def test_sums_of_the_fixed_point_do_not_overflow(count):
    base = digit(count)
    assert np.log2(base).is_integer()
    assert 2 * base * count < 2**31
    assert base >= 4


@pytest.mark.slow
def test_the_same_bits_on_all_devices(one_device):
    embeddings = unit_vectors(700, 24, seed=5, mean=3.0)
    one, many = (kmeans(embeddings, 20, 0, mesh) for mesh in (one_device, make_mesh()))
    assert jax.device_count() == 8
    for a, b in zip(one, many):
        np.testing.assert_array_equal(a, b)


def test_no_array_is_larger_than_a_block_beside_the_rows(one_device):
    blocks, rows, width, clusters = 64, 4096, 8, 1000

    def abstract(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype)

    pool = PoolRows(abstract(blocks, rows, width), abstract(blocks, rows, dtype=bool))  # type: ignore
    seeds, label = abstract(clusters, dtype=int), abstract(blocks, rows, dtype=int)
    traced = {
        rows * clusters: jax.make_jaxpr(lambda a, b: lloyd(a, b, 1.0, 1.0, one_device))(
            pool, seeds
        ),
        rows * (rows + 20): jax.make_jaxpr(lambda a, b: neighbour_distances(a, b, one_device))(
            pool, label
        ),
    }
    assert blocks * rows * width < rows * clusters
    for limit, jaxpr in traced.items():
        assert max(size for size, _ in sizes(jaxpr.jaxpr)) == limit


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
