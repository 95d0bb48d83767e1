"""Plans memory, time and cost of a run or a study before hardware is booked, and prints the plan.

Memory is that of the compiled step. Time is the roofline's lower bound (2009, Williams et al.): the
slowest of arithmetic, memory and interconnect, without any waiting. Real runs take longer.

In a study, stages and answers that runs share are counted once. Nothing is compiled, so the plan of
a study has no memory; that of each run's config has.
"""

import contextlib
import dataclasses
import functools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console

from bridge_jax import shown
from bridge_jax.config import RunConfig, TrainConfig
from bridge_jax.generation.engine import calls
from bridge_jax.generation.slots import BLOCK
from bridge_jax.methods import inputs
from bridge_jax.models import costs, decoder
from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.hub.checkpoint import planned_config
from bridge_jax.models.layouts import Meshes, as_generated, in_training
from bridge_jax.parallel.chips import GIB, Chip
from bridge_jax.parallel.sharding import batch_devices, local_bytes
from bridge_jax.pipeline.artifacts import Role
from bridge_jax.pipeline.content import Hashes, of_value
from bridge_jax.pipeline.stages import Input, deep_keys, keyed_values
from bridge_jax.planning import memory
from bridge_jax.planning.workload import (
    GenerationWork,
    Lengths,
    ScoringWork,
    Spending,
    TrainingWork,
    Work,
    expected,
    opened,
    workloads,
)
from bridge_jax.progress import duration

HEADROOM = 0.9  # Of a chip's memory, at most, in a proposed batch.
_PARAMETER = 4  # bytes of a stored parameter
_TEACHER = ("queries", "input_tokens", "output_tokens", "usd")


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """The plan of one stage on one mesh.

    Attributes:
      work: its step and the number of steps.
      chips: their number.
      memory: the need of each chip.
      hbm: bytes of memory of a chip.
      cost: of the whole stage, over all chips.
      seconds: the least time.
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
        """Whether the memory of a chip is enough."""
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
    config: RunConfig, works: list[Work], meshes: Mapping[Role, Meshes], chip: Chip
) -> Iterator[StagePlan]:
    """Plans each stage on its mesh. Steps that differ little are compiled once, for the largest."""
    compiled = functools.cache(_memory)
    largest: dict[Work, Work] = {}
    for work in works:
        program = _program(work)
        if _targets(work) >= _targets(largest.get(program)):
            largest[program] = work._replace(stage="", steps=0)
    for work in works:
        mesh = mesh_of(work, meshes[work.role])
        model = decoder_config(config, work.role, mesh)
        cost, seconds, bound_by = work_time(work, model, mesh, chip)
        needs = compiled(largest[_program(work)], model, mesh)
        yield StagePlan(work, mesh.size, needs, chip.memory, cost, seconds, bound_by)


def _targets(work: Work | None) -> int:
    return 0 if work is None or isinstance(work, GenerationWork) else work.targets


def _program(work: Work) -> Work:
    """Returns the work without what changes no array, and without its number of targets."""
    work = work._replace(stage="", steps=0)
    match work:
        case GenerationWork():
            return work
        case ScoringWork():
            return work._replace(shape=work.shape._replace(targets=0, sequences=0))
        case TrainingWork():
            named = ("batch_rows", "row_tokens", "accumulate", "remat", "ema_decay", "keep_best")
            train = TrainConfig(**{name: getattr(work.train, name) for name in named})
            return work._replace(train=train, targets=0)


def mesh_of(work: Work, meshes: Meshes) -> Mesh:
    """Returns the mesh that a stage runs on, of those of its model."""
    return meshes.generation if isinstance(work, GenerationWork) else meshes.training


def decoder_config(config: RunConfig, role: Role, mesh: Mesh) -> DecoderConfig:
    """Returns the config of a role's model, on the devices of a mesh."""
    return planned_config(getattr(config, role), mesh.devices.flat[0])


