"""Plans memory, time and cost of a run or a study before hardware is booked, as figures.

Memory is that of the compiled step. Time is the roofline's lower bound (2009, Williams et al.): the
slowest of arithmetic, memory and interconnect, without any waiting. Real runs take longer.

In a study, stages and answers that runs share are counted once. Nothing is compiled, so the plan of
a study has no memory; that of each run's config has.
"""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from bridge_jax.config import RunConfig, TrainConfig
from bridge_jax.data import sources
from bridge_jax.errors import UserError
from bridge_jax.generation.engine import calls
from bridge_jax.methods import inputs
from bridge_jax.models import costs, decoder
from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.hub.checkpoint import planned_config
from bridge_jax.models.layouts import Meshes, as_generated, held_bytes
from bridge_jax.parallel.chips import GIB, Chip
from bridge_jax.parallel.sharding import batch_devices
from bridge_jax.pipeline.artifacts import ROLES, Role
from bridge_jax.pipeline.content import Hashes, of_value
from bridge_jax.pipeline.stages import Input, deep_keys, keyed_values
from bridge_jax.planning import memory
from bridge_jax.planning.workload import (
    GenerationWork,
    Lengths,
    ReadingWork,
    ScoringWork,
    TrainingWork,
    Work,
    expected,
    list_work,
    name_of,
    opened,
    part_of,
)

MOST = 512  # Rows of a device, at most, in a proposed batch.
HEADROOM = 0.9  # Of a chip's memory, at most, in a proposed batch.
# The share of the roofline that steps reached on an H200 (docs/performance.md). On TPUs nothing has
# been measured.
REACHED = {"train": 0.46, "score": 0.59, "generate": 0.48}
_PARAMETER = 4  # bytes of a stored parameter
Measure = Callable[[Work, DecoderConfig, Mesh], memory.Memory]
_TEACHER = ("queries", "input_tokens", "output_tokens", "usd")


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """The plan of one stage on one mesh.

    Attributes:
      work: its step and the number of steps.
      devices: their number.
      memory: the need of each device.
      chip: that is planned for.
      cost: of the whole stage, over all devices.
      seconds: the least time.
      bound_by: "compute", "memory" or "interconnect".
      compiling: seconds that the step took to compile for the plan; 0 if another stage shares it.
    """

    work: Work
    devices: int
    memory: memory.Memory
    chip: Chip
    cost: costs.Cost
    seconds: float
    bound_by: str
    compiling: float = 0.0

    @property
    def name(self) -> str:
        """The stage, and which of its programs it is where there are several."""
        return name_of(self.work)

    @property
    def chips(self) -> int:
        """The number of chips."""
        return self.devices // self.chip.devices

    @property
    def fits(self) -> bool:
        """Returns whether the memory of a device is enough."""
        return not self.memory.refused and self.memory.total <= self.chip.memory

    def of_chip(self, size: float) -> float:
        """Returns the bytes of a chip, each of whose devices has `size` bytes."""
        return size * self.chip.devices

    @property
    def expected(self) -> float:
        """Estimates the seconds of the stage: at the share of the roofline that was measured."""
        return _expected(self.work, self.seconds) + self.compiling

    def to_json(self) -> dict[str, Any]:
        """Returns the stage as JSON values."""
        return {
            "stage": self.name,
            "role": self.work.role,
            "chips": self.chips,
            "steps": self.work.steps,
            "gib_per_chip": self.of_chip(self.memory.total) / GIB,
            "gib_by_kind": {k: self.of_chip(v) / GIB for k, v in self.memory.parts().items()},
            "hbm_gib": self.of_chip(self.chip.memory) / GIB,
            "fits": self.fits,
            **self.cost._asdict(),
            "seconds": self.seconds,
            "expected_seconds": self.expected,
            "bound_by": self.bound_by,
        }


def plan_stages(
    config: RunConfig,
    works: list[Work],
    meshes: Mapping[Role, Meshes],
    chip: Chip,
    begins: Callable[[str], None] = lambda _: None,
    measure: Measure | None = None,
) -> Iterator[StagePlan]:
    """Plans each stage on its mesh. Steps that differ little are compiled once, for the largest.

    Args:
      works: its stages that run a model.
      meshes: of each role.
      chip: that is planned for.
      begins: is told the name of a stage before its step is compiled.
      measure: returns the memory of a program; by default it is compiled.
    """
    compiled = functools.cache(measure or memory_of)
    largest: dict[Work, Work] = {}
    for work in works:
        program = _program(work)
        if _targets(work) >= _targets(largest.get(program)):
            largest[program] = _without_stage(work)

    def needs_of(work: Work) -> memory.Memory:
        mesh = mesh_of(work, meshes[work.role])
        return compiled(largest[_program(work)], decoder_config(config, work.role, mesh), mesh)

    for work in works:
        mesh = mesh_of(work, meshes[work.role])
        model = decoder_config(config, work.role, mesh)
        cost, seconds, bound_by = work_time(work, model, mesh, chip)
        begins(name_of(work))
        began = time.perf_counter()
        needs = needs_of(work)
        beside = [w for w in works if w.stage == work.stage and part_of(w) != part_of(work)]
        if beside:  # Other programs of the same training, which take turns.
            needs = needs._replace(held=sum(needs_of(other).kept for other in beside))
        elif isinstance(work, GenerationWork):
            read_to = meshes[work.role].training
            needs = needs._replace(held=held_bytes(model, read_to, work.trained))
        took = time.perf_counter() - began
        yield StagePlan(work, mesh.size, needs, chip, cost, seconds, bound_by, took)


