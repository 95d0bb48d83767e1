"""Trains a model in a stage's folder, as every training stage does."""

import dataclasses
import shutil
from collections.abc import Sequence
from typing import Annotated, Any

import jax

from bridge_jax import timing
from bridge_jax.config import RunConfig, TrainConfig
from bridge_jax.config.fields import UNKEYED
from bridge_jax.models import costs, lora
from bridge_jax.parallel import hosts, preemption
from bridge_jax.pipeline import content
from bridge_jax.pipeline.artifacts import PARAMS, SIZES, VALUES
from bridge_jax.pipeline.models import Model
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text import prompts
from bridge_jax.text.packing import pack
from bridge_jax.training.batches import batches, steps_per_epoch
from bridge_jax.training.checkpoints import STATE, save_params
from bridge_jax.training.loop import train
from bridge_jax.training.objectives import Objective
from bridge_jax.training.objectives.sft import SFT


@dataclasses.dataclass(frozen=True)
class Fit:
    """How a model is trained.

    Attributes:
      train: batches, steps and rates.
      seed: of the batch order and of dropout.
      objective: what is minimised.
      setting: where the config has `train`, for messages.
      tensorboard: write the curves for TensorBoard too.
    """

    train: TrainConfig
    seed: int
    objective: Objective
    setting: Annotated[str, UNKEYED] = ""
    tensorboard: Annotated[bool, UNKEYED] = False


def fit_of(config: RunConfig, setting: str) -> Fit:
    """Returns how the training under a key of the config, such as "warmup.train", is done."""
    found: Any = config
    for name in setting.split("."):
        found = getattr(found, name)
    objective = SFT(found.rationale_weight)
    return Fit(found, config.seed, objective, setting, config.tensorboard)


def fit(
    out: Folder, name: str, model: Model, sequences: Sequence[prompts.Sequence], how: Fit
) -> None:
    """Trains `model` (its parameters are consumed) and writes them to `out`."""
    trained, frozen = lora.split(model.params) if model.config.lora else (model.params, {})
    out.write_record(SIZES.name, {"trained": _size_of(trained), "frozen": _size_of(frozen)})
    path = out.path / PARAMS.name
    # It is there when a run was killed right after it had written it.
    if not hosts.agree(path.is_dir()):
        config = how.train
        rows = pack(sequences, config.row_tokens, model.tokenizer.pad_id)
        flops = costs.model_flops(model.config, 1, config.row_tokens, rows.target.shape[1])
        with preemption.deferred():  # A notice in the last step waits for the parameters.
            params = train(
                out.path,
                name,
                model.config,
                model.params,
                how.objective,
                batches(rows, config.batch_rows, config.epochs, how.seed),
                steps_per_epoch(rows, config.batch_rows) * config.epochs,
                config,
                how.seed,
                model.mesh,
                how.tensorboard,
                # As if every place in the rows held a token.
                flops_per_token=flops / config.row_tokens,
            )
            with timing.span("checkpoint"):
                # Before the parameters, which say by being there that all is.
                out.write_record(VALUES.name, {"sha256": content.of_params(params)})
                save_params(path, params)
    if hosts.is_first():
        shutil.rmtree(out.path / STATE, ignore_errors=True)


def _size_of(params: Any) -> dict[str, int]:
    leaves = jax.tree.leaves(params)
    return {
        "parameters": sum(leaf.size for leaf in leaves),
        "bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
    }
