"""Writes `report.json` for programs and `report.html` for people, from the files of one workdir."""

import json
import os
from pathlib import Path
from typing import Any

from bridge_jax.studies import page, summary, workdir


def write(path: Path) -> dict[str, Any]:
    """Writes both files, each whole or not at all, and returns what `report.json` holds.

    Args:
      path: the workdir; whatever phases it has.

    Raises:
      UserError: there is no such folder, it holds no run, or a file in it is damaged.
    """
    run = workdir.load(Path(path))
    report = summary.summarise(run)
    report["page"] = str(run.path / "report.html")
    _replace(run.path / "report.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    _replace(run.path / "report.html", page.render(run, report))
    return report


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
