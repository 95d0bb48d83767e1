"""Writes what a study has found: numbers, page, figures, tables, from the files of its folder."""

import json
from pathlib import Path
from typing import Any

from bridge_jax.atomic import replace
from bridge_jax.report import page
from bridge_jax.study import cells, results, study_figures, study_page, study_tables
from bridge_jax.study.names import RUNS


def write(folder: Path) -> dict[str, Any]:
    """Writes study.json, study.html, table.csv, table.tex and figures/, and returns the first.

    Raises:
      UserError: there is no study, or a file of it is damaged.
    """
    result = results.compute(folder)
    result["page"] = str(folder / "study.html")
    found = [cell["folder"] for cell in cells.read_study(folder)["cells"]]
    links = [(name, f"{RUNS}/{name}/report.html") for name in found]
    runs = [(name, link) for name, link in links if (folder / link).is_file()]
    drawings = study_figures.figures(result, page.WIDE)
    (folder / "figures").mkdir(exist_ok=True)
    for drawing in drawings:
        drawing.save(folder / "figures")
    for path in (folder / "figures").iterdir():
        if path.stem not in {drawing.name for drawing in drawings}:
            path.unlink()  # Of an earlier state of the study.
    replace(folder / "study.json", json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    replace(folder / "table.csv", study_tables.to_csv(result))
    replace(folder / "table.tex", study_tables.to_latex(result))
    replace(folder / "study.html", study_page.render(result, runs))
    return result
