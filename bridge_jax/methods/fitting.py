"""Trains a model in a stage's folder, as every training stage does."""

import dataclasses
import shutil
from collections.abc import Sequence
from typing import Annotated, Any

import jax

from bridge_jax.config import RunConfig, TrainConfig
from bridge_jax.config.fields import UNKEYED
from bridge_jax.models import lora
from bridge_jax.parallel import hosts, preemption
from bridge_jax.pipeline import content
from bridge_jax.pipeline.artifacts import PARAMS, SIZES, VALUES
from bridge_jax.pipeline.models import Model
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text import prompts
from bridge_jax.training.checkpoints import STATE, save_params
from bridge_jax.training.loop import train


@dataclasses.dataclass(frozen=True)
class Fit:
    """How a model is trained.

    Attributes:
      train: batches, steps and rates.
      seed: of the batch order and of dropout.
      soft_weight: w in (1 - w) * NLL + w * KL, where sequences have soft targets.
      setting: where the config has `train`, for messages.
      tensorboard: write the curves for TensorBoard too.
    """

    train: TrainConfig
    seed: int
    soft_weight: float = 0.0
    setting: Annotated[str, UNKEYED] = ""
    tensorboard: Annotated[bool, UNKEYED] = False


def fit_of(config: RunConfig, setting: str) -> Fit:
    """Returns how the training under a key of the config, such as "warmup.train", is done."""
    found: Any = config
    for name in setting.split("."):
        found = getattr(found, name)
    return Fit(found, config.seed, setting=setting, tensorboard=config.tensorboard)


def fit(
    out: Folder, name: str, model: Model, sequences: Sequence[prompts.Sequence], how: Fit
) -> None:
    """Trains `model` (its parameters are consumed) and writes them to `out`."""
    trained, frozen = lora.split(model.params) if model.config.lora else (model.params, {})
    out.write_record(SIZES.name, {"trained": _size_of(trained), "frozen": _size_of(frozen)})
    path = out.path / PARAMS.name
    # It is there when a run was killed right after it had written it.
    if not hosts.agree(path.is_dir()):
        with preemption.deferred():  # A notice in the last step waits for the parameters.
            params = train(
                out.path,
                name,
                model.config,
                model.params,
                sequences,
                how.train,
                how.seed,
                model.tokenizer.pad_id,
                model.mesh,
                how.tensorboard,
                how.soft_weight,
                out.spans,
            )
            with out.spans.span("checkpoint"):
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
