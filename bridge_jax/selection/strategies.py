"""Which examples to pay for: one function a strategy, all with one signature.

A strategy returns an order of candidates, best first. Selections are nested: the first B of the
selection for a larger budget are the selection for B, except for `coverage`, whose clusters
depend on B; there they are nested within the clusters.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans

from bridge_jax.config import SelectionConfig
from bridge_jax.errors import UserError

COPY = 1e-5  # Nearer than this is the same question; scores differ by rounding between batches.


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


def select(
    difficulty: np.ndarray,
    embeddings: np.ndarray,
    budget: int,
    config: SelectionConfig,
    seed: int,
    labels: Sequence[str] | None = None,
) -> Selection:
    """Selects `budget` examples of the pool.

    Args:
      difficulty: f32[N].
      embeddings: f32[N, D], L2-normalised.
      budget: B.
      config: the strategy and its settings.
      seed: of the random order and of k-means.
      labels: the gold label of each example, compared within where `within_labels` says so.

    Raises:
      UserError: the budget exceeds the pool (less what is set aside), or a score is not finite.
    """
    if bad := int((~np.isfinite(difficulty)).sum() + (~np.isfinite(embeddings)).any(1).sum()):
        raise UserError(f"{bad} scores of the pool are not finite; the warm-up has diverged")
    if labels is not None and config.within_labels:
        difficulty = rank_within(labels, difficulty)
    noisy = noise_count(len(difficulty), config)
    by_difficulty = np.argsort(-difficulty, kind="stable")
    set_aside, candidates = by_difficulty[:noisy], np.sort(by_difficulty[noisy:])
    if budget > len(candidates):
        raise UserError(
            f"budget.queries={budget} exceeds the {len(candidates)} examples of the pool that can "
            f"be selected ({noisy} set aside); lower it or add data"
        )
    clusters = None
    if config.strategy == "random":
        chosen = np.random.default_rng(seed).permutation(candidates)[:budget]
    elif config.strategy == "difficulty":
        chosen = candidates[np.argsort(-difficulty[candidates], kind="stable")][:budget]
    else:
        found = cluster(embeddings[candidates], budget, seed)
        chosen = candidates[
            cover(difficulty[candidates], embeddings[candidates], found, budget,
                  config.difficulty_weight)
        ]  # fmt: skip
        clusters = np.full(len(difficulty), -1)
        clusters[candidates] = found
    return Selection(chosen.tolist(), set_aside.tolist(), clusters)


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


def cluster(embeddings: np.ndarray, budget: int, seed: int) -> np.ndarray:
    """Returns int[N]: k-means labels with k = max(1, B / 5) (our default)."""
    k = max(1, budget // 5)
    kmeans = KMeans(k, n_init=4, random_state=seed)  # pyright: ignore[reportArgumentType]
    return kmeans.fit_predict(embeddings)


def quotas(sizes: np.ndarray, weights: np.ndarray, budget: int) -> np.ndarray:
    """Returns int[K] that sum to `budget`, no quota above its cluster's size.

    Largest remainder on `weights`, at least 1 for each cluster while the budget allows it.
    """
    quota = np.minimum(1, sizes) if budget >= len(sizes) else np.zeros_like(sizes)
    while (left := budget - quota.sum()) > 0:
        share = np.where(quota < sizes, weights, 0.0)
        if share.sum() == 0:
            share = (quota < sizes).astype(float)
        ideal = np.maximum(budget * share / share.sum() - quota, 0) * (quota < sizes)
        if ideal.sum() == 0:
            ideal = share
        ideal = ideal / ideal.sum() * left
        whole = np.minimum(np.floor(ideal).astype(int), sizes - quota)
        rest = left - whole.sum()
        remainder = np.where(quota + whole < sizes, ideal - whole, -1.0)
        extra = np.zeros_like(quota)
        for index in np.argsort(-remainder, kind="stable")[:rest]:
            extra[index] = remainder[index] >= 0
        quota = quota + whole + extra
    return quota


def cover(
    difficulty: np.ndarray,
    embeddings: np.ndarray,
    labels: np.ndarray,
    budget: int,
    difficulty_weight: float,
) -> np.ndarray:
    """Returns the indices of `budget` examples that are hard and unlike each other.

    Each cluster's quota is its share of size x mean difficulty. Inside a cluster the next one
    maximises w * difficulty rank + (1 - w) * distance to the chosen, both scaled to [0, 1]; the
    first has no distance and is the hardest. A copy of a chosen one comes after all others.
    """
    k = int(labels.max()) + 1
    sizes = np.bincount(labels, minlength=k)
    mass = np.bincount(labels, weights=difficulty - min(0.0, float(difficulty.min())), minlength=k)
    orders = []
    for index, quota in enumerate(quotas(sizes, mass, budget)):
        members = np.flatnonzero(labels == index)
        picked = _greedy(difficulty[members], embeddings[members], int(quota), difficulty_weight)
        orders.append(members[picked])
    # Round robin, so that a prefix of the selection covers all clusters too.
    turns = [(turn, c, i) for c, order in enumerate(orders) for turn, i in enumerate(order)]
    return np.array([i for _, _, i in sorted(turns)], int)


def _greedy(
    difficulty: np.ndarray, embeddings: np.ndarray, count: int, difficulty_weight: float
) -> list[int]:
    if count == 0:
        return []
    ranks = np.argsort(np.argsort(difficulty, kind="stable"), kind="stable")
    rank = ranks / max(1, len(ranks) - 1)
    chosen = [int(np.argmax(rank))]
    # Unit vectors are at most 2 apart.
    nearest = np.linalg.norm(embeddings - embeddings[chosen[0]], axis=1) / 2
    while len(chosen) < count:
        value = difficulty_weight * rank + (1 - difficulty_weight) * nearest
        value[nearest < COPY] -= 1
        value[chosen] = -np.inf
        best = int(np.argmax(value))
        chosen.append(best)
        nearest = np.minimum(nearest, np.linalg.norm(embeddings - embeddings[best], axis=1) / 2)
    return chosen