def _expected(work: Work, seconds: float) -> float:
    """Returns the seconds of work that takes `seconds` at least, at the shares in `REACHED`."""
    match work:
        case TrainingWork():
            return seconds / REACHED["train"]
        case ScoringWork() | ReadingWork():
            return seconds / REACHED["score"]
        case GenerationWork():
            return seconds / REACHED["generate"]


def _targets(work: Work | None) -> int:
    return 0 if work is None or isinstance(work, GenerationWork) else work.targets


def _without_stage(work: Work) -> Work:
    """Returns the work without its stage and its number of steps."""
    match work:
        case GenerationWork():
            work = work._replace(part="", trained=True)
        case ReadingWork():
            work = work._replace(part="")
    return work._replace(stage="", steps=0)


def _program(work: Work) -> Work:
    """Returns the work without what changes no array, and without its number of targets."""
    work = _without_stage(work)
    match work:
        case GenerationWork():
            return work
        case ReadingWork():
            return work._replace(targets=0)
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


def memory_of(work: Work, model: DecoderConfig, mesh: Mesh) -> memory.Memory:
    """Compiles the step of a work and returns its memory on each device."""
    match work:
        case TrainingWork():
            return memory.train_step(
                model, work.train, work.objective, work.targets, mesh, work.soft
            )
        case ScoringWork():
            return memory.scoring_step(_scored(work, model), work.shape, mesh)
        case ReadingWork():
            shape = work.rows, work.width, work.targets, work.soft
            return memory.reading_step(model, *shape, mesh)
        case GenerationWork():
            return memory.generation_step(model, work.settings, work.rows, work.width, mesh)


def _scored(work: ScoringWork, model: DecoderConfig) -> DecoderConfig:
    """Returns the config of the model that is scored: as downloaded it has no adapter."""
    return model if work.trained else dataclasses.replace(model, lora=None)


