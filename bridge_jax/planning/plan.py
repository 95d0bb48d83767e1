"""Plans the memory, time and cost of a run or a study before hardware is booked.

Memory is taken from the compiled step. Time is the lower bound of the roofline model (Williams et
al., 2009): the longest of the times for arithmetic, memory traffic and interconnect traffic, each
at full speed. Real runs take longer.

In a study, stages and answers that runs share count once. Nothing is compiled for it, so its plan
has no memory figures; the plan of a single run's config has them.
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
from bridge_jax.models.layouts import Meshes, generation_config, held_bytes
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

MOST = 512  # Most rows per batch shard (data x fsdp) in a proposed batch.
HEADROOM = 0.9  # Largest share of a device's memory for a proposed batch.
# The share of the roofline that steps reached on an H200 (docs/performance.md). On TPUs nothing has
# been measured.
REACHED = {"train": 0.46, "score": 0.59, "generate": 0.48}
_PARAMETER = 4  # bytes of a stored parameter
Measure = Callable[[Work, DecoderConfig, Mesh], memory.Memory]
_TEACHER = ("queries", "input_tokens", "output_tokens", "usd")


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """The plan of one stage, or of one program of a stage, on one mesh.

    Attributes:
      work: the step and the number of steps.
      devices: the number of devices.
      memory: what each device needs.
      chip: the figures of one device of the target hardware.
      cost: the cost of all steps, summed over the devices.
      seconds: the lower bound on the time of all steps.
      bound_by: "compute", "memory" or "interconnect".
      compiling: seconds that the step took to compile for the plan; about 0 if an earlier stage has
        the same program.
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
        """The stage's name, followed by the work's part if it has one (`part_of`)."""
        return name_of(self.work)

    @property
    def chips(self) -> int:
        """The number of chips."""
        return self.devices // self.chip.devices

    @property
    def fits(self) -> bool:
        """Returns whether the step fits in the memory of a device."""
        return not self.memory.refused and self.memory.total <= self.chip.memory

    def of_chip(self, size: float) -> float:
        """Converts bytes per device to bytes per chip; a chip may consist of several devices."""
        return size * self.chip.devices

    @property
    def expected(self) -> float:
        """Estimates the stage's seconds at the measured share of the roofline, plus compilation."""
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
    """Plans each stage on its mesh.

    Steps whose programs differ only in the number of targets are compiled once, for the largest.

    Args:
      works: the work of the stages that run a model.
      meshes: the meshes of each role's model.
      chip: the figures of one device of the target hardware.
      begins: called with the name of a stage before its step is compiled.
      measure: returns the memory of a step; by default the step is compiled.
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
        if beside:  # The other programs of the same training, with which it takes turns.
            needs = needs._replace(held=sum(needs_of(other).kept for other in beside))
        elif isinstance(work, GenerationWork):
            read_to = meshes[work.role].training
            needs = needs._replace(held=held_bytes(model, read_to, work.trained))
        took = time.perf_counter() - began
        yield StagePlan(work, mesh.size, needs, chip, cost, seconds, bound_by, took)


def _expected(work: Work, seconds: float) -> float:
    """Returns the expected seconds of a work, from its lower bound and the shares in `REACHED`."""
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
    """Returns the work without stage, part, steps and, for generation, `trained`."""
    match work:
        case GenerationWork():
            work = work._replace(part="", trained=True)
        case ReadingWork():
            work = work._replace(part="")
    return work._replace(stage="", steps=0)


def _program(work: Work) -> Work:
    """Returns the work reduced to what its program depends on, except the number of targets."""
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
    """Returns which of its model's meshes a work runs on."""
    return meshes.generation if isinstance(work, GenerationWork) else meshes.training


def decoder_config(config: RunConfig, role: Role, mesh: Mesh) -> DecoderConfig:
    """Returns the config of a role's model for the devices of a mesh."""
    return planned_config(getattr(config, role), mesh.devices.flat[0])


def memory_of(work: Work, model: DecoderConfig, mesh: Mesh) -> memory.Memory:
    """Compiles the step of a work and returns its memory per device."""
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
    """Returns the config of the scored model, which has no adapter unless a stage trained it."""
    return model if work.trained else dataclasses.replace(model, lora=None)


def work_time(
    work: Work, model: DecoderConfig, mesh: Mesh, chip: Chip
) -> tuple[costs.Cost, float, str]:
    """Returns the cost of all steps, the lower bound on their seconds, and the bottleneck."""
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
            written = generation_config(model, work.settings.cache)
            step = costs.generation_step(written, work.rows, work.width, new, prefilled, mesh)
    cost = step.times(work.steps)
    rates = chip.flops_in(model.matmul_dtype), chip.bandwidth, chip.interconnect
    names = "compute", "memory", "interconnect"
    seconds, bound_by = max(
        (total / rate / mesh.size, name) for total, rate, name in zip(cost, rates, names)
    )
    return cost, seconds, bound_by


