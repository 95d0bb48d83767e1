"""Writes `report.json` for programs and `report.html` for people, from the files of one workdir."""

import json
from pathlib import Path
from typing import Any

from bridge_jax.atomic import replace
from bridge_jax.pipeline.content import Hashes
from bridge_jax.report import page, summary, workdir


def write(path: Path, hashes: Hashes | None = None) -> dict[str, Any]:
    """Writes both files, each whole or not at all, and returns what `report.json` holds.

    Args:
      path: the workdir; whatever phases it has.
      hashes: as for `workdir.load`.

    Raises:
      UserError: there is no such folder, it holds no run, or a file in it is damaged.
    """
    run = workdir.load(path, hashes)
    report = summary.summarise(run)
    report["page"] = str(run.path / "report.html")
    replace(run.path / "report.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    replace(run.path / "report.html", page.render(run, report))
    return report
