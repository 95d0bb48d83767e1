"""Prints the plan of a run or a study."""

import math
from collections.abc import Iterable, Mapping

import jax
from jax.sharding import Mesh
from rich.console import Console

from bridge_jax import display
from bridge_jax.config import RunConfig
from bridge_jax.models import decoder
from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.layouts import Meshes, training_config
from bridge_jax.parallel.chips import GIB
from bridge_jax.parallel.sharding import local_bytes
from bridge_jax.pipeline.artifacts import Role
from bridge_jax.planning.plan import HEADROOM, StagePlan, StudyPlan, chip_hours
from bridge_jax.planning.workload import (
    GenerationWork,
    ReadingWork,
    ScoringWork,
    Spending,
    TrainingWork,
    Work,
)
from bridge_jax.progress import duration


def show(
    console: Console,
    config: RunConfig,
    meshes: Mapping[Role, Meshes],
    stages: list[StagePlan],
    spending: Spending,
    topology: str,
    resident: float | None,
    usd_per_chip_hour: float = 0.0,
) -> None:
    """Prints the plan of a run."""
    display.say(console, (config.name, "bold"), f" on {topology}")
    for role, (training, generation, _) in meshes.items():
        where = f"trains on the mesh {_axes(training)}, generates on {_axes(generation)}"
        display.say(console, f"{role}: {where}")
    devices = stages[0].chip.devices if stages else 1
    if devices > 1:
        display.say(console, f"each chip has {devices} devices, which share its memory equally")
    console.print()
    console.width = max(console.width, 132)  # So that rows are not wrapped.
    table = display.table("stage", "steps", "parameters", "optimizer", "cache", "temporary",
                        "GiB/chip", "limit", "fits", "at least", "bound by")  # fmt: skip
    for stage in stages:
        kinds = stage.memory
        parts = (
            kinds.parameters + kinds.held,
            kinds.optimizer,
            kinds.cache,
            kinds.temporary + kinds.program,
        )
        free = 1 - kinds.total / stage.chip.memory
        fits = display.cell(f"{free:.0%} free", "green")
        if not stage.fits:
            fits = display.cell(f"no, {-free:.0%} over", "red")
        sizes = (*parts, kinds.total, stage.chip.memory)
        gib = (_gib(stage.of_chip(size)) for size in sizes)
        name, steps = display.cell(stage.name), f"{stage.work.steps:,}"
        table.add_row(name, steps, *gib, fits, duration(stage.seconds), stage.bound_by)
    console.print(table)
    total = sum(stage.seconds for stage in stages)
    expected = sum(stage.expected for stage in stages)
    display.say(
        console,
        f"\nTime     at least {duration(total)} of work, {total / 3600:.2f} h; expected about "
        f"{duration(expected)} including compilation, at the roofline fractions measured on an "
        f"H200, excluding reading checkpoints",
    )
    hours = chip_hours(stages)
    price = f", ${hours * usd_per_chip_hour:,.2f}" if usd_per_chip_hour else ""
    display.say(
        console, f"Chips    {hours:,.2f} chip-hours{price}, excluding waits for the teacher"
    )
    for stage in stages:
        if not stage.fits:
            display.say(
                console,
                f"{stage.name} does not fit: it needs {_needs(stage)} GiB per chip; "
                f"{_way_out(stage.work)}, or --propose finds settings that fit",
            )
    if resident:
        display.say(console, f"Memory   about {resident / GIB:.1f} GiB resident at the peak")
    display.say(
        console,
        f"Teacher  {spending.queries:,} queries, about {spending.input_tokens:,} tokens in and "
        f"{spending.output_tokens:,} out: ${spending.usd:,.4f} "
        f"(${spending.usd_low:,.4f} to ${spending.usd_high:,.4f}); the cap is "
        f"${config.budget.usd:,.4f}",
    )
    console.print("Nothing was run or paid.")


