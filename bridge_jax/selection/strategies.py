"""Selects the examples to ask the teacher about, by one of several strategies.

A strategy returns the candidates in order, best first. Selections are nested: the first B of the
selection for a larger budget are the selection for B. The same pool and seed give the same order
on any number of devices.
"""

from collections.abc import Sequence
from typing import NamedTuple, get_args, get_type_hints

import numpy as np
from jax.sharding import Mesh
from scipy import stats

from bridge_jax.config import SelectionConfig
from bridge_jax.errors import UserError
from bridge_jax.parallel.sharding import make_mesh
from bridge_jax.selection.clusters import kmeans, typicality
from bridge_jax.selection.greedy import cover, d2_sample, farthest_first, herd

STRATEGIES: tuple[str, ...] = get_args(get_type_hints(SelectionConfig)["strategy"])
CLUSTERED = ("coverage", "typicality")
POOL_PER_CLUSTER = 100
MOST_CLUSTERS = 1000  # k-means compares all rows with all clusters; from here on it is linear in N.


class PoolSelection(NamedTuple):
    """A selection, as indices into the pool.

    Attributes:
      chosen: the B selected examples, in the order of selection.
      set_aside: the examples left out as suspected label noise.
      clusters: int[N], the cluster of each example, or None if the strategy has none.
    """

    chosen: list[int]
    set_aside: list[int]
    clusters: np.ndarray | None


def select(
    difficulty: np.ndarray,
    embeddings: np.ndarray,
    budget: int,
    config: SelectionConfig,
    seed: int,
    labels: Sequence[str] | None = None,
    gradients: np.ndarray | None = None,
    mesh: Mesh | None = None,
) -> PoolSelection:
    """Selects `budget` examples from the pool.

    Args:
      difficulty: f32[N].
      embeddings: f32[N, D], L2-normalized.
      budget: B.
      config: the strategy and its settings.
      seed: the seed of the random order, of k-means and of BADGE's draws.
      labels: the gold label of each example; with `within_labels`, the difficulty of an example is
        compared only with examples of the same label.
      gradients: f32[N, K], gradient embeddings; required by `badge`.
      mesh: the pool is split over its data axes; all devices by default.

    Raises:
      UserError: the budget exceeds the pool without the examples that are set aside, or a score is
        not finite.
    """
    scores = [a for a in (difficulty[:, None], embeddings, gradients) if a is not None]
    if bad := sum(int((~np.isfinite(a)).any(1).sum()) for a in scores):
        raise UserError(f"{bad} scores of the pool are not finite; the warm-up has diverged")
    if labels is not None and config.within_labels:
        difficulty = rank_within(labels, difficulty)
    noisy = noise_count(len(difficulty), config)
    hardest = np.argsort(-difficulty, kind="stable")
    set_aside, kept = hardest[:noisy], np.sort(hardest[noisy:])
    if budget > len(kept):
        raise UserError(
            f"budget.queries={budget} exceeds the {len(kept)} examples of the pool that can "
            f"be selected ({noisy} set aside); lower it or add data"
        )
    mesh = mesh or make_mesh()
    clusters = None
    if config.strategy in CLUSTERED:
        count = config.clusters or default_clusters(len(difficulty))
        clusters = np.full(len(difficulty), -1)
        clusters[kept] = kmeans(embeddings[kept], count, seed, mesh).labels
    match config.strategy:
        case "random":
            order = np.random.default_rng(seed).permutation(len(kept))[:budget]
        case "difficulty":
            order = np.argsort(-difficulty[kept], kind="stable")[:budget]
        case "diversity":
            order = farthest_first(embeddings[kept], budget, mesh)
        case "badge":
            assert gradients is not None, "badge needs gradients"
            order = d2_sample(gradients[kept], budget, seed, mesh)
        case "herding":
            order = herd(embeddings[kept], budget, mesh)
        case "coverage" | "typicality":
            assert clusters is not None
            order = _over_clusters(
                difficulty[kept], embeddings[kept], clusters[kept], budget, config, mesh
            )
    return PoolSelection(kept[order].tolist(), set_aside.tolist(), clusters)


def _over_clusters(
    difficulty: np.ndarray,
    embeddings: np.ndarray,
    clusters: np.ndarray,
    budget: int,
    config: SelectionConfig,
    mesh: Mesh,
) -> np.ndarray:
    """Selects B examples by `cover`; returns int[B].

    For `coverage` a cluster's mass is its size x mean difficulty (shifted to be at least 0), and
    hard examples come first. For `typicality` (TypiClust, 2202.02794) the mass is the size, and
    examples in dense regions come first. The paper has one cluster per selected example; our number
    of clusters does not depend on the budget.
    """
    if config.strategy == "coverage":
        score = difficulty
        mass = np.bincount(clusters, weights=difficulty - min(0.0, float(difficulty.min())))
    else:
        score = typicality(embeddings, clusters, mesh)
        mass = np.bincount(clusters).astype(float)
    return cover(score, embeddings, clusters, mass, budget, config.difficulty_weight, mesh)


def default_clusters(pool: int) -> int:
    """Returns the number of clusters of a pool: B / 5 if the budget B is 5% of the pool."""
    return min(MOST_CLUSTERS, max(1, pool // POOL_PER_CLUSTER))


def rank_within(labels: Sequence[str], difficulty: np.ndarray) -> np.ndarray:
    """Returns f64[N]: the rank of each example's difficulty within its label, between 0 and 1.

    The NLL of a gold label is high where the label is rare, whatever the question. Over the whole
    pool the hardest questions would all have one label, and all of the budget would go to it.

    Args:
      labels: the gold label of each example.
      difficulty: f32[N].
    """
    ranks = np.empty(len(difficulty))
    for label in set(labels):
        members = np.flatnonzero(np.asarray(labels) == label)
        ranks[members] = stats.rankdata(difficulty[members], "ordinal") / (len(members) + 1)
    return ranks


def noise_count(pool: int, config: SelectionConfig) -> int:
    """Returns the number of examples that are set aside as suspected label noise."""
    return 0 if config.strategy == "random" else int(config.noise_fraction * pool)
