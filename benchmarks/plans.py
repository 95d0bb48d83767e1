"""Writes a page of what shipped configs need on TPUs: `python -m benchmarks.plans docs/plans.md`.

Every step is compiled for the topology (takes libtpu, and no TPU); `launch.plan` does it.
"""

import json
import subprocess
import sys
from pathlib import Path

PLANS = (
    ("configs/medical_7b.py", "v5e:4x4"),
    ("configs/medical_7b.py", "v6e:4x4"),
    ("configs/medical_7b.py", "v5p:2x2x2"),
    ("configs/quickstart.py", "v5e:2x2"),
)
HEAD = (
    "| stage | chips | GiB a chip | of | fits | seconds | bound by |\n|---|--:|--:|--:|---|--:|---|"
)


def section(config: str, topology: str) -> str:
    """Returns the table of one config on one topology, as Markdown."""
    command = ["-m", "launch.plan", f"--config={config}", f"--topology={topology}", "--json"]
    done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, check=True)
    plan = json.loads(done.stdout)
    rows = [
        f"| {stage['stage']} | {stage['chips']} | {stage['gib_per_chip']:.2f} "
        f"| {stage['hbm_gib']:.0f} | {'yes' if stage['fits'] else 'no'} "
        f"| {stage['seconds']:,.0f} | {stage['bound_by']} |"
        for stage in plan["stages"]
    ]
    return "\n".join([f"## {config} on {topology}", "", HEAD, *rows, ""])


def main(out: Path) -> None:
    """Plans all and writes the page."""
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    head = (
        "# Plans\n\nWhat `launch.plan` finds for shipped configs: every step is compiled for the "
        "topology, and nothing is run. Seconds are the roofline's, a lower bound. Written by "
        f"`make plans` at revision {revision}.\n"
    )
    out.write_text("\n".join([head, *(section(*plan) for plan in PLANS)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