def _memory(work: Work, model: DecoderConfig, mesh: Mesh) -> memory.Memory:
    match work:
        case TrainingWork():
            return memory.train_step(
                model, work.train, work.objective, work.targets, mesh, work.soft
            )
        case ScoringWork():
            return memory.scoring_step(model, work.shape, mesh)
        case GenerationWork():
            return memory.generation_step(model, work.settings, work.rows, work.width, mesh)


def work_time(
    work: Work, model: DecoderConfig, mesh: Mesh, chip: Chip
) -> tuple[costs.Cost, float, str]:
    """Returns the cost of a whole stage, the least time in seconds, and the bottleneck."""
    match work:
        case TrainingWork():
            step = costs.train_step(model, work.train, work.targets, mesh)
        case ScoringWork():
            step = costs.scoring_step(model, work.rows, work.width, work.targets, mesh)
        case GenerationWork():
            new, prefilled = work.settings.max_new_tokens, calls(mesh)[0] * BLOCK
            written = as_generated(model, work.settings.cache)
            step = costs.generation_step(written, work.rows, work.width, new, prefilled, mesh)
    cost = step.times(work.steps)
    rates = chip.flops, chip.bandwidth, chip.interconnect
    names = "compute", "memory", "interconnect"
    seconds, bound_by = max(
        (total / rate / mesh.size, name) for total, rate, name in zip(cost, rates, names)
    )
    return cost, seconds, bound_by


def propose(
    model: DecoderConfig, work: TrainingWork, mesh: Mesh, chip: Chip
) -> Iterator[tuple[str, int]]:
    """Yields (remat policy, the largest micro-batch in rows that fits; 0 where none does).

    Memory grows by the same amount with each row, so two compilations give the slope.
    """
    parts = batch_devices(mesh)
    for policy in ("none", "dots", "full"):
        needs = []
        for rows in (parts, 2 * parts):
            train = dataclasses.replace(work.train, batch_rows=rows, accumulate=1, remat=policy)
            needs.append(_memory(work._replace(train=train), model, mesh).total)
        yield policy, parts * largest_multiple(needs[0], needs[1], HEADROOM * chip.memory)


def largest_multiple(one: int, two: int, room: float) -> int:
    """Returns the largest n whose memory fits, given the bytes of n = 1 and of n = 2, or 0."""
    return 0 if one > room else 1 + max(0, int((room - one) / max(1, two - one)))


def resident(stages: list[StagePlan]) -> float | None:
    """Estimates the peak resident bytes of a run on this machine's CPU; None if unknown.

    The sum of this process, which has loaded the libraries and compiled the steps; of the largest
    stage; and of its parameters once more, as read from the checkpoint.
    """
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        needs = [(s.memory.total + s.memory.parameters) * s.chips for s in stages]
        return pages * os.sysconf("SC_PAGE_SIZE") + max(needs, default=0)
    return None


def show(
    console: Console,
    config: RunConfig,
    meshes: Mapping[Role, Meshes],
    stages: list[StagePlan],
    spending: Spending,
    topology: str,
    resident: float | None,
) -> None:
    """Prints the plan."""
    shown.say(console, (config.name, "bold"), f" on {topology}")
    for role, (training, generation, _) in meshes.items():
        where = f"trains on the mesh {_axes(training)}, generates on {_axes(generation)}"
        shown.say(console, f"{role}: {where}")
    console.print()
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


def _axes(mesh: Mesh) -> str:
    return " ".join(f"{axis}={size}" for axis, size in mesh.shape.items())


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
    params = decoder.abstract(in_training(model), mesh)
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
            f"{local_bytes(leaf) / 2**20:,.2f}",
        )
    shown.say(console, f"\n{role}")
    console.print(table)


@dataclasses.dataclass
class StageTotal:
    """One stage over all runs of a study.

    Attributes:
      runs: the number of runs that have it.
      made: the number of executions: one for all runs that share it.
      seconds: the least time, over all executions.
      alone: the same if each run executed it.
      disk: bytes of the models that it writes.
    """

    runs: int = 0
    made: int = 0
    seconds: float = 0.0
    alone: float = 0.0
    disk: float = 0.0


