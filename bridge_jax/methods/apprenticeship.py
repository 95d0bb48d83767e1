"""The first part of BRIDGE's phase 1 (2512.20403): the warm-up, scores, and the selection.

The assistant is warmed up on labels. It then scores the pool by free local inference, and the
examples that the budget is spent on are selected by these scores. With the strategy `random`
nothing is scored.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

import numpy as np
from jax.sharding import Mesh

from bridge_jax.config import GenerationConfig, RunConfig, SelectionConfig
from bridge_jax.config.fields import UNKEYED
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.generation.engine import Completion
from bridge_jax.methods import inputs
from bridge_jax.methods.fitting import TrainSpec, dev_reads, fit, train_spec
from bridge_jax.methods.inputs import Examples
from bridge_jax.methods.teacher import selected_count
from bridge_jax.pipeline.artifacts import TRAINED, Artifact, array, record, rows
from bridge_jax.pipeline.models import RoleModel, write_completions
from bridge_jax.pipeline.stages import ByLength, Stage, Workload
from bridge_jax.pipeline.storage import HINT, Folder
from bridge_jax.progress import track
from bridge_jax.selection.scores import Scores, gradients, score
from bridge_jax.selection.strategies import select
from bridge_jax.text import prompts
from bridge_jax.text.rendering import Rendering

LABEL_TOKENS = 16  # Limit of a pseudo-label; of a longer answer, the beginning is scored.


class PseudoLabel(TypedDict):
    """The tokens of the assistant's own answer to an example, including any end token."""

    id: str
    ids: list[int]


class Score(TypedDict):
    """The difficulty of an example for the assistant (after its warm-up, if it has one).

    `nll` and `entropy` are in nats per answer token; `margin` is between 0 and 1.
    """

    id: str
    domain: str
    nll: float
    entropy: float
    margin: float


class SelectionRecord(TypedDict):
    """The examples that the budget is spent on."""

    strategy: str
    size: int
    ids: list[str]
    clusters: dict[str, int] | None
    set_aside: list[str]


WARMUP = Artifact("apprenticeship/warmup", "Assistant’s warm-up", "train", "assistant", TRAINED)
PSEUDO_LABELS = Artifact(
    "apprenticeship/pseudo_labels",
    "Answering the pool",
    "generate",
    "assistant",
    (rows("pseudo_labels.jsonl", PseudoLabel),),
    version=2,  # each row has its own random stream, and rows are in order
)
SCORES = Artifact(
    "apprenticeship/scores",
    "Scoring the pool",
    "score",
    "assistant",
    (rows("scores.jsonl", Score), array("embeddings.npy")),
    version=2,  # the answer mark and the end token are not scored
)
GRADIENTS = Artifact(
    "apprenticeship/gradients",
    "Gradients of the pool",
    "score",
    "assistant",
    (array("gradients.npy"),),
    version=2,  # gradients of the head's table, without the answer mark and the end token
)
SELECTION = Artifact(
    "apprenticeship/selection",
    "Selection",
    "select",
    None,
    (record("selection.json", SelectionRecord),),
)
# In the order of reports.
UP_TO_SELECTION = (WARMUP, PSEUDO_LABELS, SCORES, GRADIENTS, SELECTION)


@dataclasses.dataclass(frozen=True)
class Warmup:
    """Parameters of the warm-up: which examples it uses, and the training settings."""

    fraction: float
    domains: tuple[str, ...]
    how: TrainSpec


def warm_up(
    params: Warmup,
    out: Folder,
    pool: Examples,
    assistant: RoleModel,
    reading: Rendering,
    dev: Examples | None = None,
) -> None:
    """Trains the assistant on the gold labels of a small random part of the pool."""
    labelled = reading.labelled(pool, pool.digest)
    sequences = [labelled[i] for i in drawn(pool, params.fraction, params.domains, params.how.seed)]
    fit(out, "warm-up", assistant.trainable(), sequences, params.how, reading, dev)


