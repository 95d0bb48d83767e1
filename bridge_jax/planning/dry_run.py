"""The plan of a dry run: which stages are done, which would run, and their time and cost.

Nothing is compiled. Times are lower bounds for the work of the models on the devices here. How long
the teacher's answers, reading and compiling take is not known in advance, and not included.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

from rich.console import Console

from bridge_jax import display
from bridge_jax.config import RunConfig
from bridge_jax.ledger import consent
from bridge_jax.ledger.consent import Quote
from bridge_jax.methods.inputs import Inputs
from bridge_jax.parallel import chips
from bridge_jax.pipeline.stages import Stage
from bridge_jax.planning.plan import decoder_config, mesh_of, work_time
from bridge_jax.planning.workload import Lengths, Spending, expected, list_work
from bridge_jax.progress import duration


@dataclasses.dataclass(frozen=True)
class DryRun:
    """The plan of a run: what is done, what would run, and its cost.

    Attributes:
      done: finished stage -> seconds of work.
      to_run: stage to run -> the lower bound on its model's seconds; 0.0 if it runs no model.
      teacher: the teacher's name; "" if none of the stages to run asks it.
      spending: the expected bill of the stages to run.
      quotes: upper bounds on queries and cost, if the teacher is paid.
      on_cpu: whether the run is on a CPU.
    """

    done: dict[str, float]
    to_run: dict[str, float]
    teacher: str
    spending: Spending
    quotes: list[Quote]
    on_cpu: bool


def dry_run(
    config: RunConfig,
    stages: Sequence[Stage],
    inputs: Inputs,
    done: Mapping[str, float],
    to_run: Collection[str],
    quotes: list[Quote],
) -> DryRun:
    """Returns the plan of a run.

    Args:
      stages: the run's stages, in order.
      done: finished stage -> seconds of work.
      to_run: the names of the other stages.
      quotes: upper bounds on what a paid teacher may cost.
    """
    lengths = Lengths(config, stages, inputs)
    chip = chips.local(inputs.devices[0])
    seconds = {stage.name: 0.0 for stage in stages if stage.name in to_run}
    for work in list_work(stages, lengths, to_run):
        mesh = mesh_of(work, inputs.meshes(work.role))
        model = decoder_config(config, work.role, mesh)
        seconds[work.stage] += work_time(work, model, mesh, chip)[1]
    asks = [stage for stage in stages if stage.name in to_run and stage.artifact.work == "ask"]
    name = config.teacher.model if asks else ""
    on_cpu = inputs.devices[0].platform == "cpu"
    return DryRun(dict(done), seconds, name, expected(asks, lengths), quotes, on_cpu)


def show(
    found: DryRun, console: Console, heading: Sequence[display.Part], notes: Iterable[str]
) -> None:
    """Prints the plan of a run.

    Args:
      found: the plan.
      console: where to print.
      heading: a line about the run.
      notes: remarks on its data and devices.
    """
    display.say(console, *heading)
    for note in notes:
        display.say(console, (note, "yellow"))
    for name, seconds in found.done.items():
        display.say(console, f"  {name:<33} done before, in {duration(seconds)}")
    for name, seconds in found.to_run.items():
        told = f"to run, at least {duration(seconds)}" if seconds else "to run"
        display.say(console, f"  {name:<33} {told}")
    if not found.to_run:
        display.say(console, "\nEverything is done; the same command without --dry_run reports it.")
        return
    if found.done:
        display.say(console, "\nA stage is skipped if its inputs turn out unchanged.")
    _show_teacher(found, console)
    total = sum(found.to_run.values())
    display.say(
        console, f"\nTime     at least {duration(total)} of computation, {total / 3600:.2f} h"
    )
    if found.on_cpu:
        display.say(
            console, "         based on this CPU's speed in the last second, under its current"
        )
        display.say(console, "         load; a run may take several times as long")
    others = ", the teacher's answers" if found.teacher else ""
    display.say(console, f"         not counted: compiling, reading{others}")
    display.say(console, "\nNothing was run, paid or written.")


def _show_teacher(found: DryRun, console: Console) -> None:
    if not found.teacher:
        display.say(console, "\nTeacher  not asked")
        return
    spent = found.spending
    display.say(console, f"\nTeacher  {found.teacher}: {spent.queries:,} queries at first")
    tokens = f"{spent.input_tokens:,} tokens in, {spent.output_tokens:,} out"
    usd = f"${spent.usd:,.4f} (${spent.usd_low:,.4f} to ${spent.usd_high:,.4f})"
    display.say(console, f"         about {tokens}: {usd}")
    if not found.quotes:
        display.say(console, "         nothing is paid: the answers are recorded, known or free")
    for quote in found.quotes:
        _, queries, usd = consent.total({"": quote})
        display.say(console, f"         at most {queries:,} queries and {usd}, retries included")
