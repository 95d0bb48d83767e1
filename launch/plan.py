"""Plans a run or a study: memory of each stage, time, and the cost of the teacher.

python -m launch.plan --config=configs/medical_7b.py --topology=v5e:4x4
python -m launch.plan --config=configs/studies/budget_scaling.py

For a study, prints time, dollars and disk over all its runs, counting shared stages once. For a
run, compiles each step for the topology (`pip install 'bridge-jax[libtpu]'`; no TPU is needed), or
for the local devices if none is given. Nothing is run or paid.
"""

import json
import signal
from typing import TYPE_CHECKING, Any

from absl import flags, logging

from launch import settings
from launch.overrides import run_main

if TYPE_CHECKING:
    from bridge_jax.study import study

_TOPOLOGY = flags.DEFINE_string(
    "topology", "", "TPU to plan for, e.g. v5e:4x4, or 2*v5e:4x4 for two slices; default: local."
)
_JSON = flags.DEFINE_bool("json", False, "Print JSON for programs.")
_PROPOSE = flags.DEFINE_bool(
    "propose", False, "Find the largest batches that fit, and changes for what does not (slow)."
)
_PRICE = flags.DEFINE_float("usd_per_chip_hour", 0.0, "Price of a chip, for the plan's cost.")
_SHARDINGS = flags.DEFINE_bool("shardings", False, "Also print the placement of each parameter.")


def main(assignments: list[str]) -> None:
    """Plans the run, or the study, and prints a table."""
    from bridge_jax.config import io as config_io
    from bridge_jax.study import study

    found = config_io.load(settings.file(), "get_config", "get_study")
    changes = settings.changes(assignments)
    if isinstance(found, study.Study):
        _plan_study(study.override(found, changes, has_data=False))
        return
    config = config_io.override(found, changes)
    # These imports take seconds, so a mistyped flag is reported before them.
    from rich.console import Console

    from bridge_jax import display
    from bridge_jax.methods.checks import meshes_of, validate
    from bridge_jax.methods.input_checks import notes_on
    from bridge_jax.parallel.chips import GIB
    from bridge_jax.planning import plan, proposals, tables
    from bridge_jax.planning.workload import TrainingWork, expected, list_work, opened

    # Nothing is written, so Ctrl-C may stop the process at once, even in the compiler.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    validate(config, has_data=bool(config.data.path))
    logging.set_verbosity(logging.WARNING)
    devices, chip, name = _machine()
    stages, lengths = opened(config, devices)
    works = list_work(stages, lengths)
    meshes = meshes_of(stages, lengths.inputs)
    spending = expected(stages, lengths)
    console = Console(highlight=False, stderr=_JSON.value)
    planned = []
    with console.status("compiling") as status:

        def begins(stage: str) -> None:
            text = f"compiling {stage} ({len(planned) + 1} of {len(works)})"
            status.update(text)
            if not console.is_terminal:
                display.print_error(text)

        for stage in plan.plan_stages(config, works, meshes, chip, begins):
            planned.append(stage)
    resident = plan.resident(planned) if devices[0].platform == "cpu" else None
    if _JSON.value:
        result = {
            "stages": [stage.to_json() for stage in planned],
            "teacher": spending._asdict(),
            "topology": name,
            "chip_hours": plan.chip_hours(planned),
            "resident_gib": resident and resident / GIB,
        }
        print(json.dumps(result, indent=2))
    else:
        tables.show(console, config, meshes, planned, spending, name, resident, _PRICE.value)
    for note in notes_on(config, stages, meshes):
        display.say(console, note)
    if _SHARDINGS.value:
        for role, (mesh, _, _) in meshes.items():
            tables.show_shardings(console, role, plan.decoder_config(config, role, mesh), mesh)
    if _PROPOSE.value:
        for stage in planned:
            if not stage.fits:
                found = proposals.that_fits(config, stage, devices, chip)
                tables.show_change(console, stage, found)
            elif isinstance(stage.work, TrainingWork):
                mesh = meshes[stage.work.role].training
                model = plan.decoder_config(config, stage.work.role, mesh)
                tables.show_proposal(console, stage, plan.propose(model, stage.work, mesh, chip))


def _plan_study(found: "study.Study") -> None:
    from rich.console import Console

    from bridge_jax.planning import plan, tables

    logging.set_verbosity(logging.WARNING)
    devices, chip, name = _machine()
    console = Console(highlight=False, stderr=_JSON.value)
    with console.status("planning each stage"):
        planned = plan.plan_study([run.config for run in found.runs], devices, chip)
    if _JSON.value:
        print(json.dumps(planned.to_json(name), indent=2))
    else:
        tables.show_study(console, found.name, planned, name, _PRICE.value)


def _machine() -> tuple[Any, Any, str]:
    """Returns the devices to plan for, the chip, and their name."""
    import jax

    from bridge_jax.parallel import chips

    if _TOPOLOGY.value:
        return *chips.topology(_TOPOLOGY.value), _TOPOLOGY.value
    devices = jax.devices()
    return devices, chips.local(devices[0]), f"{len(devices)} {devices[0].device_kind}"


if __name__ == "__main__":
    run_main(main)
