"""Trains a model in a stage's folder, as every training stage does."""

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax

from bridge_jax.config import Curves, GenerationConfig, RunConfig, TrainConfig
from bridge_jax.config.fields import UNKEYED
from bridge_jax.data.answers import answer_of, is_correct
from bridge_jax.methods.inputs import DEV, Examples
from bridge_jax.models import costs, projection
from bridge_jax.parallel import hosts, preemption
from bridge_jax.parallel.sharding import shard_batch
from bridge_jax.pipeline import content
from bridge_jax.pipeline.artifacts import PARAMS, SIZES, VALUES
from bridge_jax.pipeline.models import Model
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text import prompts
from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import Mode
from bridge_jax.text.rendering import Rendering
from bridge_jax.training.batches import Feed, Shuffled, batches_in_order, steps_of
from bridge_jax.training.checkpoints import STATE, save_params
from bridge_jax.training.loop import Measure, train
from bridge_jax.training.objectives import Objective
from bridge_jax.training.objectives.sft import SFT
from bridge_jax.training.recorder import Guard
from bridge_jax.training.step import loss_sums


@dataclasses.dataclass(frozen=True)
class TrainSpec:
    """Parameters of a training, which every stage that trains has.

    Attributes:
      train: batches, steps and rates.
      seed: of the batch order and of dropout.
      objective: what is minimised.
      mode, generation: the prompt and the settings of generation for the accuracy on the dev
        split; None if that is not measured.
      setting: where the config has `train`, for messages.
      curves: where the curves go too.
      guards: on what is logged; they are in no key, so that a training goes on with others.
    """

    train: TrainConfig
    seed: int
    objective: Objective
    mode: Mode | None = None
    generation: GenerationConfig | None = None
    setting: Annotated[str, UNKEYED] = ""
    curves: Annotated[tuple[Curves, ...], UNKEYED] = ()
    guards: Annotated[tuple[Guard, ...], UNKEYED] = ()


def train_spec(config: RunConfig, setting: str, mode: Mode | None = None) -> TrainSpec:
    """Returns the parameters of the training under a key of the config, such as "warmup.train".

    Args:
      setting: the key.
      mode: the prompt with which the trained model is asked.
    """
    found: Any = config
    for name in setting.split("."):
        found = getattr(found, name)
    writes = found.dev_every and found.dev_metric == "accuracy"
    mode, generation = (mode, config.generation) if writes else (None, None)
    objective = SFT(found.rationale_weight)
    return TrainSpec(found, config.seed, objective, mode, generation, setting, config.curves)


def dev_reads(spec: TrainSpec) -> dict[str, str]:
    """Returns argument -> input of what a training reads to measure itself, if it does."""
    return {"dev": DEV} if spec.train.dev_every else {}


def fit(
    out: Folder,
    name: str,
    model: Model,
    sequences: Sequence[prompts.TrainingSequence],
    spec: TrainSpec,
    reading: Rendering | None = None,
    dev: Examples | None = None,
) -> None:
    """Trains `model` (its parameters are consumed) and writes them to `out`.

    It is measured on the examples of `dev`, rendered by `reading`, where these are given.
    """

    def shuffled() -> tuple[Shuffled, int, int]:
        rows = pack(sequences, spec.train.row_tokens, model.tokenizer.pad_id)
        steps = steps_of(rows, spec.train)
        feed = Shuffled(rows, spec.train.batch_rows, steps, spec.seed)
        return feed, steps, rows.target.shape[1]

    fit_from(out, name, model, shuffled, spec, dev_measure(spec, model, reading, dev))


def fit_from(
    out: Folder,
    name: str,
    model: Model,
    open_feed: Callable[[], tuple[Feed, int, int]],
    spec: TrainSpec,
    measure: Measure | None = None,
) -> None:
    """Trains `model` as `fit` does, on what a feed gives.

    Args:
      out: the folder of the stage.
      name: of the training, for people.
      model: its parameters are consumed.
      open_feed: returns the feed, the number of steps, and the targets of a row; it is called if
        there is anything left to train.
      spec: how it is trained.
      measure: measures parameters on the dev split.
    """
    trained, frozen = projection.partition(model.config, model.params)
    out.write_record(SIZES.name, {"trained": _size_of(trained), "frozen": _size_of(frozen)})
    path = out.path / PARAMS.name
    # They are there already if a run was killed right after it had written them.
    if not hosts.agree(path.is_dir()):
        config = spec.train
        feed, steps, targets = open_feed()
        flops = costs.model_flops(model.config, 1, config.row_tokens, targets)
        with preemption.deferred():  # A notice in the last step waits for the parameters.
            params = train(
                out.path,
                name,
                model.config,
                model.params,
                spec.objective,
                feed,
                steps=steps,
                config=config,
                seed=spec.seed,
                mesh=model.mesh,
                curves=spec.curves,
                spans=out.spans,
                measure=measure,
                # For each token of a full row.
                flops_per_token=flops / config.row_tokens,
                guards=spec.guards,
            )
            with out.spans.span("checkpoint"):
                # Written before the parameters: where those exist, the hash does too.
                out.write_record(VALUES.name, {"sha256": content.of_params(params)})
                save_params(path, params)
    if hosts.is_first():
        shutil.rmtree(out.path / STATE, ignore_errors=True)


def dev_measure(
    spec: TrainSpec, model: Model, reading: Rendering | None, dev: Examples | None
) -> Measure | None:
    """Returns the function that measures parameters on the dev split; None without a split.

    The loss is that of the gold answers without a rationale, in nats a token.
    """
    mode, generation = spec.mode, spec.generation
    if reading is None or dev is None:
        return None
    config, mesh, pad_id = model.config, model.mesh, model.tokenizer.pad_id
    rows = pack(reading.labelled(dev, dev.digest), spec.train.row_tokens, pad_id)

    def measure(params: Any) -> dict[str, float]:
        total = count = 0.0
        for batch in batches_in_order(rows, spec.train.batch_rows):
            sums, counts = loss_sums(SFT(), config, params, shard_batch(batch, mesh))
            total, count = total + float(sums["answer"]), count + float(counts["answer"])
        found = {"loss": total / count}
        if mode and generation:
            engine = dataclasses.replace(model, params=params).engine(generation, spec.seed)
            asked = reading.prompts(dev, dev.digest, mode)
            written = engine.complete_all([asked[i] for i in range(len(dev))])
            right = [
                is_correct(answer_of(model.tokenizer.decode(done.ids), example), example)
                for done, example in zip(written, dev)
            ]
            found["accuracy"] = sum(right) / len(right)
        return found

    return measure


def _size_of(params: Any) -> dict[str, int]:
    leaves = jax.tree.leaves(params)
    return {
        "parameters": sum(leaf.size for leaf in leaves),
        "bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
    }