def drawn(pool: Examples, fraction: float, domains: tuple[str, ...], seed: int) -> list[int]:
    """Returns the indices of the warm-up's examples, in random order.

    Raises:
      UserError: too few examples have a gold answer, or belong to `domains`, for this fraction of
        the pool.
    """
    count = max(1, round(fraction * len(pool)))
    order = [int(i) for i in np.random.default_rng(seed).permutation(len(pool))]
    order = [i for i in order if pool[i].answer is not None]
    if len(order) < count:
        known = f"only {len(order):,}" if order else "none"
        least = f"lower it to at most {len(order) / len(pool):.3g}, or " if order else ""
        raise UserError(
            f"warmup.fraction={fraction} asks for {count:,} examples with an answer, but the pool "
            f"has {known}; {least}skip the warm-up with warmup.fraction=0"
        )
    if domains:
        order = [i for i in order if pool[i].domain in domains]
    if len(order) < count:
        raise UserError(
            f"warmup.domains={','.join(domains)}: {len(order)} examples in the pool, "
            f"but warmup.fraction={fraction} asks for {count}; the pool has the domains "
            f"{', '.join(sorted({example.domain or 'none' for example in pool}))}"
        )
    return order[:count]


def warmup_stages(config: RunConfig) -> list[Stage]:
    """Returns the warm-up stage, if the config asks for one."""
    chosen = config.warmup
    if not chosen.fraction:
        return []
    spec = train_spec(config, "warmup.train", "answer")
    params = Warmup(chosen.fraction, chosen.domains, spec)
    workload = Workload("pool", share=chosen.fraction, text="answer")
    return [Stage(WARMUP, warm_up, params, inputs.POOL_TO_ASSISTANT | dev_reads(spec), workload)]


def warmup_reads(config: RunConfig) -> dict[str, str]:
    """Returns argument -> stage of the assistant's warm-up; {} if there is none."""
    return {"warmed": WARMUP.name} if config.warmup.fraction else {}


@dataclasses.dataclass(frozen=True)
class PseudoLabelling:
    """Parameters of the pseudo-labels: how answers are generated."""

    generation: GenerationConfig


def write_pseudo_labels(
    params: PseudoLabelling,
    out: Folder,
    pool: Examples,
    assistant: RoleModel,
    reading: Rendering,
    warmed: Folder | None = None,
) -> None:
    """Writes the greedy answer of the assistant (warmed up, if it was) to every question."""
    asked = reading.prompts(pool, pool.digest, "answer")
    model = assistant.load(warmed)

    def to_row(example: Example, completion: Completion) -> dict[str, Any]:
        end = [] if completion.end is None else [completion.end]
        return {"id": example.id, "ids": [*completion.ids, *end]}

    engine = model.engine(params.generation, seed=0)  # Greedy decoding uses no seed.
    write_completions(out, "pseudo_labels.jsonl", "pseudo-labels", engine, pool, asked, to_row)


def labels_to_score(
    pool: Examples, reading: Rendering, pseudo_labels: Folder | None
) -> Sequence[prompts.TrainingSequence]:
    """Returns one sequence per example: the answer-only prompt, and a label or pseudo-label.

    Args:
      pool: the examples.
      reading: renders examples for the assistant.
      pseudo_labels: the folder of pseudo-labels; None uses the gold labels.
    """
    if pseudo_labels is None:
        return reading.own_answers(reading.labelled(pool, pool.digest))
    written = {row["id"]: row["ids"] for row in pseudo_labels.rows("pseudo_labels.jsonl")}
    asked = reading.prompts(pool, pool.digest, "answer")
    found = [prompts.TrainingSequence(ids, [], written[e.id]) for e, ids in zip(pool, asked)]
    return reading.own_answers(found)


@dataclasses.dataclass(frozen=True)
class PoolScoring:
    """Parameters of scoring; the batch size is unkeyed, since it changes no score."""

    batch_tokens: Annotated[int, UNKEYED]