@dataclasses.dataclass(frozen=True)
class StudyPlan:
    """The plan of a study on one mesh.

    Attributes:
      runs: the number of runs.
      stages: by name, those that run a model.
      teacher: an upper bound on queries, tokens and dollars of all runs together. No question is
        asked twice, and selections may overlap.
      teacher_alone: the same if each run paid for itself.
    """

    runs: int
    stages: dict[str, StageTotal]
    teacher: dict[str, float]
    teacher_alone: dict[str, float]

    @property
    def seconds(self) -> float:
        """The least time of all work."""
        return sum(stage.seconds for stage in self.stages.values())

    @property
    def seconds_alone(self) -> float:
        """The least time if each run executed all of its stages."""
        return sum(stage.alone for stage in self.stages.values())

    @property
    def disk_gib(self) -> float:
        """The size of the models that are written."""
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
        table = _inputs(lengths)
        deep = deep_keys(stages, table)
        new = {name for name, key in deep.items() if (name, key) not in known}
        for work in workloads(stages, lengths, new):
            mesh = mesh_of(work, lengths.inputs.meshes(work.role))
            model = decoder_config(config, work.role, mesh)
            _, seconds, _ = work_time(work, model, mesh, chip)
            known[work.stage, deep[work.stage]] = seconds
            total = totals.setdefault(work.stage, StageTotal())
            total.made += 1
            total.seconds += seconds
            if isinstance(work, TrainingWork):  # It writes the adapter, or else the whole model.
                written = decoder.count_parameters(model)
                if model.lora:
                    written -= decoder.count_parameters(dataclasses.replace(model, lora=None))
                total.disk += _PARAMETER * written
        for name, key in deep.items():
            if (name, key) in known:
                totals[name].runs += 1
                totals[name].alone += known[name, key]
        for stage in stages:
            if stage.artifact.work == "ask" and stage.load:
                alone.append(expected([stage], lengths)._asdict())
                # Held-out questions are no selection of the pool.
                held_out = stage.load.of if stage.load.of in ("test", "dev") else ""
                source = table[f"data/{held_out}" if held_out else inputs.POOL]
                pool = of_value([keyed_values(stage.params), source.key()])
                size = stage.load.count if held_out else lengths.pool_size
                size *= stage.load.samples
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

    recorded = (inputs.RECORDED, inputs.DEV_RECORDED, inputs.TEST_RECORDED)
    data_of_run = (inputs.POOL, inputs.DEV, inputs.TEST, *recorded)
    return {**table, **{n: dataclasses.replace(table[n], key=settings) for n in data_of_run}}


def _sum(bills: Iterable[Mapping[str, float]]) -> dict[str, float]:
    bills = list(bills)
    return {name: sum(bill[name] for bill in bills) for name in _TEACHER}


def show_study(console: Console, name: str, planned: StudyPlan, topology: str) -> None:
    """Prints the plan."""
    shown.say(console, (name, "bold"), f": {planned.runs} runs on {topology}\n")
    table = shown.table("stage", "runs", "made", "at least", "if not shared")
    for stage, total in planned.stages.items():
        times = (duration(total.seconds), duration(total.alone))
        table.add_row(shown.cell(stage), str(total.runs), str(total.made), *times)
    console.print(table)
    paid, each = planned.teacher, planned.teacher_alone
    shown.say(
        console,
        f"\nTime     at least {duration(planned.seconds)} of work, {planned.seconds / 3600:.2f} h; "
        f"without sharing {duration(planned.seconds_alone)}\n"
        f"Teacher  at most about {paid['queries']:,.0f} queries, {paid['input_tokens']:,.0f} "
        f"tokens in and {paid['output_tokens']:,.0f} out: ${paid['usd']:,.4f}; less where "
        f"selections overlap. If each run paid for itself ${each['usd']:,.4f}\n"
        f"Disk     {planned.disk_gib:.1f} GiB of models; --nokeep_models deletes those that no run "
        "needs any more\n"
        "Nothing was run or paid. Memory is in the plan of a single config.",
    )
