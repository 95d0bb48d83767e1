"""Plans time, dollars and disk of a study; stages and answers that runs share are counted once.

Nothing is compiled, so memory is not planned here: that of a run is in the plan of its config.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console

from bridge_jax import shown
from bridge_jax.config import RunConfig
from bridge_jax.methods import inputs
from bridge_jax.models import decoder
from bridge_jax.models.config import DecoderConfig
from bridge_jax.parallel.chips import GIB, Chip
from bridge_jax.pipeline.content import Hashes, of_value
from bridge_jax.pipeline.stages import Input, deep_keys, keyed_values
from bridge_jax.planning import plan
from bridge_jax.planning.spending import expected
from bridge_jax.planning.workload import Lengths, TrainingWork, opened, workloads
from bridge_jax.progress import duration

_BYTES = 4  # of a stored parameter
_TEACHER = ("queries", "input_tokens", "output_tokens", "usd")


@dataclasses.dataclass
class StageTotal:
    """A stage over all runs.

    Attributes:
      runs: how many runs have it.
      made: how often it is executed: once for all that share it.
      seconds: of work at least, over all executions.
      alone: if each run executed it.
      disk: bytes of the models that it writes.
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
      teacher: an upper bound on queries, tokens and dollars of all runs together, as selections
        overlap; no question is asked twice.
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

    @property
    def seconds_alone(self) -> float:
        """If each run executed all of its stages."""
        return sum(stage.alone for stage in self.stages.values())

    @property
    def disk_gib(self) -> float:
        """Of models."""
        return sum(stage.disk for stage in self.stages.values()) / GIB

    def to_json(self, topology: str) -> dict[str, Any]:
        """Returns the plan as `launch.plan --json` prints it for a study."""
        return {
            **dataclasses.asdict(self),
            "seconds": self.seconds,
            "seconds_alone": self.seconds_alone,
            "disk_gib": self.disk_gib,
            "topology": topology,
        }


def plan_study(configs: Sequence[RunConfig], devices: Any, chip: Chip) -> StudyPlan:
    """Returns the plan of runs that share a store of stages and a ledger."""
    totals: dict[str, StageTotal] = {}
    known: dict[tuple[str, str], float] = {}
    # Key of the requests to a pool -> the pool's size, and the bill of each selection.
    asked: dict[str, tuple[int, dict[tuple[str, ...], Mapping[str, float]]]] = {}
    alone: list[Mapping[str, float]] = []
    hashes = Hashes()
    for config in configs:
        stages, lengths = opened(config, devices, hashes)
        mesh, table = lengths.inputs.mesh, _inputs(lengths)
        deep = deep_keys(stages, table)
        new = {name for name, key in deep.items() if (name, key) not in known}
        for work in workloads(stages, lengths, new):
            model = plan.decoder_config(getattr(config, work.role), mesh)
            _, seconds, _ = plan.work_time(work, model, mesh, chip)
            known[work.stage, deep[work.stage]] = seconds
            total = totals.setdefault(work.stage, StageTotal())
            total.made += 1
            total.seconds += seconds
            if isinstance(work, TrainingWork):
                total.disk += _BYTES * _trained(model)
        for name, key in deep.items():
            if (name, key) in known:
                totals[name].runs += 1
                totals[name].alone += known[name, key]
        for stage in stages:
            if stage.artifact.work == "ask" and stage.load:
                alone.append(expected([stage], lengths)._asdict())
                pool = of_value([keyed_values(stage.params), table[inputs.POOL].key()])
                size = lengths.pool_size * stage.load.samples
                chosen = tuple(deep[name] for name in stage.reads.values() if name in deep)
                asked.setdefault(pool, (size, {}))[1][chosen] = alone[-1]
    teacher = []
    for size, bills in asked.values():  # Distinct selections of a pool ask at most all of it.
        total = _sum(bills.values())
        share = min(1.0, size / max(1, total["queries"]))
        teacher.append({name: value * share for name, value in total.items()})
    return StudyPlan(len(configs), totals, _sum(teacher), _sum(alone))


def _inputs(lengths: Lengths) -> Mapping[str, Input]:
    """Returns the inputs of a run; the key of data that are not read is that of their source."""
    table = lengths.inputs.table
    if lengths.pool:
        return table
    # Neither changes an example: whether labels are known, and which rationale is used.
    config = lengths.config
    data = dataclasses.replace(config.data, labelled=True, rationale="")
    seed = config.seed if data.source == "practice" else 0

    def settings() -> str:
        return of_value([keyed_values(data), sorted(table[inputs.POOL].files().values()), seed])

    data_of_run = (inputs.POOL, inputs.TEST, inputs.RECORDED)
    return {**table, **{n: dataclasses.replace(table[n], key=settings) for n in data_of_run}}


def _trained(model: DecoderConfig) -> int:
    """Returns how many parameters a stage trains, and writes: all, or the adapter's."""
    frozen = decoder.count_parameters(dataclasses.replace(model, lora=None)) if model.lora else 0
    return decoder.count_parameters(model) - frozen


def _sum(bills: Iterable[Mapping[str, float]]) -> dict[str, float]:
    bills = list(bills)
    return {name: sum(bill[name] for bill in bills) for name in _TEACHER}


def show(console: Console, name: str, planned: StudyPlan, topology: str) -> None:
    """Prints the plan."""
    shown.say(console, (name, "bold"), f": {planned.runs} runs on {topology}\n")
    table = shown.table("stage", "runs", "made", "at least", "if each made its own")
    for stage, total in planned.stages.items():
        times = (duration(total.seconds), duration(total.alone))
        table.add_row(shown.cell(stage), str(total.runs), str(total.made), *times)
    console.print(table)
    paid, each = planned.teacher, planned.teacher_alone
    shown.say(
        console,
        f"\nTime     at least {duration(planned.seconds)} of work, {planned.seconds / 3600:.2f} h; "
        f"if each run made its own {duration(planned.seconds_alone)}\n"
        f"Teacher  at most about {paid['queries']:,.0f} queries, {paid['input_tokens']:,.0f} "
        f"tokens in and {paid['output_tokens']:,.0f} out: ${paid['usd']:,.4f}; less where "
        f"selections overlap. If each run paid for itself ${each['usd']:,.4f}\n"
        f"Disk     {planned.disk_gib:.1f} GiB of models; --nokeep_models deletes those that no run "
        "needs any more\n"
        "Nothing was run or paid. Memory is in the plan of a single config.",
    )
