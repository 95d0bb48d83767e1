"""A plan as a table for people and as JSON for programs."""

import math
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from bridge_jax.phases.context import Run
from bridge_jax.planning.plan import HEADROOM, StagePlan
from bridge_jax.planning.workload import Spending
from bridge_jax.progress import duration
from bridge_jax.roofline.chips import GIB


def to_json(stages: list[StagePlan], spending: Spending, topology: str) -> dict[str, Any]:
    """Returns what `launch.plan --json` prints."""
    return {
        "stages": [stage.to_json() for stage in stages],
        "teacher": spending._asdict(),
        "topology": topology,
    }


def show(
    console: Console, run: Run, stages: list[StagePlan], spending: Spending, topology: str
) -> None:
    """Prints the plan."""
    mesh = " ".join(f"{axis}={size}" for axis, size in run.mesh.shape.items())
    console.print(f"[bold]{run.config.name}[/] on {topology}, mesh {mesh}\n")
    table = Table(box=None, pad_edge=False)
    for name in ("stage", "steps", "parameters", "optimizer", "cache", "temporary", "GiB a chip",
                 "of", "fits", "at least", "bound by"):  # fmt: skip
        table.add_column(name, justify="left" if name in ("stage", "bound by") else "right")
    for stage in stages:
        kinds = stage.memory
        parts = (kinds.parameters, kinds.optimizer, kinds.cache, kinds.temporary + kinds.program)
        free = 1 - kinds.total / stage.hbm
        fits = f"[green]{free:.0%} free[/]" if stage.fits else f"[red]{-free:.0%} over[/]"
        table.add_row(
            stage.work.stage, f"{stage.work.steps:,}", *(_gib(part) for part in parts),
            _gib(kinds.total), _gib(stage.hbm), fits, duration(stage.seconds), stage.bound_by,
        )  # fmt: skip
    console.print(table)
    total = sum(stage.seconds for stage in stages)
    console.print(f"\nTime     at least {duration(total)} of work, {total / 3600:.2f} h")
    console.print(
        f"Teacher  {spending.queries:,} queries, about {spending.input_tokens:,} tokens in and "
        f"{spending.output_tokens:,} out: ${spending.usd:,.4f} "
        f"(${spending.usd_low:,.4f} to ${spending.usd_high:,.4f}); the cap is "
        f"${run.config.budget.usd:,.4f}"
    )
    console.print("Nothing was run or paid.")


def show_proposal(console: Console, stage: StagePlan, found: Iterable[tuple[str, int]]) -> None:
    """Prints the largest batches of a training stage."""
    words = []
    for policy, rows in found:
        words.append(f"{rows} rows with remat={policy}" if rows else f"none with remat={policy}")
    console.print(
        f"{stage.work.stage}: the largest micro-batch within {HEADROOM:.0%} of the memory: "
        + ", ".join(words)
    )


def _gib(size: float) -> str:
    gib = size / GIB
    return "-" if gib == 0 else f"{gib:.{2 if gib < 10 else 1}f}" if math.isfinite(gib) else "?"
