"""Plans memory, time and cost of each stage before hardware is booked, and shows the plan.

Memory is that of the compiled step; time is the roofline's lower bound (2009, Williams et al.):
the slowest of arithmetic, memory and interconnect if nothing ever waits. Real runs take longer.
"""

import contextlib
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console

from bridge_jax import shown
from bridge_jax.config import ModelConfig, RunConfig
from bridge_jax.models import costs, decoder
from bridge_jax.models.config import DecoderConfig, computing_on
from bridge_jax.models.hub import presets
from bridge_jax.models.hub.checkpoint import kept_layers
from bridge_jax.models.hub.files import is_hub_id, locate, read_hf_config
from bridge_jax.models.hub.hf_config import cut, from_hf
from bridge_jax.parallel.chips import GIB, Chip
from bridge_jax.parallel.sharding import batch_devices, filled_rows
from bridge_jax.planning import memory
from bridge_jax.planning.spending import Spending
from bridge_jax.planning.workload import GenerationWork, ScoringWork, TrainingWork, Work
from bridge_jax.progress import duration

HEADROOM = 0.9  # Of a chip's memory, at most, in a proposed batch.


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """One stage on one mesh.

    Attributes:
      work: its step and the number of steps.
      chips: of the mesh.
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
        """Returns the stage as JSON values."""
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
        # The name of a stage and its number of steps do not matter to the compiler.
        shape = work._replace(stage="", steps=0)
        cost, seconds, bound_by = work_time(work, model, mesh, chip)
        needs = compiled(shape, model, mesh)
        yield StagePlan(work, mesh.size, needs, chip.memory, cost, seconds, bound_by)


def _memory(work: Work, model: DecoderConfig, mesh: Mesh) -> memory.Memory:
    match work:
        case TrainingWork():
            return memory.train_step(model, work.train, work.targets, mesh, work.soft)
        case ScoringWork():
            return memory.scoring_step(model, work.rows, work.width, work.targets, mesh)
        case GenerationWork():
            return memory.generation_step(model, work.settings, work.rows, work.width, mesh)


def work_time(
    work: Work, model: DecoderConfig, mesh: Mesh, chip: Chip
) -> tuple[costs.Cost, float, str]:
    """Returns the cost of a whole stage, its lower bound in seconds, and the bottleneck."""
    match work:
        case TrainingWork():
            step = costs.train_step(model, work.train, work.targets, mesh)
        case ScoringWork():
            step = costs.scoring_step(model, work.rows, work.width, work.targets, mesh)
        case GenerationWork():
            rows, new = filled_rows(work.rows, mesh), work.settings.max_new_tokens
            step = costs.generation_step(model, rows, work.width, new, mesh)
    cost = step.times(work.steps)
    rates = chip.flops, chip.bandwidth, chip.interconnect
    names = "compute", "memory", "interconnect"
    seconds, bound_by = max(
        (total / rate / mesh.size, name) for total, rate, name in zip(cost, rates, names)
    )
    return cost, seconds, bound_by


def decoder_config(model: ModelConfig, mesh: Mesh) -> DecoderConfig:
    """Returns a checkpoint's config, read from its files or, for a hub id, from the presets."""
    name = model.checkpoint
    published = is_hub_id(name) and not Path(name).exists() and name in presets.PRESETS
    hf = presets.hf_config(name) if published else read_hf_config(locate(name))
    config = from_hf(cut(hf, kept_layers(model, from_hf(hf))))
    config = dataclasses.replace(config, lora=model.lora if model.lora.rank else None)
    return computing_on(config, model.attention, mesh.devices.flat[0])


def propose(
    model: DecoderConfig, work: TrainingWork, mesh: Mesh, chip: Chip
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
    return parts * (1 + max(0, int((room - first) / max(1, second - first))))


def resident(stages: list[StagePlan]) -> float | None:
    """Returns the peak resident bytes of a run on this machine's CPU; None if that is unknown.

    This process has the libraries and the compiled steps of the run; the largest stage comes on
    top of it, and its parameters once more: as they were read from the checkpoint.
    """
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        needs = [(s.memory.total + s.memory.parameters) * s.chips for s in stages]
        return pages * os.sysconf("SC_PAGE_SIZE") + max(needs, default=0)
    return None


def show(
    console: Console,
    config: RunConfig,
    mesh: Mesh,
    stages: list[StagePlan],
    spending: Spending,
    topology: str,
    resident: float | None,
) -> None:
    """Prints the plan."""
    axes = " ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    shown.say(console, (config.name, "bold"), f" on {topology}, mesh {axes}\n")
    console.width = max(console.width, 132)  # A row is not broken, wherever it is printed.
    table = shown.table("stage", "steps", "parameters", "optimizer", "cache", "temporary",
                        "GiB a chip", "of", "fits", "at least", "bound by")  # fmt: skip
    for stage in stages:
        kinds = stage.memory
        parts = (kinds.parameters, kinds.optimizer, kinds.cache, kinds.temporary + kinds.program)
        free = 1 - kinds.total / stage.hbm
        fits = shown.cell(f"{free:.0%} free", "green")
        if not stage.fits:
            fits = shown.cell(f"{-free:.0%} over", "red")
        gib = (_gib(size) for size in (*parts, kinds.total, stage.hbm))
        name, steps = shown.cell(stage.work.stage), f"{stage.work.steps:,}"
        table.add_row(name, steps, *gib, fits, duration(stage.seconds), stage.bound_by)
    console.print(table)
    total = sum(stage.seconds for stage in stages)
    shown.say(console, f"\nTime     at least {duration(total)} of work, {total / 3600:.2f} h")
    if resident:
        shown.say(console, f"Memory   about {resident / GIB:.1f} GiB resident at the peak")
    shown.say(
        console,
        f"Teacher  {spending.queries:,} queries, about {spending.input_tokens:,} tokens in and "
        f"{spending.output_tokens:,} out: ${spending.usd:,.4f} "
        f"(${spending.usd_low:,.4f} to ${spending.usd_high:,.4f}); the cap is "
        f"${config.budget.usd:,.4f}",
    )
    console.print("Nothing was run or paid.")


def _gib(size: float) -> str:
    gib = size / GIB
    return "-" if gib == 0 else f"{gib:.{2 if gib < 10 else 1}f}" if math.isfinite(gib) else "?"


def show_proposal(console: Console, stage: StagePlan, found: Iterable[tuple[str, int]]) -> None:
    """Prints the largest batches of a training stage."""
    words = [f"{rows or 'no'} rows with remat={policy}" for policy, rows in found]
    shown.say(
        console,
        f"{stage.work.stage}: the largest micro-batch within {HEADROOM:.0%} of the memory: "
        + ", ".join(words),
    )


def show_shardings(console: Console, role: str, model: DecoderConfig, mesh: Mesh) -> None:
    """Prints each parameter's sharding in training: its axes, the mesh axes that cut them, MiB."""
    table = shown.table("parameter", "shape", "cut by", "MiB a chip", words=3)
    params = decoder.abstract(memory.in_training(model), mesh)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        spec = leaf.sharding.spec
        cuts = [
            f"{axis} ({mesh.shape[axis]}) on axis {i}"
            for i, axis in enumerate(spec)
            if axis and mesh.shape[axis] > 1
        ]
        table.add_row(
            jax.tree_util.keystr(path, simple=True, separator="/"),
            " x ".join(f"{size:,}" for size in leaf.shape),
            ", ".join(cuts) or "on every chip",
            f"{memory.local_bytes(leaf) / 2**20:,.2f}",
        )
    shown.say(console, f"\n{role}")
    console.print(table)