def propose(
    model: DecoderConfig, work: TrainingWork, mesh: Mesh, chip: Chip
) -> Iterator[tuple[str, int]]:
    """Yields (remat policy, rows of the largest micro-batch that fits, or 0 if none does).

    Rows are doubled, from one per batch shard, until a step does not fit.
    """
    parts, room = batch_devices(mesh), HEADROOM * chip.memory
    for policy in ("none", "dots", "full"):

        def takes(rows: int, policy: Any = policy) -> bool:
            train = dataclasses.replace(work.train, batch_rows=rows, accumulate=1, remat=policy)
            needs = memory_of(work._replace(train=train), model, mesh)
            return not needs.refused and needs.total <= room

        yield policy, largest_batch(takes, parts)


def largest_batch(takes: Callable[[int], bool], parts: int) -> int:
    """Returns the largest of `parts`, 2 `parts`, 4 `parts`, ... rows that fits, or 0.

    Args:
      takes: returns whether a number of rows fits.
      parts: rows of the smallest batch, one per batch shard.
    """
    rows = 0
    while rows < parts * MOST and takes(max(parts, 2 * rows)):
        rows = max(parts, 2 * rows)
    return rows


def resident(stages: list[StagePlan]) -> float | None:
    """Estimates the peak resident bytes of a run on this machine's CPU; None if unknown.

    It is the sum of this process's resident bytes, which include the libraries and the compiled
    steps; of the largest stage; and of that stage's parameters once more, as read from the
    checkpoint.
    """
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        needs = [(s.memory.total + s.memory.parameters) * s.devices for s in stages]
        return pages * os.sysconf("SC_PAGE_SIZE") + max(needs, default=0)
    return None


def chip_hours(stages: Sequence[StagePlan]) -> float:
    """Returns the run's chip-hours: the expected time of all stages, on all chips that it holds."""
    chips = max((stage.chips for stage in stages), default=0)
    return chips * sum(stage.expected for stage in stages) / 3600


@dataclasses.dataclass
class StageTotal:
    """The totals of one stage over all runs of a study.

    Attributes:
      runs: the number of runs that have the stage.
      made: the number of executions; runs that share one count once.
      seconds: the lower bound on the time of all executions.
      expected: their time at the measured shares of the roofline, without compilation.
      alone: the lower bound if each run executed the stage itself.
      disk: bytes of the models or adapters that are written.
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
      chips: the number of chips that each stage runs on.
      stages: stage -> its totals, for the stages that run a model.
      teacher: an upper bound on queries, tokens and dollars of all runs together. No question is
        asked twice, and selections may overlap more than this assumes.
      teacher_alone: the same if each run paid for itself.
    """

    runs: int
    chips: int
    stages: dict[str, StageTotal]
    teacher: dict[str, float]
    teacher_alone: dict[str, float]

    @property
    def seconds(self) -> float:
        """The lower bound on the time of all work, in seconds."""
        return sum(stage.seconds for stage in self.stages.values())

    @property
    def expected(self) -> float:
        """The expected time of all work, in seconds, without compilation."""
        return sum(stage.expected for stage in self.stages.values())

    @property
    def chip_hours(self) -> float:
        """The expected time of all work in chip-hours."""
        return self.chips * self.expected / 3600

    @property
    def seconds_alone(self) -> float:
        """The lower bound on the seconds if each run executed all of its stages."""
        return sum(stage.alone for stage in self.stages.values())

    @property
    def disk_gib(self) -> float:
        """The size of the models and adapters that are written."""
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
    """Returns the plan of runs that share a stage store and a ledger."""
    totals: dict[str, StageTotal] = {}
    known: dict[tuple[str, str], float] = {}
    # Key of the requests about a pool -> the pool's size, and the bill of each selection.
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
            if isinstance(work, TrainingWork):  # It writes its adapter or the whole model.
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
                # Held-out questions are not selected from the pool.
                held_out = stage.workload.of if stage.workload.of in ("test", "dev") else ""
                source = table[f"data/{held_out}" if held_out else inputs.POOL]
                pool = of_value([keyed_values(stage.params), source.key()])
                size = stage.workload.count if held_out else lengths.pool_size
                size *= stage.workload.samples
                chosen = tuple(deep[name] for name in stage.reads.values() if name in deep)
                asked.setdefault(pool, (size, {}))[1][chosen] = alone[-1]
    teacher = []
    for size, bills in asked.values():  # All selections together ask at most the whole pool.
        total = _sum(bills.values())
        share = min(1.0, size / max(1, total["queries"]))
        teacher.append({name: value * share for name, value in total.items()})
    chips = len(jax.devices() if devices is None else devices) // chip.devices
    return StudyPlan(len(configs), chips, totals, _sum(teacher), _sum(alone))


def _inputs(lengths: Lengths) -> Mapping[str, Input]:
    """Returns the inputs of a run; those that are not on this machine are keyed by settings."""
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
    # Whether labels are known and which rationale is used do not change the examples.
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
        except UserError:  # A hub checkpoint that has not been downloaded.
            return of_value([repr(value) for value in values])

    return functools.cache(known)


def _sum(bills: Iterable[Mapping[str, float]]) -> dict[str, float]:
    bills = list(bills)
    return {name: sum(bill[name] for bill in bills) for name in _TEACHER}
