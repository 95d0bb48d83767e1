"""Selections of hand-made pools."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from bridge_jax.config import SelectionConfig
from bridge_jax.errors import UserError
from bridge_jax.selection.strategies import cluster, cover, quotas, rank_within, select

TOP = SelectionConfig(strategy="difficulty", noise_fraction=0.0)
COVERAGE = SelectionConfig(strategy="coverage", noise_fraction=0.0)
RANDOM = SelectionConfig(strategy="random")


def unit(degrees):
    """Returns f64[N, 2]: unit vectors at these angles."""
    angle = np.deg2rad(np.asarray(degrees, float))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def blobs(sizes, seed=0, spread=1.0):
    """Returns embeddings around 0, 120 and 240 degrees, and the blob of each."""
    truth = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(seed)
    truth = rng.permutation(truth)
    return unit(truth * 120 + rng.uniform(-spread, spread, len(truth))), truth


def test_difficulty_takes_the_hardest_and_the_earlier_of_equals():
    difficulty = np.array([1.0, 3.0, 2.0, 3.0, 0.5, 2.0])
    result = select(difficulty, unit(np.zeros(6)), 4, TOP, seed=0)
    assert result.chosen == [1, 3, 2, 5]
    assert result.set_aside == []
    assert result.clusters is None


def test_the_hardest_are_set_aside_as_noise():
    difficulty = np.arange(20.0)
    config = SelectionConfig(strategy="difficulty", noise_fraction=0.1)
    result = select(difficulty, unit(np.zeros(20)), 3, config, seed=0)
    assert result.set_aside == [19, 18]
    assert result.chosen == [17, 16, 15]


def test_coverage_sets_noise_aside_and_gives_it_no_cluster():
    embeddings, _ = blobs([10, 10])
    config = SelectionConfig(strategy="coverage", noise_fraction=0.1)
    result = select(np.arange(20.0), embeddings, 10, config, seed=0)
    assert result.set_aside == [19, 18]
    assert result.clusters is not None
    assert result.clusters[[18, 19]].tolist() == [-1, -1]
    assert set(result.clusters[:18].tolist()) == {0, 1}
    assert not set(result.chosen) & {18, 19}


def test_random_sets_nothing_aside():
    config = SelectionConfig(strategy="random", noise_fraction=0.5)
    result = select(np.arange(6.0), unit(np.zeros(6)), 6, config, seed=0)
    assert result.set_aside == []
    assert sorted(result.chosen) == list(range(6))


@pytest.mark.parametrize(
    ("sizes", "weights", "budget", "expected"),
    [
        ([10, 10, 10], [6, 3, 1], 10, [6, 3, 1]),
        # 1 each, then 5 more for the deficits of 7.5 - 1, 0.5 and 0: none for the small ones.
        ([10, 10, 10], [15, 1, 0], 8, [6, 1, 1]),
        # Largest remainder: ideals 3.5, 2.1, 1.4.
        ([9, 9, 9], [5, 3, 2], 7, [4, 2, 1]),
        # A cluster is no larger than its size; the rest goes to the others by weight.
        ([2, 10, 10], [8, 1, 1], 10, [2, 4, 4]),
        # Fewer than clusters: the heaviest.
        ([5, 5, 5], [1, 3, 2], 2, [0, 1, 1]),
        # Every example of every cluster.
        ([3, 1, 2], [1, 1, 1], 6, [3, 1, 2]),
        # No weight at all: evenly.
        ([4, 4], [0, 0], 4, [2, 2]),
    ],
)
def test_quotas_by_hand(sizes, weights, budget, expected):
    found = quotas(np.array(sizes), np.array(weights, float), budget)
    assert found.tolist() == expected


@given(
    st.lists(st.tuples(st.integers(1, 12), st.floats(0, 50)), min_size=1, max_size=8),
    st.floats(0, 1),
)
def test_quotas_spend_the_budget_within_sizes(clusters, share):
    sizes = np.array([size for size, _ in clusters])
    weights = np.array([weight for _, weight in clusters])
    budget = max(1, round(share * sizes.sum()))
    found = quotas(sizes, weights, budget)
    assert found.sum() == budget
    assert (found <= sizes).all()
    assert (found >= (1 if budget >= len(sizes) else 0)).all()


def test_clusters_are_those_of_scikit_learn_and_of_the_data():
    embeddings, truth = blobs([12, 7, 9])
    labels = cluster(embeddings, budget=15, seed=0)
    reference = KMeans(3, n_init=10, random_state=99).fit_predict(embeddings)
    assert adjusted_rand_score(labels, reference) == 1
    assert adjusted_rand_score(labels, truth) == 1


@pytest.mark.parametrize(("budget", "expected"), [(1, 1), (9, 1), (10, 2), (24, 4)])
def test_the_number_of_clusters_is_a_fifth_of_the_budget(budget, expected):
    embeddings = np.random.default_rng(0).normal(size=(30, 4))
    assert len(set(cluster(embeddings, budget, 0).tolist())) == expected


def test_cover_prefers_hard_and_far():
    # Angles 0, 10, 90, 180; ranks 1, 2/3, 1/3, 0; distance of unit vectors = 2 sin(angle / 2),
    # halved. First 0, the hardest. Then with w = 1/2:
    #   1: 1/3 + 0.087 / 2 = 0.377;  2: 1/6 + 0.707 / 2 = 0.520;  3: 0 + 1 / 2 = 0.5  -> 2
    #   1: 0.377;  3: its distance to 2 is 0.707: 0.354  -> 1, then 3.
    difficulty = np.array([4.0, 3.0, 2.0, 1.0])
    embeddings, one = unit([0, 10, 90, 180]), np.zeros(4, int)
    assert cover(difficulty, embeddings, one, 4, 0.5).tolist() == [0, 2, 1, 3]
    assert cover(difficulty, embeddings, one, 4, 1.0).tolist() == [0, 1, 2, 3]
    # Distance alone: the far end, then the middle, which is 0.707 from both.
    assert cover(difficulty, embeddings, one, 4, 0.0).tolist() == [0, 3, 2, 1]


def test_cover_takes_turns_between_clusters():
    difficulty = np.array([9.0, 8, 7, 3, 2, 1])
    labels = np.array([0, 0, 0, 1, 1, 1])
    embeddings = unit([0, 1, 2, 180, 181, 182])
    chosen = cover(difficulty, embeddings, labels, 4, 1.0)
    # Masses 24 and 6: 3 (of 4.8 * 4 / 6 = 3.2) and 1; both clusters are in every prefix of two.
    assert chosen.tolist() == [0, 3, 1, 2]


def test_a_copy_of_a_chosen_one_is_chosen_last_but_not_dropped():
    # 0 and 1 are the same question, both the hardest; asking twice would waste a query.
    difficulty = np.array([9.0, 9.0, 3.0, 2.0, 1.0])
    embeddings, one = unit([0, 0, 20, 30, 40]), np.zeros(5, int)
    order = cover(difficulty, embeddings, one, 5, 0.5).tolist()
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert {order[0], order[-1]} == {0, 1}
    # Also when the scores of the copies differ by the rounding of two batch shapes.
    embeddings[1] += 1e-7
    assert cover(difficulty, embeddings, one, 5, 0.5).tolist() == order


def test_copies_only_are_all_chosen():
    result = select(np.ones(6), unit(np.zeros(6)), 6, COVERAGE, seed=0)
    assert sorted(result.chosen) == list(range(6))


def test_coverage_represents_every_blob_where_difficulty_alone_does_not():
    embeddings, truth = blobs([20, 20, 20])
    difficulty = np.where(truth == 0, 10.0, 1.0) + np.arange(60) / 1000
    top = select(difficulty, embeddings, 15, TOP, seed=0)
    spread = select(difficulty, embeddings, 15, COVERAGE, seed=0)
    assert set(truth[top.chosen]) == {0}
    # Masses 10 : 1 : 1 of 15, at least one each.
    counts = np.bincount(truth[spread.chosen])
    assert counts[0] > counts[1:].max() >= 1
    assert counts.min() >= 1


@pytest.mark.parametrize("config", [TOP, COVERAGE, RANDOM], ids=lambda c: c.strategy)
def test_the_whole_pool_can_be_chosen_and_no_more(config):
    embeddings, _ = blobs([6, 6, 6])
    difficulty = np.arange(18.0)
    chosen = select(difficulty, embeddings, 18, config, seed=0).chosen
    assert sorted(chosen) == list(range(18))
    with pytest.raises(UserError, match=r"budget\.queries=19 exceeds the 18 examples"):
        select(difficulty, embeddings, 19, config, seed=0)


def test_what_is_set_aside_cannot_be_bought():
    config = SelectionConfig(strategy="difficulty", noise_fraction=0.25)
    with pytest.raises(UserError, match=r"budget\.queries=7 exceeds the 6 .*\(2 set aside\)"):
        select(np.arange(8.0), unit(np.zeros(8)), 7, config, seed=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_an_error(bad):
    difficulty, embeddings = np.arange(6.0), unit(np.zeros(6))
    difficulty[2] = bad
    with pytest.raises(UserError, match="1 scores of the pool are not finite"):
        select(difficulty, embeddings, 2, TOP, seed=0)
    embeddings[4, 1] = bad
    with pytest.raises(UserError, match="2 scores of the pool are not finite"):
        select(difficulty, embeddings, 2, TOP, seed=0)


@pytest.mark.parametrize("config", [TOP, RANDOM], ids=lambda c: c.strategy)
def test_smaller_budgets_are_prefixes(config):
    rng = np.random.default_rng(3)
    difficulty, embeddings = rng.integers(0, 5, 30).astype(float), rng.normal(size=(30, 3))
    whole = select(difficulty, embeddings, 25, config, seed=4).chosen
    for budget in (1, 7, 24):
        assert select(difficulty, embeddings, budget, config, seed=4).chosen == whole[:budget]


@pytest.mark.parametrize("config", [TOP, COVERAGE, RANDOM], ids=lambda c: c.strategy)
def test_the_seed_decides(config):
    rng = np.random.default_rng(3)
    difficulty, embeddings = rng.normal(size=40), rng.normal(size=(40, 3))
    one, again, other = (
        select(difficulty, embeddings, 20, config, seed).chosen for seed in (0, 0, 1)
    )
    assert one == again
    assert len(set(one)) == 20
    if config is RANDOM:
        assert one != other


def test_difficulty_within_a_label_does_not_prefer_rare_labels():
    # Every "no" is harder than every "yes", as after a warm-up that has seen mostly "yes".
    labels = ["yes"] * 6 + ["no"] * 3
    difficulty = np.array([0.1, 0.6, 0.2, 0.5, 0.3, 0.4, 3.0, 1.0, 2.0])
    ranks = rank_within(labels, difficulty)
    np.testing.assert_allclose(ranks[:6], np.array([1, 6, 2, 5, 3, 4]) / 7)
    np.testing.assert_allclose(ranks[6:], np.array([3, 1, 2]) / 4)
    hardest = {labels[i] for i in np.argsort(-difficulty)[:3]}
    assert hardest == {"no"}
    assert [labels[i] for i in np.argsort(-ranks)[:3]] == ["yes", "no", "yes"]
    assert select(difficulty, unit(np.zeros(9)), 3, TOP, 0, labels).chosen == [1, 6, 3]
    plain = dataclasses.replace(TOP, within_labels=False)
    assert select(difficulty, unit(np.zeros(9)), 3, plain, 0, labels).chosen == [6, 8, 7]
    # One label is the plain order.
    np.testing.assert_array_equal(
        np.argsort(rank_within([""] * 9, difficulty)), np.argsort(difficulty)
    )