def score_pool(
    params: PoolScoring,
    out: Folder,
    pool: Examples,
    assistant: RoleModel,
    reading: Rendering,
    warmed: Folder | None = None,
    pseudo_labels: Folder | None = None,
) -> None:
    """Scores every example with the assistant before the teacher is asked, or writes its gradients.

    Stage `SCORES` writes scores; stage `GRADIENTS`, which only `badge` uses, writes gradients.
    Partial results are saved as shards, and an interrupted stage resumes after the last one.
    """
    sequences = labels_to_score(pool, reading, pseudo_labels)
    model = assistant.load(warmed)
    is_score = out.artifact == SCORES
    function, name = (score, "scores") if is_score else (gradients, "gradients")
    with track(name, len(sequences), "examples") as advance:
        found: Any = function(
            model.config,
            model.params,
            sequences,
            params.batch_tokens,
            model.tokenizer.pad_id,
            model.mesh,
            advance,
            out.shards,
        )
    if is_score:
        write_scores(out, pool, found)
    else:
        out.write_array("gradients.npy", found)


def write_scores(out: Folder, pool: Examples, found: Scores) -> None:
    """Writes the embeddings, and one row of scores per example."""
    out.write_array("embeddings.npy", found.embeddings)
    measures = {"nll": found.nll, "entropy": found.entropy, "margin": found.margin}
    out.write_rows(
        "scores.jsonl",
        (
            {"id": example.id, "domain": example.domain}
            | {measure: float(values[i]) for measure, values in measures.items()}
            for i, example in enumerate(pool)
        ),
    )


@dataclasses.dataclass(frozen=True)
class Choosing:
    """Parameters of the selection.

    Attributes:
      how: the strategy and its settings.
      count: the number of examples to choose.
      seed: seeds the random choices of the strategy.
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
    difficulty, embeddings = np.zeros(len(pool)), np.zeros((len(pool), 1))  # For `random`.
    if scored:
        measure, found = params.how.difficulty, scored.rows("scores.jsonl")
        if any(measure not in row for row in found):
            raise UserError(f"{scored.path}: scores without {measure}; {HINT}")
        difficulty = np.array([row[measure] for row in found])
        embeddings = scored.array("embeddings.npy")
    # All answers that are unknown, or are not labels, form one group.
    known = params.labelled
    labels = [example.gold if known and example.kind == "label" else "" for example in pool]
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


def selection_stages(
    config: RunConfig, into: Artifact = SELECTION, count: int | None = None
) -> list[Stage]:
    """Returns the selection stage, preceded by the stages that score the pool.

    They score the gold answers or, if the pool is unlabelled, pseudo-labels; `badge` also needs the
    gradients. With the strategy `random` nothing is scored.

    Args:
      into: the artifact of the selection stage.
      count: the number of examples to select; None takes `selected_count`.
    """
    how, labelled = config.selection, config.data.labelled
    plan: list[Stage] = []
    reads = {"pool": inputs.POOL, "mesh": inputs.MESH}
    if how.strategy != "random":
        to_scores = inputs.POOL_TO_ASSISTANT | warmup_reads(config)
        if not labelled:
            size = config.generation.batch_size
            params = PseudoLabelling(GenerationConfig(LABEL_TOKENS, size, temperature=0.0))
            workload = Workload("pool", text="answer", modes=("answer",))
            plan.append(Stage(PSEUDO_LABELS, write_pseudo_labels, params, to_scores, workload))
            to_scores = to_scores | {"pseudo_labels": PSEUDO_LABELS.name}
        params = PoolScoring(how.batch_tokens)
        workload = Workload("pool", text="answer", batch=ByLength(how.batch_tokens))
        plan.append(Stage(SCORES, score_pool, params, to_scores, workload))
        reads["scored"] = SCORES.name
        if how.strategy == "badge":
            plan.append(Stage(GRADIENTS, score_pool, params, to_scores, workload))
            reads["graded"] = GRADIENTS.name
    count = selected_count(config) if count is None else count
    params = Choosing(dataclasses.replace(how, size=0), count, config.seed, labelled)
    return [*plan, Stage(into, choose, params, reads)]
