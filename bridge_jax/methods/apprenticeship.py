"""The beginning of phase 1, apprenticeship (BRIDGE, 2512.20403): what the teacher is asked about.

The assistant's warm-up on labels, scores by free local inference, selection under the budget. The
teacher (`methods.annotations`) and the assistant's training (`methods.assistant`) follow.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import numpy as np
from jax.sharding import Mesh

from bridge_jax.config import RunConfig, SelectionConfig
from bridge_jax.config.fields import UNKEYED
from bridge_jax.errors import UserError
from bridge_jax.methods import guesses, names
from bridge_jax.methods.fitting import Fit, fit, fit_of
from bridge_jax.methods.teacher import selected_count
from bridge_jax.pipeline.artifacts import TRAINED, Artifact, array, record, rows
from bridge_jax.pipeline.examples import Examples
from bridge_jax.pipeline.load import Load, Padded
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.pipeline.stages import Stage
from bridge_jax.pipeline.storage import WAY_OUT, Folder
from bridge_jax.progress import track
from bridge_jax.selection.scores import gradients, score
from bridge_jax.selection.strategies import select
from bridge_jax.text.rendering import Rendering


class Score(TypedDict):
    """How difficult an example is to the warmed assistant, in nats."""

    id: str
    domain: str
    nll: float
    entropy: float
    margin: float


class Selection(TypedDict):
    """Which examples the budget is spent on."""

    strategy: str
    size: int
    ids: list[str]
    clusters: dict[str, int] | None
    set_aside: list[str]


WARMUP = Artifact("apprenticeship/warmup", "Assistant’s warm-up", "train", "assistant", TRAINED)
GUESSES = Artifact(
    "apprenticeship/guesses",
    "Answering the pool",
    "generate",
    "assistant",
    (rows(guesses.FILE, guesses.Guess),),
)
SCORES = Artifact(
    "apprenticeship/scores",
    "Scoring the pool",
    "score",
    "assistant",
    (rows("scores.jsonl", Score), array("embeddings.npy")),
)
GRADIENTS = Artifact(
    "apprenticeship/gradients",
    "Gradients of the pool",
    "score",
    "assistant",
    (array("gradients.npy"),),
)
SELECTION = Artifact(
    "apprenticeship/selection", "Selection", "select", None, (record("selection.json", Selection),)
)


@dataclasses.dataclass(frozen=True)
class Warmup:
    """Parameters of the warm-up: which examples, and how it is trained."""

    fraction: float
    domains: tuple[str, ...]
    how: Fit


def warm_up(
    params: Warmup, out: Folder, pool: Examples, assistant: RoleModel, reading: Rendering
) -> None:
    """Trains the assistant on the gold labels of a small random part of the pool."""
    labelled = reading.labelled(pool, pool.digest)
    sequences = [labelled[i] for i in drawn(pool, params.fraction, params.domains, params.how.seed)]
    fit(out, "warm-up", assistant.trainable(), sequences, params.how)


def drawn(pool: Examples, fraction: float, domains: tuple[str, ...], seed: int) -> list[int]:
    """Returns the indices of the warm-up's examples, in random order.

    Raises:
      UserError: their domains have fewer than the share of the pool that was asked for.
    """
    count = max(1, round(fraction * len(pool)))
    order = [int(i) for i in np.random.default_rng(seed).permutation(len(pool))]
    if domains:
        order = [i for i in order if pool[i].domain in domains]
    if len(order) < count:
        raise UserError(
            f"warmup.domains={','.join(domains)}: {len(order)} examples of the pool, "
            f"where warmup.fraction={fraction} asks for {count}; the pool has "
            f"{', '.join(sorted({example.domain or 'none' for example in pool}))}"
        )
    return order[:count]


def warmup(config: RunConfig) -> Stage:
    """Returns the warm-up."""
    chosen = config.warmup
    return Stage(
        WARMUP,
        warm_up,
        Warmup(chosen.fraction, chosen.domains, fit_of(config, "warmup.train")),
        {"pool": names.POOL, "assistant": names.ASSISTANT, "reading": names.TO_ASSISTANT},
        Load("pool", share=chosen.fraction, text="answer"),
    )


@dataclasses.dataclass(frozen=True)
class Scoring:
    """Parameters of the scores; the size of a batch changes no score."""

    batch_tokens: Annotated[int, UNKEYED]


def score_pool(
    params: Scoring,
    out: Folder,
    pool: Examples,
    assistant: RoleModel,
    reading: Rendering,
    warmed: Folder,
    guessed: Folder | None = None,
) -> None:
    """Scores every example of the pool with the warmed assistant."""
    result = _of_pool("scores", score, params, pool, assistant, reading, warmed, guessed)
    out.write_array("embeddings.npy", result.embeddings)
    out.write_rows(
        "scores.jsonl",
        (
            {
                "id": e.id,
                "domain": e.domain,
                "nll": float(n),
                "entropy": float(h),
                "margin": float(m),
            }
            for e, n, h, m in zip(pool, result.nll, result.entropy, result.margin)
        ),
    )


def embed_gradients(
    params: Scoring,
    out: Folder,
    pool: Examples,
    assistant: RoleModel,
    reading: Rendering,
    warmed: Folder,
    guessed: Folder | None = None,
) -> None:
    """Writes the gradient embedding of every example, which `badge` alone looks at."""
    found = _of_pool("gradients", gradients, params, pool, assistant, reading, warmed, guessed)
    out.write_array("gradients.npy", found)


def _of_pool(
    name: str,
    function: Callable[..., Any],
    params: Scoring,
    pool: Examples,
    assistant: RoleModel,
    reading: Rendering,
    warmed: Folder,
    guessed: Folder | None,
) -> Any:
    """Returns what `function` says of the pool with the warmed assistant."""
    model = assistant.load(warmed)
    sequences = guesses.to_score(pool, reading, guessed)
    with track(name, len(pool), "examples") as advance:
        return function(
            model.config,
            model.params,
            sequences,
            params.batch_tokens,
            model.tokenizer.pad_id,
            model.mesh,
            advance,
        )


def _looked_at(config: RunConfig, artifact: Artifact, run: Any, answered: Stage | None) -> Stage:
    reads = {
        "pool": names.POOL,
        "assistant": names.ASSISTANT,
        "reading": names.TO_ASSISTANT,
        "warmed": WARMUP.name,
    }
    if answered:
        reads["guessed"] = answered.name
    params = Scoring(config.selection.batch_tokens)
    load = Load("pool", text="answer", batch=Padded(params.batch_tokens))
    return Stage(artifact, run, params, reads, load)


@dataclasses.dataclass(frozen=True)
class Choosing:
    """Parameters of the selection.

    Attributes:
      how: the strategy.
      count: how many examples are chosen.
      seed: of the draw.
      labelled: whether the gold labels of the pool are known.
    """

    how: SelectionConfig
    count: int
    seed: int
    labelled: bool


def choose(
    params: Choosing,
    out: Folder,
    pool: Examples,
    mesh: Mesh,
    scored: Folder | None = None,
    graded: Folder | None = None,
) -> None:
    """Chooses the examples that the budget is spent on."""
    if scored:
        difficulty, embeddings = _difficulty(scored, params.how), scored.array("embeddings.npy")
    else:  # Random selection needs no scores.
        difficulty, embeddings = np.zeros(len(pool)), np.zeros((len(pool), 1))
    # An answer that is no label, or not known, has no group of its own: all such are one.
    known = params.labelled
    labels = [example.answer if known and example.kind == "label" else "" for example in pool]
    result = select(
        difficulty,
        embeddings,
        params.count,
        params.how,
        params.seed,
        labels,
        graded.array("gradients.npy") if graded else None,
        mesh,
    )
    ids = [example.id for example in pool]
    clusters = result.clusters
    out.write_record(
        "selection.json",
        {
            "strategy": params.how.strategy,
            "size": len(result.chosen),
            "ids": [ids[i] for i in result.chosen],
            "clusters": None if clusters is None else {k: int(c) for k, c in zip(ids, clusters)},
            "set_aside": [ids[i] for i in result.set_aside],
        },
    )


def _difficulty(scored: Folder, how: SelectionConfig) -> np.ndarray:
    found = scored.rows("scores.jsonl")
    if any(how.difficulty not in row for row in found):
        raise UserError(f"{scored.path}: scores without {how.difficulty}; {WAY_OUT}")
    return np.array([row[how.difficulty] for row in found])


def selection(config: RunConfig, scored: bool = True) -> list[Stage]:
    """Returns the selection, and before it what the strategy looks at.

    That is nothing for `random`; else the scores of the gold answers or, where the pool has none,
    of the assistant's own answers; and for `badge` the gradients.

    Args:
      config: of the run.
      scored: whether there is an assistant to score the pool, for the report if not for the choice.
    """
    how, labelled = config.selection, config.data.labelled
    plan: list[Stage] = []
    reads = {"pool": names.POOL, "mesh": names.MESH}
    if scored:
        answered = None if labelled else guesses.stage(config, GUESSES, WARMUP)
        plan += [answered] if answered else []
        plan.append(_looked_at(config, SCORES, score_pool, answered))
        if how.strategy != "random":
            reads["scored"] = SCORES.name
        if how.strategy == "badge":
            plan.append(_looked_at(config, GRADIENTS, embed_gradients, answered))
            reads["graded"] = GRADIENTS.name
    params = Choosing(
        dataclasses.replace(how, size=0), selected_count(config), config.seed, labelled
    )
    return [*plan, Stage(SELECTION, choose, params, reads)]