def work_time(
    work: Work, model: DecoderConfig, mesh: Mesh, chip: Chip
) -> tuple[costs.Cost, float, str]:
    """Returns the cost of a whole stage, the least time in seconds, and the bottleneck."""
    match work:
        case TrainingWork():
            step = costs.train_step(model, work.train, work.targets, mesh)
        case ScoringWork():
            scored = _scored(work, model)
            step = costs.scoring_step(scored, work.rows, work.width, work.targets, mesh)
        case ReadingWork():
            step = costs.scoring_step(model, work.rows, work.width, work.targets, mesh)
        case GenerationWork():
            blocks, tokens, _ = calls(mesh)
            new, prefilled = work.settings.max_new_tokens, blocks * tokens
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

    Rows are doubled from one a device until a step does not fit.
    """
    parts, room = batch_devices(mesh), HEADROOM * chip.memory
    for policy in ("none", "dots", "full"):

        def takes(rows: int, policy: Any = policy) -> bool:
            train = dataclasses.replace(work.train, batch_rows=rows, accumulate=1, remat=policy)
            needs = memory_of(work._replace(train=train), model, mesh)
            return not needs.refused and needs.total <= room

        yield policy, largest_batch(takes, parts)


def largest_batch(takes: Callable[[int], bool], parts: int) -> int:
    """Returns the largest of parts, 2 parts, 4 parts, ... that fits, or 0.

    Args:
      takes: whether so many rows fit.
      parts: rows of the smallest batch, one a device.
    """
    rows = 0
    while rows < parts * MOST and takes(max(parts, 2 * rows)):
        rows = max(parts, 2 * rows)
    return rows


def resident(stages: list[StagePlan]) -> float | None:
    """Estimates the peak resident bytes of a run on this machine's CPU; None if unknown.

    The sum of this process, which has loaded the libraries and compiled the steps; of the largest
    stage; and of its parameters once more, as read from the checkpoint.
    """
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        needs = [(s.memory.total + s.memory.parameters) * s.devices for s in stages]
        return pages * os.sysconf("SC_PAGE_SIZE") + max(needs, default=0)
    return None


def chip_hours(stages: Sequence[StagePlan]) -> float:
    """Returns the expected time of all stages on the chips that the run holds, in chip-hours."""
    chips = max((stage.chips for stage in stages), default=0)
    return chips * sum(stage.expected for stage in stages) / 3600


@dataclasses.dataclass
class StageTotal:
    """One stage over all runs of a study.

    Attributes:
      runs: the number of runs that have it.
      made: the number of executions: one for all runs that share it.
      seconds: the least time, over all executions.
      expected: the same at the shares of the roofline that were measured, without compilation.
      alone: the least time if each run executed it.
      disk: bytes of the models that it writes.
    """

    runs: int = 0
    made: int = 0
    seconds: float = 0.0
    expected: float = 0.0
    alone: float = 0.0
    disk: float = 0.0


@dataclasses.dataclass(frozen=True)
class StudyPlan:
    """The plan of a study on one mesh.

    Attributes:
      runs: the number of runs.
      chips: that each stage runs on.
      stages: by name, those that run a model.
      teacher: an upper bound on queries, tokens and dollars of all runs together. No question is
        asked twice, and selections may overlap.
      teacher_alone: the same if each run paid for itself.
    """

    runs: int
    chips: int
    stages: dict[str, StageTotal]
    teacher: dict[str, float]
    teacher_alone: dict[str, float]

    @property
    def seconds(self) -> float:
        """The least time of all work."""
        return sum(stage.seconds for stage in self.stages.values())

    @property
    def expected(self) -> float:
        """The expected time of all work, without compilation."""
        return sum(stage.expected for stage in self.stages.values())

    @property
    def chip_hours(self) -> float:
        """The expected time of all work in chip-hours."""
        return self.chips * self.expected / 3600

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
            "expected_seconds": self.expected,
            "chip_hours": self.chip_hours,
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
        for work in list_work(stages, lengths, new):
            mesh = mesh_of(work, lengths.inputs.meshes(work.role))
            model = decoder_config(config, work.role, mesh)
            _, seconds, _ = work_time(work, model, mesh, chip)
            key = work.stage, deep[work.stage]
            total = totals.setdefault(work.stage, StageTotal())
            total.made += key not in known
            known[key] = known.get(key, 0.0) + seconds
            total.seconds += seconds
            total.expected += _expected(work, seconds)
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
            if stage.artifact.work == "ask" and stage.workload:
                alone.append(expected([stage], lengths)._asdict())
                # Held-out questions are no selection of the pool.
                held_out = stage.workload.of if stage.workload.of in ("test", "dev") else ""
                source = table[f"data/{held_out}" if held_out else inputs.POOL]
                pool = of_value([keyed_values(stage.params), source.key()])
                size = stage.workload.count if held_out else lengths.pool_size
                size *= stage.workload.samples
                chosen = tuple(deep[name] for name in stage.reads.values() if name in deep)
                asked.setdefault(pool, (size, {}))[1][chosen] = alone[-1]
    teacher = []
    for size, bills in asked.values():  # Distinct selections of a pool ask at most all of it.
        total = _sum(bills.values())
        share = min(1.0, size / max(1, total["queries"]))
        teacher.append({name: value * share for name, value in total.items()})
    chips = len(jax.devices() if devices is None else devices) // chip.devices
    return StudyPlan(len(configs), chips, totals, _sum(teacher), _sum(alone))


def _inputs(lengths: Lengths) -> Mapping[str, Input]:
    """Returns the inputs of a run; what is not on this machine is known by its settings."""
    table, config = dict(lengths.inputs.table), lengths.config
    if lengths.pool:
        return table
    prompts = config.max_prompt_tokens, config.on_long_prompt
    settings_of = {
        inputs.COUNT: (config.student,),
        inputs.INSTRUCTIONS: (config.student, config.instruct, config.seed),
    }
    for role in ROLES:
        model = getattr(config, role)
        settings_of |= {f"models/{role}": (model,), f"rendering/{role}": (model, *prompts)}
    for name, values in settings_of.items():
        table[name] = dataclasses.replace(table[name], key=_or_settings(table[name].key, values))
    # Neither changes an example: whether labels are known, and which rationale is used.
    data = dataclasses.replace(config.data, labelled=True, rationale="")
    seed = config.seed if sources.depends_on_seed(data) else 0

    def settings() -> str:
        return of_value([keyed_values(data), sorted(table[inputs.POOL].files().values()), seed])

    recorded = (inputs.RECORDED, inputs.DEV_RECORDED, inputs.TEST_RECORDED)
    data_of_run = (inputs.POOL, inputs.DEV, inputs.TEST, *recorded)
    return {**table, **{n: dataclasses.replace(table[n], key=settings) for n in data_of_run}}


def _or_settings(key: Callable[[], str], values: tuple[Any, ...]) -> Callable[[], str]:
    def known() -> str:
        try:
            return key()
        except UserError:  # A checkpoint of the hub that has not been downloaded.
            return of_value([repr(value) for value in values])

    return functools.cache(known)


def _sum(bills: Iterable[Mapping[str, float]]) -> dict[str, float]:
    bills = list(bills)
    return {name: sum(bill[name] for bill in bills) for name in _TEACHER}
