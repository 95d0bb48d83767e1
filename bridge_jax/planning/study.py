"""Plans time, dollars and disk of a study; what runs share is counted once.

Nothing is compiled, so memory is not in it: that of a run is in the plan of its own config.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from bridge_jax import shown
from bridge_jax.config import RunConfig
from bridge_jax.methods import inputs
from bridge_jax.models import decoder
from bridge_jax.models.config import DecoderConfig
from bridge_jax.parallel.chips import GIB, Chip
from bridge_jax.pipeline import keys
from bridge_jax.pipeline.content import Hashes, of_value
from bridge_jax.pipeline.stages import Input
from bridge_jax.planning import plan, workload
from bridge_jax.planning.lengths import Lengths, opened
from bridge_jax.planning.spending import Spending, expected
from bridge_jax.progress import duration

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
    # By what is asked of which pool: the size of the pool, and what each selection costs.
    asked: dict[str, tuple[int, dict[tuple[str, ...], Spending]]] = {}
    alone: list[Spending] = []
    hashes = Hashes()
    for config in configs:
        stages, lengths = opened(config, devices, hashes)
        mesh, table = lengths.inputs.mesh, _inputs(lengths)
        deep = keys.deep_keys(stages, table)
        new = {name for name, key in deep.items() if (name, key) not in known}
        for work in workload.workloads(stages, lengths, new):
            model = plan.decoder_config(getattr(config, work.role), mesh)
            _, seconds, _ = plan.work_time(work, model, mesh, chip)
            known[work.stage, deep[work.stage]] = seconds
            total = totals.setdefault(work.stage, StageTotal())
            total.made += 1
            total.seconds += seconds
            if isinstance(work, workload.Training):
                total.disk += _BYTES * _trained(model)
        for name, key in deep.items():
            if (name, key) in known:
                totals[name].runs += 1
                totals[name].alone += known[name, key]
        for stage in stages:
            if stage.artifact.work == "ask" and stage.load:
                spending = expected([stage], lengths)
                alone.append(spending)
                pool = of_value([keys.plain(stage.params), table[inputs.POOL].key()])
                size = lengths.pool_size * stage.load.samples
                chosen = tuple(deep[name] for name in stage.reads.values() if name in deep)
                asked.setdefault(pool, (size, {}))[1][chosen] = spending
    teacher = [_at_most(size, list(found.values())) for size, found in asked.values()]
    return StudyPlan(len(configs), totals, _sum(teacher), _sum([_of(one) for one in alone]))


def _inputs(lengths: Lengths) -> Mapping[str, Input]:
    """Returns the inputs of a run; data that are not read are known by where they come from."""
    table = lengths.inputs.table
    if lengths.pool:
        return table
    # Neither changes an example: whether labels are known, and which rationale is said.
    config = lengths.config
    data = dataclasses.replace(config.data, labelled=True, rationale="")
    seed = config.seed if data.source == "practice" else 0

    def settings() -> str:
        return of_value([keys.plain(data), sorted(table[inputs.POOL].files().values()), seed])

    data_of_run = (inputs.POOL, inputs.TEST, inputs.RECORDED)
    return {**table, **{n: dataclasses.replace(table[n], key=settings) for n in data_of_run}}


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
