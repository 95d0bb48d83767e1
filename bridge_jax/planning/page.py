"""A plan as a table for people and as JSON for programs."""

import contextlib
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from bridge_jax import shown
from bridge_jax.config import RunConfig
from bridge_jax.models import decoder
from bridge_jax.models.config import DecoderConfig
from bridge_jax.parallel.chips import GIB
from bridge_jax.planning.memory import in_training, local_bytes
from bridge_jax.planning.plan import HEADROOM, StagePlan
from bridge_jax.planning.spending import Spending
from bridge_jax.progress import duration


def to_json(
    stages: list[StagePlan], spending: Spending, topology: str, resident: float | None
) -> dict[str, Any]:
    """Returns what `launch.plan --json` prints."""
    return {
        "stages": [stage.to_json() for stage in stages],
        "teacher": spending._asdict(),
        "topology": topology,
        "resident_gib": resident and resident / GIB,
    }


def resident(stages: list[StagePlan]) -> float | None:
    """Returns the peak resident bytes of a run on this machine's CPU; None if that is unknown.

    This process has the libraries and the compiled steps of the run; the largest stage comes on
    top of it, and its parameters once more: as they were read from the checkpoint.
    """
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        needs = [(s.memory.total + s.memory.parameters) * s.chips for s in stages]
        largest = max(needs, default=0)
        return pages * os.sysconf("SC_PAGE_SIZE") + largest
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
    table = Table(box=None, pad_edge=False)
    console.width = max(console.width, 132)  # A row is not broken, wherever it is printed.
    for name in ("stage", "steps", "parameters", "optimizer", "cache", "temporary", "GiB a chip",
                 "of", "fits", "at least", "bound by"):  # fmt: skip
        left = name in ("stage", "bound by")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for stage in stages:
        kinds = stage.memory
        parts = (kinds.parameters, kinds.optimizer, kinds.cache, kinds.temporary + kinds.program)
        free = 1 - kinds.total / stage.hbm
        fits = shown.cell(f"{free:.0%} free", "green")
        if not stage.fits:
            fits = shown.cell(f"{-free:.0%} over", "red")
        table.add_row(
            shown.cell(stage.work.stage), f"{stage.work.steps:,}", *(_gib(part) for part in parts),
            _gib(kinds.total), _gib(stage.hbm), fits, duration(stage.seconds), stage.bound_by,
        )  # fmt: skip
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


def show_proposal(console: Console, stage: StagePlan, found: Iterable[tuple[str, int]]) -> None:
    """Prints the largest batches of a training stage."""
    words = []
    for policy, rows in found:
        words.append(f"{rows} rows with remat={policy}" if rows else f"none with remat={policy}")
    shown.say(
        console,
        f"{stage.work.stage}: the largest micro-batch within {HEADROOM:.0%} of the memory: "
        + ", ".join(words),
    )


def show_shardings(console: Console, role: str, model: DecoderConfig, mesh: Mesh) -> None:
    """Prints where each parameter lies in training: its axes, the mesh axes that cut them, MiB."""
    table = Table(box=None, pad_edge=False, title=f"\n{role}", title_justify="left")
    for name in ("parameter", "shape", "cut by", "MiB a chip"):
        table.add_column(name, justify="right" if name == "MiB a chip" else "left", no_wrap=True)
    leaves = jax.tree_util.tree_leaves_with_path(decoder.abstract(in_training(model), mesh))
    for path, leaf in leaves:
        spec = leaf.sharding.spec
        cut = [axis for axis in spec if axis and mesh.shape[axis] > 1]
        table.add_row(
            jax.tree_util.keystr(path, simple=True, separator="/"),
            " x ".join(f"{size:,}" for size in leaf.shape),
            ", ".join(
                f"{axis} ({mesh.shape[axis]}) on axis {spec.index(axis)}" for axis in cut
            ) or "on every chip",
            f"{local_bytes(leaf) / 2**20:,.2f}",
        )  # fmt: skip
    console.print(table)


def _gib(size: float) -> str:
    gib = size / GIB
    return "-" if gib == 0 else f"{gib:.{2 if gib < 10 else 1}f}" if math.isfinite(gib) else "?"
