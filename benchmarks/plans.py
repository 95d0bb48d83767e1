"""Writes a page of what shipped configs need on TPUs: `python -m benchmarks.plans docs/plans.md`.

Every step is compiled for the topology (takes libtpu, and no TPU); `launch.plan` does it.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from configs.models import PAIRS

CONFIG = "configs/medical_7b.py"
TOPOLOGIES = ("v5e:2x2", "v5e:4x4")  # for every pair
OF_7B = ("v6e:4x4", "v5p:2x2x2", "2*v5e:4x4")  # for the pair of the config
HEAD = (
    "| stage | chips | GiB a chip | of | fits | seconds | bound by |\n|---|--:|--:|--:|---|--:|---|"
)


class Plan(NamedTuple):
    """Names a plan of the page: a config with changes, on a topology."""

    title: str
    config: str
    topology: str
    changes: tuple[str, ...] = ()


def plans() -> Iterator[Plan]:
    """Yields all plans of the page."""
    for name, pair in PAIRS.items():
        models = {"assistant": pair.assistant, "student": pair.student}
        changes = tuple(f"--config.{role}.checkpoint={m.checkpoint}" for role, m in models.items())
        for topology in TOPOLOGIES:
            yield Plan(f"{name} on {topology}", CONFIG, topology, changes)
    for topology in OF_7B:
        yield Plan(f"{next(iter(PAIRS))} on {topology}", CONFIG, topology)
    yield Plan("configs/quickstart.py on v5e:2x2", "configs/quickstart.py", "v5e:2x2")


def section(planned: Plan) -> str:
    """Returns the table of one plan, as Markdown."""
    command = ["-m", "launch.plan", f"--config={planned.config}", "--json", *planned.changes]
    command.append(f"--topology={planned.topology}")
    done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, check=True)
    plan = json.loads(done.stdout)
    rows = [
        f"| {stage['stage']} | {stage['chips']} | {stage['gib_per_chip']:.2f} "
        f"| {stage['hbm_gib']:.2f} | {'yes' if stage['fits'] else '**no**'} "
        f"| {stage['seconds']:,.0f} | {stage['bound_by']} |"
        for stage in plan["stages"]
    ]
    return "\n".join([f"## {planned.title}", "", HEAD, *rows, ""])


def main(out: Path) -> None:
    """Plans all and writes the page."""
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    head = (
        "# Plans\n\nWhat `launch.plan` finds for every pair of `configs/models.py`, in "
        f"`{CONFIG}`, and for the quickstart: every step is compiled for the topology, and nothing "
        "is run. GiB are those of a chip that a program may use; seconds are the roofline's, a "
        f"lower bound. Written by `make plans` at revision {revision}.\n"
    )
    out.write_text("\n".join([head, *(section(plan) for plan in plans())]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
