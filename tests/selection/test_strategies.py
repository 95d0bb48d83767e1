"""Selections of hand-made pools."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge_jax.config import SelectionConfig
from bridge_jax.errors import UserError
from bridge_jax.parallel.sharding import make_mesh
from bridge_jax.selection.strategies import (
    CLUSTERED,
    STRATEGIES,
    default_clusters,
    rank_within,
    select,
)
from tests.selection.pools import blobs, unit, unit_vectors

ALL = {name: SelectionConfig(strategy=name, noise_fraction=0.0) for name in STRATEGIES}
TOP, COVERAGE, RANDOM = ALL["difficulty"], ALL["coverage"], ALL["random"]
MAIN = ("coverage", "badge")
every_strategy = pytest.mark.parametrize("config", ALL.values(), ids=ALL)
# One that clusters and one that looks at gradients; the others run in CI.
main_strategies = pytest.mark.parametrize(
    "config",
    [
        pytest.param(config, id=name, marks=() if name in MAIN else pytest.mark.slow)
        for name, config in ALL.items()
    ],
)


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
    config = SelectionConfig(strategy="coverage", noise_fraction=0.1, clusters=2)
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


def test_copies_only_are_all_chosen():
    result = select(np.ones(6), unit(np.zeros(6)), 6, COVERAGE, seed=0)
    assert sorted(result.chosen) == list(range(6))


def test_coverage_represents_every_blob_where_difficulty_alone_does_not():
    embeddings, truth = blobs([20, 20, 20])
    difficulty = np.where(truth == 0, 10.0, 1.0) + np.arange(60) / 1000
    top = select(difficulty, embeddings, 15, TOP, seed=0)
    covering = dataclasses.replace(COVERAGE, clusters=3)
    spread = select(difficulty, embeddings, 15, covering, seed=0)
    assert set(truth[top.chosen]) == {0}
    # Masses 10 : 1 : 1 of 15, at least one each.
    counts = np.bincount(truth[spread.chosen])
    assert counts[0] > counts[1:].max() >= 1
    assert counts.min() >= 1


@every_strategy
def test_the_whole_pool_can_be_chosen_and_no_more(config):
    embeddings, _ = blobs([6, 6, 6])
    difficulty = np.arange(18.0)
    chosen = select(difficulty, embeddings, 18, config, seed=0, gradients=embeddings).chosen
    assert sorted(chosen) == list(range(18))
    with pytest.raises(UserError, match=r"budget\.queries=19 exceeds the 18 examples"):
        select(difficulty, embeddings, 19, config, seed=0)


@every_strategy
def test_one_example_is_a_pool(config):
    one = unit([30])
    result = select(np.ones(1), one, 1, config, seed=0, gradients=one)
    assert result.chosen == [0]


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


@main_strategies
@settings(max_examples=6, deadline=None)
@given(st.data())
def test_smaller_budgets_are_prefixes(config, data):
    """Of pools with ties and copies, in one and in several clusters."""
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6), "seed"))
    count = 40  # One size, so that few shapes are compiled.
    distinct = data.draw(st.sampled_from([1, 3, 20, 40]), "distinct")
    clusters = data.draw(st.sampled_from([1, 4]), "clusters")
    which = np.concatenate([np.arange(distinct), rng.integers(0, distinct, count - distinct)])
    embeddings = unit_vectors(distinct, 3, int(rng.integers(99)))[which]
    difficulty = rng.integers(0, 5, distinct)[which].astype(float)
    gradients = embeddings * difficulty[:, None].astype(np.float32)
    config = dataclasses.replace(config, clusters=clusters)

    def chosen(budget):
        return select(difficulty, embeddings, budget, config, 4, None, gradients).chosen

    whole = chosen(count)
    assert sorted(whole) == list(range(count))
    for budget in (1, 7, 24):
        assert chosen(budget) == whole[:budget]


# 15 blocks of 64 rows, and 8 of 8.
@pytest.mark.parametrize("count", [900, pytest.param(60, marks=pytest.mark.slow)])
@main_strategies
def test_one_device_and_all_choose_the_same(config, count, one_device):
    assert jax.device_count() == 8
    embeddings = unit_vectors(count, 20, seed=2, mean=3.0)
    embeddings[10:20] = embeddings[5]
    difficulty = np.random.default_rng(0).gamma(2, size=count)
    gradients = unit_vectors(count, 20, seed=3) * difficulty[:, None].astype(np.float32)
    config = dataclasses.replace(config, clusters=0 if count > 100 else 3)
    one, many = (
        select(difficulty, embeddings, count // 5, config, 1, None, gradients, mesh)
        for mesh in (one_device, make_mesh())
    )
    assert one.chosen == many.chosen
    assert len(set(one.chosen)) == count // 5
    if config.strategy in CLUSTERED:
        np.testing.assert_array_equal(one.clusters, many.clusters)
        assert len(set(one.clusters.tolist())) == (config.clusters or 9)  # a hundredth of the pool
    else:
        assert one.clusters is None


@every_strategy
def test_the_seed_decides(config):
    rng = np.random.default_rng(3)
    difficulty, embeddings = rng.normal(size=40), unit_vectors(40, 3)
    one, again, other = (
        select(difficulty, embeddings, 20, config, seed, gradients=embeddings).chosen
        for seed in (0, 0, 1)
    )
    assert one == again
    assert len(set(one)) == 20
    assert (one != other) == (config.strategy in ("random", "badge"))


def test_typicality_takes_the_heart_of_the_largest_cluster_first():
    # 9 around 0 degrees, the middle one at place 4; 5 around 180, the middle one at place 11.
    embeddings = unit([-8, -6, -4, -2, 0, 2, 4, 6, 8, 176, 178, 180, 182, 184])
    config = dataclasses.replace(ALL["typicality"], clusters=2)
    chosen = select(np.ones(14), embeddings, 3, config, seed=0).chosen
    assert chosen[:2] == [4, 11]
    assert chosen[2] < 9  # 9 / 3 against 5 / 3 for the next seat


def test_coverage_gives_seats_by_size_and_difficulty():
    embeddings, truth = blobs([10, 10, 10])
    difficulty = np.array([6.0, 3.0, 1.0])[truth] + np.arange(30) / 1e6
    config = dataclasses.replace(COVERAGE, clusters=3)
    chosen = select(difficulty, embeddings, 10, config, seed=0).chosen
    assert sorted(truth[chosen[:3]].tolist()) == [0, 1, 2]
    # Webster: 6, 3 and 1 of 10.
    assert np.bincount(truth[chosen]).tolist() == [6, 3, 1]


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


def test_clusters_grow_with_the_pool_up_to_a_bound():
    sizes = (20, 320, 99_999, 1_000_000)
    assert [default_clusters(size) for size in sizes] == [1, 3, 999, 1000]
