"""Measures how long each strategy takes to choose from a pool, and how that grows with the pool.

python -m benchmarks.selection --json        (long; --rows=20000 to begin with)

Beside it, in the same run: scikit-learn's k-means with as many restarts, and a k-center in NumPy as
one would write it first. The embeddings are drawn around a few hundred topics, about a mean that
they share, as hidden states do.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from sklearn.cluster import KMeans

from benchmarks.result import Say, result, run, spread
from bridge_jax.config import SelectionConfig
from bridge_jax.parallel.sharding import make_mesh
from bridge_jax.selection.clusters import ITERATIONS, kmeans
from bridge_jax.selection.greedy import farthest_first
from bridge_jax.selection.strategies import STRATEGIES, select

TOPICS, RESTARTS = 300, 2
BUDGET, CLUSTERS = 200, 100  # where only the pool grows


def embeddings(count: int, width: int) -> np.ndarray:
    """Returns f32[N, D], L2-normalised."""
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(TOPICS, width)).astype(np.float32)
    found = topics[rng.integers(0, TOPICS, count)]
    found += rng.standard_normal((count, width), np.float32)
    found += 2 * rng.standard_normal(width, np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    """Returns how long it took, and what it returned."""
    began = time.perf_counter()
    found = function()
    return time.perf_counter() - began, found


def choose(strategy: Any, pool: np.ndarray, budget: int, clusters: int, mesh: Mesh) -> list[int]:
    """Returns a selection; the embeddings stand for gradients too, with lengths."""
    difficulty = np.random.default_rng(1).gamma(2.0, size=len(pool))
    gradients = pool * difficulty[:, None].astype(np.float32) if strategy == "badge" else None
    config = SelectionConfig(strategy=strategy, clusters=clusters, noise_fraction=0.0)
    return select(difficulty, pool, budget, config, 0, None, gradients, mesh).chosen


def numpy_k_center(pool: np.ndarray, count: int) -> list[int]:
    """Returns k-center greedy from the row nearest the mean."""
    chosen = [int(np.argmin(np.linalg.norm(pool - pool.mean(0), axis=1)))]
    nearest = np.full(len(pool), np.inf, np.float32)
    while len(chosen) < count:
        nearest = np.minimum(nearest, np.linalg.norm(pool - pool[chosen[-1]], axis=1))
        chosen.append(int(np.argmax(nearest)))
    return chosen


def growth(pool: np.ndarray, repeats: int, mesh: Mesh, say: Say) -> dict:
    """Returns the seconds of each strategy on a quarter, a half and all of the pool."""
    found: dict[str, Any] = {}
    for size in (len(pool) // 4, len(pool) // 2, len(pool)):
        for strategy in STRATEGIES:
            once = functools.partial(choose, strategy, pool[:size], BUDGET, CLUSTERS, mesh)
            once()  # compiles
            found[f"{strategy}, {size}"] = [seconds(once)[0] for _ in range(repeats)]
            say(f"{strategy}, {size:,} rows: {spread(found[f'{strategy}, {size}'])} s")
    return found


def beside(pool: np.ndarray, repeats: int, mesh: Mesh, say: Say) -> dict:
    """Returns the seconds of k-means and k-center, ours and the usual, taken in turns."""
    restarts: Any = RESTARTS  # scikit-learn's stubs know "auto" alone
    usual = KMeans(CLUSTERS, n_init=restarts, max_iter=ITERATIONS, random_state=0)
    ways: dict[str, Callable[[], Any]] = {
        "k-means, ours": lambda: kmeans(pool, CLUSTERS, 0, mesh, RESTARTS),
        "k-means, scikit-learn": lambda: usual.fit(pool),
        "k-center, ours": lambda: farthest_first(pool, BUDGET, mesh).tolist(),
        "k-center, NumPy": lambda: numpy_k_center(pool, BUDGET),
    }
    found: dict[str, Any] = {name: [] for name in ways}
    last: dict[str, Any] = {name: way() for name, way in ways.items() if "ours" in name}
    for _ in range(repeats):
        for name, way in ways.items():
            took, last[name] = seconds(way)
            found[name].append(took)
            say(f"{name}: {took:.2f} s")
    found["inertia"] = [last["k-means, ours"].inertia / last["k-means, scikit-learn"].inertia_]
    same = np.array(last["k-center, ours"]) == np.array(last["k-center, NumPy"])
    found["same centers"] = [float(same.mean())]
    return found


def measure(rows: int, width: int, repeats: int, say: Say) -> dict:
    """Returns the result as every benchmark prints it."""
    mesh, pool = make_mesh(), embeddings(rows, width)
    compared = beside(pool, repeats, mesh, say)
    grown = growth(pool, repeats, mesh, say)
    ratios = {
        "k-means: scikit-learn / ours": _ratio(compared, "k-means, scikit-learn", "k-means, ours"),
        "k-means: inertia, ours / scikit-learn": spread(compared["inertia"]),
        "k-center: NumPy / ours": _ratio(compared, "k-center, NumPy", "k-center, ours"),
        "k-center: share of the same centers": spread(compared["same centers"]),
    }
    for strategy in STRATEGIES:
        names = f"{strategy}, {rows}", f"{strategy}, {rows // 4}"
        ratios[f"{strategy}: 4 x the rows / rows"] = _ratio(grown, *names)
    absolute: dict[str, Any] = {
        f"{name} rows: seconds": spread(values) for name, values in grown.items()
    }
    for strategy in STRATEGIES:  # at the defaults, compilation included
        took, _ = seconds(lambda s=strategy: choose(s, pool, rows // 20, 0, mesh))
        absolute[f"{strategy}, {rows} rows, 5% of them chosen: seconds"] = round(took, 2)
        say(f"{strategy}, 5% of {rows:,} rows: {took:.1f} s")
    return result("selection", ratios, absolute, f"{mesh.size} x {jax.devices()[0].device_kind}")


def _ratio(times: dict[str, list[float]], over: str, under: str) -> dict[str, float]:
    return spread([a / b for a, b in zip(times[over], times[under])])


def main() -> None:
    """Measures and prints."""

    def all_of_it(options: Any, say: Say) -> dict:
        return measure(options.rows, options.width, options.repeats, say)

    run(__doc__ or "", all_of_it, rows=100_000, width=576, repeats=3)


if __name__ == "__main__":
    main()
