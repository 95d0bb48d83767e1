"""Searches for config changes that make a stage fit on its chips."""

from collections.abc import Iterator
from typing import Any

from bridge_jax import methods
from bridge_jax.config import RunConfig
from bridge_jax.config.io import override
from bridge_jax.errors import UserError
from bridge_jax.methods.checks import trainings, validate
from bridge_jax.models.layouts import Meshes, state_bytes
from bridge_jax.parallel.chips import Chip
from bridge_jax.pipeline.artifacts import Role
from bridge_jax.planning.plan import StagePlan, decoder_config, plan_stages
from bridge_jax.planning.workload import (
    GenerationWork,
    ReadingWork,
    ScoringWork,
    TrainingWork,
    list_work,
    opened,
    part_of,
)

RANK = 16  # LoRA rank of a proposed adapter; our default.


def that_fits(
    config: RunConfig, stage: StagePlan, devices: Any, chip: Chip
) -> tuple[tuple[str, ...], StagePlan] | None:
    """Returns the first changes, in a fixed order, that make a stage fit, and its new plan.

    The stage is compiled with each, unless the training state alone does not fit, so this may take
    as long as planning it many times. Changes that do not affect results come first.

    Args:
      config: the run's config.
      stage: the plan of a stage that does not fit.
      devices: the devices planned for.
      chip: the figures of one of them.

    Returns:
      Assignments such as "mesh.fsdp=-1", and the plan; None if no changes make it fit.
    """
    role, part = stage.work.role, part_of(stage.work)
    for changes in _candidates(config, stage, len(devices)):
        try:
            changed = validate(override(config, changes), has_data=bool(config.data.path))
            stages, lengths = opened(changed, devices)
        except UserError:  # The settings are incompatible.
            continue
        works = list_work(stages, lengths, {stage.work.stage})
        asked: set[Role] = {work.role for work in works}
        meshes: dict[Role, Meshes] = {each: lengths.inputs.meshes(each) for each in asked}
        mesh = meshes[role].training
        state = state_bytes(decoder_config(changed, role, mesh), mesh)
        if isinstance(stage.work, TrainingWork) and state > chip.memory:
            continue
        planned = plan_stages(changed, works, meshes, chip)
        (found,) = (each for each in planned if part_of(each.work) == part)
        if found.fits:
            return changes, found
    return None


def _candidates(config: RunConfig, stage: StagePlan, devices: int) -> Iterator[tuple[str, ...]]:
    """Yields combinations of changes, the least costly first."""
    work = stage.work
    sharded = ("mesh.data=1", "mesh.fsdp=-1")
    match work:
        case TrainingWork():
            setting = _setting(config, work.stage)
            remat = (f"{setting}.remat=full",)
            rows = work.train.batch_rows
            micro = max(1, rows // max(1, devices))
            small = (*remat, f"{setting}.accumulate={micro}") if rows % micro == 0 else remat
            adapter = (
                () if getattr(config, work.role).lora.rank else (f"{work.role}.lora.rank={RANK}",)
            )
            yield remat
            yield small
            yield sharded
            yield (*sharded, *small)
            if adapter:
                yield (*sharded, *adapter)
                yield (*sharded, *small, *adapter)
            # With an adapter the base is not trained, so int8 is enough for it.
            if not getattr(config, work.role).lora.base:
                yield (*sharded, *small, *adapter, f"{work.role}.lora.base=int8")
            for tensor in _powers(devices):
                yield (f"mesh.tensor={tensor}", *sharded, *small, *adapter)
        case ReadingWork():  # Its rows are set by the training.
            yield sharded
        case ScoringWork():
            for share in (2, 4, 8):
                yield (f"selection.batch_tokens={max(1, config.selection.batch_tokens // share)}",)
            yield sharded
        case GenerationWork():
            batch = config.generation.batch_size
            smaller = [batch // n for n in (2, 4, 8) if batch // n]
            for rows in smaller:
                yield (f"generation.batch_size={rows}",)
            yield sharded
            for tensor in _powers(devices):
                yield (f"mesh.generation_tensor={tensor}", *sharded)
            yield ("generation.cache=int8", *(f"generation.batch_size={n}" for n in smaller[-1:]))


def _powers(devices: int) -> list[int]:
    return [2**n for n in range(1, 8) if 2**n <= devices]


def _setting(config: RunConfig, stage: str) -> str:
    """Returns the path of a stage's training settings in the config."""
    found = trainings(methods.stages(config))
    return next(spec.setting for each, spec in found if each.name == stage)
