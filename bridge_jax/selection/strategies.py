"""Which examples to pay for: one function a strategy, all with one signature.

A strategy returns an order of candidates, best first. Selections are nested: the first B of the
selection for a larger budget are the selection for B. The same pool and seed give the same order
on any number of devices.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from bridge_jax.config import SelectionConfig
from bridge_jax.errors import UserError
from bridge_jax.parallel.sharding import make_mesh
from bridge_jax.selection.centers import d2_sample, farthest_first
from bridge_jax.selection.coverage import cover
from bridge_jax.selection.herding import herd
from bridge_jax.selection.kmeans import kmeans
from bridge_jax.selection.typicality import typicality

POOL_PER_CLUSTER = 100
MOST_CLUSTERS = 1000  # k-means compares every row with every cluster: beyond it is linear in N.


class Selection(NamedTuple):
    """Indices into the pool.

    Attributes:
      chosen: the B selected, in the order of selection.
      set_aside: left out as suspected label noise.
      clusters: int[N], the cluster of every example, or None when the strategy has none.
    """

    chosen: list[int]
    set_aside: list[int]
    clusters: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Candidates:
    """What a strategy may look at.

    Attributes:
      difficulty: f[N].
      embeddings: f32[N, D], L2-normalised.
      gradients: f32[N, D], for `badge`.
      clusters: int[N], for the strategies in `CLUSTERED`.
    """

    difficulty: np.ndarray
    embeddings: np.ndarray
    gradients: np.ndarray | None
    clusters: np.ndarray | None


Strategy = Callable[[Candidates, int, SelectionConfig, int, Mesh], np.ndarray]


def select(
    difficulty: np.ndarray,
    embeddings: np.ndarray,
    budget: int,
    config: SelectionConfig,
    seed: int,
    labels: Sequence[str] | None = None,
    gradients: np.ndarray | None = None,
    mesh: Mesh | None = None,
) -> Selection:
    """Selects `budget` examples of the pool.

    Args:
      difficulty: f32[N].
      embeddings: f32[N, D], L2-normalised.
      budget: B.
      config: the strategy and its settings.
      seed: of the random order, of k-means and of BADGE's draws.
      labels: the gold label of each example, compared within where `within_labels` says so.
      gradients: f32[N, D], gradient embeddings; `badge` needs them.
      mesh: its data axes share the pool; all devices by default.

    Raises:
      UserError: the budget exceeds the pool (less what is set aside), or a score is not finite.
    """
    scores = [a for a in (difficulty[:, None], embeddings, gradients) if a is not None]
    if bad := sum(int((~np.isfinite(a)).any(1).sum()) for a in scores):
        raise UserError(f"{bad} scores of the pool are not finite; the warm-up has diverged")
    if labels is not None and config.within_labels:
        difficulty = rank_within(labels, difficulty)
    noisy = noise_count(len(difficulty), config)
    by_difficulty = np.argsort(-difficulty, kind="stable")
    set_aside, kept = by_difficulty[:noisy], np.sort(by_difficulty[noisy:])
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
    candidates = Candidates(
        difficulty[kept],
        embeddings[kept],
        None if gradients is None else gradients[kept],
        None if clusters is None else clusters[kept],
    )
    order = STRATEGIES[config.strategy](candidates, budget, config, seed, mesh)
    return Selection(kept[order].tolist(), set_aside.tolist(), clusters)


def by_chance(
    candidates: Candidates, budget: int, config: SelectionConfig, seed: int, mesh: Mesh
) -> np.ndarray:
    """Returns int[B]: a random order."""
    return np.random.default_rng(seed).permutation(len(candidates.difficulty))[:budget]


def by_difficulty(
    candidates: Candidates, budget: int, config: SelectionConfig, seed: int, mesh: Mesh
) -> np.ndarray:
    """Returns int[B]: the hardest first, the first of equals."""
    return np.argsort(-candidates.difficulty, kind="stable")[:budget]


def by_diversity(
    candidates: Candidates, budget: int, config: SelectionConfig, seed: int, mesh: Mesh
) -> np.ndarray:
    """Returns int[B]: k-center greedy on the embeddings, from the most central one on."""
    return farthest_first(candidates.embeddings, budget, mesh)


def by_coverage(
    candidates: Candidates, budget: int, config: SelectionConfig, seed: int, mesh: Mesh
) -> np.ndarray:
    """Returns int[B]: the hard and unlike in every cluster (our default).

    A cluster's mass is its size x mean difficulty.
    """
    difficulty, clusters = candidates.difficulty, _needed(candidates.clusters)
    above = difficulty - min(0.0, float(difficulty.min()))
    mass = np.bincount(clusters, weights=above)
    embeddings, weight = candidates.embeddings, config.difficulty_weight
    return cover(difficulty, embeddings, clusters, mass, budget, weight, mesh)


def by_typicality(
    candidates: Candidates, budget: int, config: SelectionConfig, seed: int, mesh: Mesh
) -> np.ndarray:
    """Returns int[B]: the most typical of the largest clusters first (TypiClust, 2202.02794).

    The paper has a cluster for every example that is bought. Ours do not depend on the budget, and
    a cluster's further seats go to the typical and unlike, as in `by_coverage` (our default).
    """
    embeddings, clusters = candidates.embeddings, _needed(candidates.clusters)
    density = typicality(embeddings, clusters, mesh)
    mass = np.bincount(clusters).astype(float)
    weight = config.difficulty_weight
    return cover(density, embeddings, clusters, mass, budget, weight, mesh)


def by_gradients(
    candidates: Candidates, budget: int, config: SelectionConfig, seed: int, mesh: Mesh
) -> np.ndarray:
    """Returns int[B]: BADGE (1906.03671)."""
    return d2_sample(_needed(candidates.gradients), budget, seed, mesh)


def by_herding(
    candidates: Candidates, budget: int, config: SelectionConfig, seed: int, mesh: Mesh
) -> np.ndarray:
    """Returns int[B]: herding (Welling 2009)."""
    return herd(candidates.embeddings, budget, mesh)


STRATEGIES: dict[str, Strategy] = {
    "random": by_chance,
    "difficulty": by_difficulty,
    "diversity": by_diversity,
    "coverage": by_coverage,
    "typicality": by_typicality,
    "badge": by_gradients,
    "herding": by_herding,
}
CLUSTERED = ("coverage", "typicality")


def default_clusters(pool: int) -> int:
    """Returns how many clusters a pool has, whatever the budget: B / 5 where B is 5% of it."""
    return min(MOST_CLUSTERS, max(1, pool // POOL_PER_CLUSTER))


def rank_within(labels: Sequence[str], difficulty: np.ndarray) -> np.ndarray:
    """Returns each example's difficulty as its rank within its label: f64[N], above 0 and below 1.

    The NLL of a gold label is high where the label is rare, whatever the question; over the whole
    pool the hardest questions are then all of one label, and so is all that is paid for.

    Args:
      labels: the gold label of each example.
      difficulty: f32[N].
    """
    ranks = np.empty(len(difficulty))
    for label in set(labels):
        members = np.flatnonzero(np.asarray(labels) == label)
        order = np.argsort(np.argsort(difficulty[members], kind="stable"), kind="stable")
        ranks[members] = (order + 1) / (len(members) + 1)
    return ranks


def noise_count(pool: int, config: SelectionConfig) -> int:
    """Returns how many examples of a pool are set aside as suspected label noise."""
    return 0 if config.strategy == "random" else int(config.noise_fraction * pool)


def _needed(values: np.ndarray | None) -> np.ndarray:
    assert values is not None, "this strategy needs clusters or gradients"
    return values
