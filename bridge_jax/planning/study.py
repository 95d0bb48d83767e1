"""What a study needs before it is run: time, dollars and disk, with what runs share counted once.

Nothing is compiled, so memory is not in it: that of a run is in the plan of its own config.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bridge_jax import config_io, shown
from bridge_jax.config import RunConfig
from bridge_jax.models import decoder
from bridge_jax.models.config import DecoderConfig
from bridge_jax.phases.apprenticeship import ANNOTATIONS
from bridge_jax.phases.context import Run
from bridge_jax.phases.plan import stages
from bridge_jax.phases.stages import fingerprints
from bridge_jax.planning import plan, workload
from bridge_jax.planning.lengths import Lengths
from bridge_jax.planning.spending import Spending, expected
from bridge_jax.progress import duration
from bridge_jax.roofline.chips import GIB, Chip

_BYTES = 4  # of a parameter, as it is kept


@dataclasses.dataclass
class StageTotal:
    """A stage over all runs.

    Attributes:
      runs: how many runs have it.
      made: how often it is made: once for all that share it.
      seconds: of work at least, all of those made.
      alone: if each run made its own.
      disk: bytes of the models that it leaves.
    """

    runs: int = 0
    made: int = 0
    seconds: float = 0.0
    alone: float = 0.0
    disk: float = 0.0


@dataclasses.dataclass(frozen=True)
class StudyPlan:
    """A study on one mesh.

    Attributes:
      runs: how many.
      stages: by name, those that run a model.
      teacher: what all runs together ask at most, as selections overlap; no question twice.
      teacher_alone: if each run paid for itself.
    """

    runs: int
    stages: dict[str, StageTotal]
    teacher: dict[str, float]
    teacher_alone: dict[str, float]

    @property
    def seconds(self) -> float:
        """Of work, at least."""
        return sum(stage.seconds for stage in self.stages.values())

    def to_json(self, topology: str) -> dict[str, Any]:
        """Returns what `launch.plan --json` prints of a study."""
        return {
            "runs": self.runs,
            "stages": {name: dataclasses.asdict(total) for name, total in self.stages.items()},
            "teacher": self.teacher,
            "teacher_alone": self.teacher_alone,
            "seconds": self.seconds,
            "seconds_alone": sum(stage.alone for stage in self.stages.values()),
            "disk_gib": sum(stage.disk for stage in self.stages.values()) / GIB,
            "topology": topology,
        }


def plan_study(configs: Sequence[RunConfig], devices: Any, chip: Chip) -> StudyPlan:
    """Returns the plan of runs that share a store of stages and a ledger."""
    totals: dict[str, StageTotal] = {}
    known: dict[tuple[str, str], float] = {}
    asked: dict[str, tuple[int, dict[str, Spending]]] = {}
    alone: list[Spending] = []
    for config in configs:
        run = Run(config, Path(), devices)
        prints = fingerprints(stages(config), run.describe)
        new = {name for name, key in prints.items() if (name, key) not in known}
        for work in workload.workloads(run, new):
            model = plan.decoder_config(getattr(config, work.role), run.mesh)
            _, seconds, _ = plan.work_time(config.generation, work, model, run.mesh, chip)
            known[work.stage, prints[work.stage]] = seconds
            total = totals.setdefault(work.stage, StageTotal())
            total.made += 1
            total.seconds += seconds
            if isinstance(work, workload.Training):
                total.disk += _BYTES * _trained(model)
        for name, key in prints.items():
            if (name, key) in known:
                totals[name].runs += 1
                totals[name].alone += known[name, key]
        if ANNOTATIONS in prints:
            spending = expected(run)
            alone.append(spending)
            asked_of = ("data", "task", "seed", "teacher")
            pool = config_io.digest([run.describe(key) for key in asked_of])
            size = Lengths(run).pool_size * config.teacher.samples
            asked.setdefault(pool, (size, {}))[1][prints[ANNOTATIONS]] = spending
    teacher = [_at_most(size, list(found.values())) for size, found in asked.values()]
    return StudyPlan(len(configs), totals, _sum(teacher), _sum([_of(one) for one in alone]))


def _trained(model: DecoderConfig) -> int:
    """Returns how many parameters a stage trains, and leaves: all, or the adapter's."""
    frozen = decoder.count_parameters(dataclasses.replace(model, lora=None)) if model.lora else 0
    return decoder.count_parameters(model) - frozen


def _at_most(pool: int, spendings: Sequence[Spending]) -> dict[str, float]:
    """Returns what distinct selections of one pool cost: no more than the whole pool."""
    total = _sum([_of(one) for one in spendings])
    share = min(1.0, pool / max(1, total["queries"]))
    return {name: value * share for name, value in total.items()}


def _of(spending: Spending) -> dict[str, float]:
    names = ("queries", "input_tokens", "output_tokens", "usd")
    return {name: getattr(spending, name) for name in names}


def _sum(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    names = ("queries", "input_tokens", "output_tokens", "usd")
    return {name: sum(part[name] for part in parts) for name in names}


def show(console: Console, name: str, planned: StudyPlan, topology: str) -> None:
    """Prints the plan."""
    shown.say(console, (name, "bold"), f": {planned.runs} runs on {topology}\n")
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "runs", "made", "at least", "if each made its own"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage, total in planned.stages.items():
        times = (duration(total.seconds), duration(total.alone))
        table.add_row(shown.cell(stage), str(total.runs), str(total.made), *times)
    console.print(table)
    alone = sum(total.alone for total in planned.stages.values())
    shown.say(
        console,
        f"\nTime     at least {duration(planned.seconds)} of work, {planned.seconds / 3600:.2f} h; "
        f"if each run made its own {duration(alone)}",
    )
    paid, each = planned.teacher, planned.teacher_alone
    shown.say(
        console,
        f"Teacher  at most about {paid['queries']:,.0f} queries, {paid['input_tokens']:,.0f} "
        f"tokens in and {paid['output_tokens']:,.0f} out: ${paid['usd']:,.4f}; less where "
        f"selections overlap. If each run paid for itself ${each['usd']:,.4f}",
    )
    disk = sum(total.disk for total in planned.stages.values()) / GIB
    shown.say(
        console,
        f"Disk     {disk:.1f} GiB of models; --nokeep_models deletes what no run needs any more",
    )
    console.print("Nothing was run or paid. Memory is in the plan of a single config.")