def _way_out(work: Work) -> str:
    match work:
        case TrainingWork():
            return (
                "more chips on mesh.fsdp, a larger accumulate or smaller batch_rows, remat=full, "
                f"or an adapter ({work.role}.lora.rank), whose base may be "
                f"quantized ({work.role}.lora.base=int8)"
            )
        case ScoringWork():
            return "smaller selection.batch_tokens, or more chips on mesh.fsdp"
        case ReadingWork():
            return "shorter or fewer replies in a step, or more chips on mesh.fsdp"
        case GenerationWork():
            return (
                "a smaller generation.batch_size, generation.cache=int8, more chips on mesh.fsdp, "
                "or a larger mesh.generation_tensor"
            )


def _axes(mesh: Mesh) -> str:
    return " ".join(f"{axis}={size}" for axis, size in mesh.shape.items())


def _needs(stage: StagePlan) -> str:
    return " of ".join(_gib(stage.of_chip(n)) for n in (stage.memory.total, stage.chip.memory))


def _gib(size: float) -> str:
    gib = size / GIB
    return "-" if gib == 0 else f"{gib:.{2 if gib < 10 else 1}f}" if math.isfinite(gib) else "?"


def show_change(
    console: Console, stage: StagePlan, found: tuple[tuple[str, ...], StagePlan] | None
) -> None:
    """Prints the changes that make a stage fit (`planning.proposals`), or that none does."""
    if found is None:
        display.say(
            console,
            f"{stage.name}: none of the changes that were tried makes it fit; use chips "
            "with more memory, or more chips",
        )
        return
    changes, fitting = found
    flags = " ".join(f"--config.{change}" for change in changes)
    display.say(
        console,
        f"{stage.name}: needs {_needs(fitting)} GiB with {flags}",
    )


def show_proposal(console: Console, stage: StagePlan, found: Iterable[tuple[str, int]]) -> None:
    """Prints the largest micro-batch of a training stage that fits, for each remat policy."""
    words = [f"{rows or 'no'} rows with remat={policy}" for policy, rows in found]
    display.say(
        console,
        f"{stage.name}: the largest micro-batch within {HEADROOM:.0%} of the memory: "
        + ", ".join(words),
    )


def show_shardings(console: Console, role: str, model: DecoderConfig, mesh: Mesh) -> None:
    """Prints each parameter's sharding in training: shape, mesh axes, and MiB on each device."""
    table = display.table("parameter", "shape", "sharded by", "MiB/device", words=3)
    params = decoder.abstract(training_config(model), mesh)
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
            ", ".join(cuts) or "replicated",
            f"{local_bytes(leaf) / 2**20:,.2f}",
        )
    display.say(console, f"\n{role}")
    console.print(table)


def show_study(
    console: Console,
    name: str,
    planned: StudyPlan,
    topology: str,
    usd_per_chip_hour: float = 0.0,
) -> None:
    """Prints the plan of a study."""
    display.say(console, (name, "bold"), f": {planned.runs} runs on {topology}\n")
    table = display.table("stage", "runs", "made", "at least", "if not shared")
    for stage, total in planned.stages.items():
        times = (duration(total.seconds), duration(total.alone))
        table.add_row(display.cell(stage), str(total.runs), str(total.made), *times)
    console.print(table)
    paid, each = planned.teacher, planned.teacher_alone
    hours = planned.chip_hours
    price = f", ${hours * usd_per_chip_hour:,.2f}" if usd_per_chip_hour else ""
    display.say(
        console,
        f"\nTime     at least {duration(planned.seconds)} of work, {planned.seconds / 3600:.2f} h; "
        f"without sharing {duration(planned.seconds_alone)}; expected about "
        f"{duration(planned.expected)}, at the roofline fractions measured on an H200, "
        "excluding compilation\n"
        f"Chips    {hours:,.2f} chip-hours{price}, excluding waits for the teacher\n"
        f"Teacher  at most about {paid['queries']:,.0f} queries, {paid['input_tokens']:,.0f} "
        f"tokens in and {paid['output_tokens']:,.0f} out: ${paid['usd']:,.4f}; less where "
        f"selections overlap. If each run paid for itself ${each['usd']:,.4f}\n"
        f"Disk     {planned.disk_gib:.1f} GiB of models; --nokeep_models deletes those that no run "
        "needs any more\n"
        "Nothing was run or paid. Memory is in the plan of a single config.",
    )
