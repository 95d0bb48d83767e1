"""Puts results into docs/performance.md: `python -m benchmarks.page docs/performance.md RESULT...`.

A result is a file of what `train`, `score` or `generate` print with `--json`. Its table replaces
what stands between `<!-- NAME -->` and `<!-- /NAME -->`, where NAME is that of the benchmark, and
ends in `-gpu` if it ran on one: so one page has the tables of both, and text beside them is kept.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.result import BASE, BASE_RATIO, BEST_RATIO, ON_GPU
from bridge_jax.errors import UserError


class Row(NamedTuple):
    """A case of a benchmark.

    Attributes:
      about: what it is.
      target: the least ratio to sdpa f32, or what its only ratio should be.
      what: its only ratio, where transformers is not beside it.
    """

    about: str
    target: str
    what: str = ""


ROWS = {
    "train": {
        "30M": Row("30M, 8 x 256 tokens", "1.1"),
        "135M": Row("135M, 8 x 256 tokens", "1.2; limit 80%"),
        "ragged": Row("30M, ragged", "2"),
        "1B": Row("1B, 2 x 2,048 tokens", "limit 50%"),
    },
    "score": {
        "30M": Row("30M, 16 x 256 tokens", ""),
        "135M": Row("135M, 16 x 256 tokens", "2"),
        "ragged-64": Row("30M, 64 ragged prompts", "2.6"),
        "ragged-256": Row("30M, 256 ragged prompts", "2.6"),
        "memory": Row("memory, 150,000 / 8,192 tokens", "1.1 at most", "150,000 / 8,192 tokens"),
        "1B": Row("1B, 8 x 2,048 tokens", "limit 60%"),
    },
    "generate": {
        "30M-1": Row("30M, batch 1", "2.5; limit 70%"),
        "30M-16": Row("30M, batch 16", "1.8"),
        "135M-16": Row("135M, batch 16", "1 to the best"),
        "ragged": Row("30M, ragged", "3"),
        "samples": Row("eight prompts / eight samples", "1.5", "eight prompts / ours"),
        "busy": Row("busy slots", "0.9", "share of slots and steps"),
        "1B-1": Row("1B, batch 1", "limit 60%"),
        "1B-64": Row("1B, batch 64", "1 to the best"),
    },
}
HEAD = f"| case | ratio to {BASE} | ratio to best torch | target | limit |\n|---|--:|--:|--:|--:|"
OPEN = "to be measured"


def put(page: str, found: dict[str, Any]) -> str:
    """Returns the page with the table of a result in its place.

    Raises:
      UserError: the page has no place for it.
    """
    name = found["name"] + ("-gpu" if found["on_gpu"] else "")
    place = re.compile(f"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
    if not place.search(page):
        raise UserError(f"the page has no <!-- {name} --> with a <!-- /{name} --> after it")
    return place.sub(lambda match: f"{match[1]}{table(found)}\n{match[2]}", page)


def table(found: dict[str, Any]) -> str:
    """Returns a result as Markdown: the machine, what it can do, and a line for each case."""
    peak = found["peak"]
    machine = (
        f"{found['machine']}: products of matrices at {peak['jax_flops_per_second'] / 1e9:,.0f} "
        f"GFLOP/s in JAX and {peak['torch_flops_per_second'] / 1e9:,.0f} in torch, and "
        f"{peak['bytes_per_second'] / 1e9:,.1f} GB/s. The process took up to "
        f"{peak['rss_mib']:,} MiB for both sides of all cases.\n"
    )
    rows = [
        (case, row)
        for case, row in ROWS[found["name"]].items()
        if (case in ON_GPU) == found["on_gpu"]
    ]
    return "\n".join([machine, HEAD, *(_line(*row, found) for row in rows)])


def _line(case: str, row: Row, found: dict[str, Any]) -> str:
    def ratio(what: str) -> str:
        if not (value := found["ratios"].get(f"{case}: {what}")):
            return OPEN
        if value["low"] == value["high"]:
            return f"{value['median']:.2f}"
        return f"{value['median']:.2f} [{value['low']:.2f}-{value['high']:.2f}]"

    if row.what:
        return f"| {row.about} | {ratio(row.what)} | | {row.target} | |"
    base, best = ratio(BASE_RATIO), ratio(BEST_RATIO)
    if which := found["absolute"].get(f"{case}: best torch"):
        best += f" ({which})"
    share = found["absolute"].get(f"{case}: share of the limit")
    limit = "" if share is None else f"{share:.0%}"
    return f"| {row.about} | {base} | {best} | {row.target} | {limit} |"


def read(path: Path) -> dict[str, Any]:
    """Returns a result.

    Raises:
      UserError: the file is not what one of the benchmarks of the page prints.
    """
    try:
        found = json.loads(path.read_text())
        table(found)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not a result of benchmarks.train, score or generate with --json "
            f"({type(error).__name__}: {error}); measure it again"
        ) from error
    return found


def main(page: Path, results: list[Path]) -> None:
    """Rewrites the page."""
    text = page.read_text()
    for path in results:
        text = put(text, read(path))
    page.write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("results", type=Path, nargs="+")
    options = parser.parse_args()
    try:
        main(options.page, options.results)
    except UserError as error:
        sys.exit(f"error: {error}")
