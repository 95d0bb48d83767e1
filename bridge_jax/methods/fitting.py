"""Trains a model in the folder of a stage; all training stages share this code."""

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
    """Parameters of a training, common to all training stages.

    Attributes:
      train: the settings of batches, steps, optimizer and checkpoints.
      seed: seeds the batch order and dropout.
      objective: the loss to minimise.
      mode, generation: the prompt mode and the settings of generation for measuring accuracy on the
        dev split; None if it is not measured.
      setting: the config key of `train`, for messages.
      curves: further places to log the curves to.
      guards: limits on logged numbers; unkeyed, so that a training can continue with others.
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
    """Returns the parameters of the training at a config key such as "warmup.train".

    Args:
      setting: the key.
      mode: the prompt mode of the trained model.
    """
    found: Any = config
    for name in setting.split("."):
        found = getattr(found, name)
    writes = found.dev_every and found.dev_metric == "accuracy"
    mode, generation = (mode, config.generation) if writes else (None, None)
    objective = SFT(found.rationale_weight)
    return TrainSpec(found, config.seed, objective, mode, generation, setting, config.curves)


def dev_reads(spec: TrainSpec) -> dict[str, str]:
    """Returns argument -> input of the dev split; {} if the training does not measure it."""
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
    """Trains `model`, whose parameters are consumed, and writes the trained ones to `out`.

    If `dev` and `reading` are given, it is measured on the examples of `dev`.
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
    """Trains `model` as `fit` does, on the batches of a feed.

    Args:
      out: the folder of the stage.
      name: the name of the training, for display.
      model: the model, whose parameters are consumed.
      open_feed: returns the feed, the number of steps, and the number of targets in a row; called
        only if anything is left to train.
      spec: the parameters of the training.
      measure: measures parameters on the dev split.
    """
    trained, frozen = projection.partition(model.config, model.params)
    out.write_record(SIZES.name, {"trained": _size_of(trained), "frozen": _size_of(frozen)})
    path = out.path / PARAMS.name
    # The parameters are there already if a run was killed right after writing them.
    if not hosts.broadcast(path.is_dir()):
        config = spec.train
        feed, steps, targets = open_feed()
        flops = costs.model_flops(model.config, 1, config.row_tokens, targets)
        with preemption.deferred():  # SIGTERM in the last step waits for the parameters.
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
                # Per token of a full row.
                flops_per_token=flops / config.row_tokens,
                guards=spec.guards,
            )
            with out.spans.span("checkpoint"):
                # Written before the parameters, so that the hash exists wherever they do.
                out.write_record(VALUES.name, {"sha256": content.of_params(params)})
                save_params(path, params)
    if hosts.is_first():
        shutil.rmtree(out.path / STATE, ignore_errors=True)


def dev_measure(
    spec: TrainSpec, model: Model, reading: Rendering | None, dev: Examples | None
) -> Measure | None:
    """Returns the function that measures parameters on the dev split; None without a split.

    It measures the loss of gold answers without a rationale, in nats per token, and the accuracy if
    `spec` has the settings for it.
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
