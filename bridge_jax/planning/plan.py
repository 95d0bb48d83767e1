"""Plans memory, time and cost of each stage before hardware is booked.

Memory is that of the compiled step; time is the roofline's lower bound (2009, Williams et al.):
the slowest of arithmetic, memory and interconnect if nothing ever waits. Real runs take longer.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from bridge_jax.config import ModelConfig, RunConfig
from bridge_jax.models import costs
from bridge_jax.models.config import DecoderConfig, computing_on
from bridge_jax.models.hub import presets
from bridge_jax.models.hub.checkpoint import kept_layers
from bridge_jax.models.hub.files import is_hub_id, locate, read_hf_config
from bridge_jax.models.hub.hf_config import cut, from_hf
from bridge_jax.parallel.chips import GIB, Chip
from bridge_jax.parallel.sharding import batch_devices, filled_rows
from bridge_jax.planning import memory
from bridge_jax.planning.workload import Generation, Scoring, Training, Work

HEADROOM = 0.9  # Of a chip's memory, at most, in what is proposed.


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """One stage on one mesh.

    Attributes:
      work: its step and how often it is taken.
      memory: on each chip.
      hbm: bytes that a chip has.
      cost: of the whole stage, over all chips.
      seconds: at least.
      bound_by: "compute", "memory" or "interconnect".
    """

    work: Work
    chips: int
    memory: memory.Memory
    hbm: float
    cost: costs.Cost
    seconds: float
    bound_by: str

    @property
    def fits(self) -> bool:
        """Whether the chip has enough."""
        return self.memory.total <= self.hbm

    def to_json(self) -> dict[str, Any]:
        """Returns the stage as DESIGN.md promises it."""
        return {
            "stage": self.work.stage,
            "role": self.work.role,
            "chips": self.chips,
            "steps": self.work.steps,
            "gib_per_chip": self.memory.total / GIB,
            "gib_by_kind": {k: v / GIB for k, v in self.memory._asdict().items()},
            "hbm_gib": self.hbm / GIB,
            "fits": self.fits,
            **self.cost._asdict(),
            "seconds": self.seconds,
            "bound_by": self.bound_by,
        }


def plan_stages(
    config: RunConfig, works: list[Work], mesh: Mesh, chip: Chip
) -> Iterator[StagePlan]:
    """Yields the plan of each stage; steps of the same shape are compiled once."""
    compiled = functools.cache(_memory)
    for work in works:
        model = decoder_config(getattr(config, work.role), mesh)
        # The stages of a role differ in name and number of steps, which is nothing to the compiler.
        shape = work._replace(stage="", steps=0)
        cost, seconds, bound_by = work_time(work, model, mesh, chip)
        needs = compiled(shape, model, mesh)
        yield StagePlan(work, mesh.size, needs, chip.memory, cost, seconds, bound_by)


def work_time(
    work: Work, model: DecoderConfig, mesh: Mesh, chip: Chip
) -> tuple[costs.Cost, float, str]:
    """Returns the cost of a whole stage, its seconds at least, and what bounds them."""
    cost = _cost(work, model, mesh).times(work.steps)
    rates = chip.flops, chip.bandwidth, chip.interconnect
    names = "compute", "memory", "interconnect"
    seconds, bound_by = max(
        (total / rate / mesh.size, name) for total, rate, name in zip(cost, rates, names)
    )
    return cost, seconds, bound_by


def decoder_config(model: ModelConfig, mesh: Mesh) -> DecoderConfig:
    """Returns a checkpoint's config, read where it lies or, for a hub id, from the presets."""
    name = model.checkpoint
    published = is_hub_id(name) and not Path(name).exists() and name in presets.PRESETS
    hf = presets.hf_config(name) if published else read_hf_config(locate(name))
    config = from_hf(cut(hf, kept_layers(model, from_hf(hf))))
    config = dataclasses.replace(config, lora=model.lora if model.lora.rank else None)
    return computing_on(config, model.attention, mesh.devices.flat[0])


def propose(
    model: DecoderConfig, work: Training, mesh: Mesh, chip: Chip
) -> Iterator[tuple[str, int]]:
    """Yields (remat policy, the largest micro-batch in rows that fits; 0 where none does).

    Memory grows by the same amount with each row, so two compilations give the slope.
    """
    parts = batch_devices(mesh)
    for policy in ("none", "dots", "full"):

        def needs(rows: int, policy: Any = policy) -> int:
            train = dataclasses.replace(work.train, batch_rows=rows, accumulate=1, remat=policy)
            return memory.train_step(model, train, work.targets, mesh, work.soft).total

        yield policy, _largest(needs, parts, HEADROOM * chip.memory)


def _largest(needs: Callable[[int], int], parts: int, room: float) -> int:
    first, second = needs(parts), needs(2 * parts)
    if first > room:
        return 0
    more = int((room - first) / max(1, second - first))
    return parts * (1 + max(0, more))


def _memory(work: Work, model: DecoderConfig, mesh: Mesh) -> memory.Memory:
    match work:
        case Training():
            return memory.train_step(model, work.train, work.targets, mesh, work.soft)
        case Scoring():
            return memory.scoring_step(model, work.rows, work.width, work.targets, mesh)
        case Generation():
            return memory.generation_step(model, work.settings, work.rows, work.width, mesh)


def _cost(work: Work, model: DecoderConfig, mesh: Mesh) -> costs.Cost:
    match work:
        case Training():
            return costs.train_step(model, work.train, work.targets, mesh)
        case Scoring():
            return costs.scoring_step(model, work.rows, work.width, work.targets, mesh)
        case Generation():
            rows, new = filled_rows(work.rows, mesh), work.settings.max_new_tokens
            return costs.generation_step(model, rows, work.width, new, mesh)
