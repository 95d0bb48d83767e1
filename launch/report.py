"""Rebuilds `report.json` and `report.html` of a run from the files in its workdir.

python -m launch.report --workdir=runs/quickstart
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from rich.console import Console

from bridge_jax.errors import UserError
from bridge_jax.studies import report, terminal

WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.", required=True)


def main(argv: Sequence[str]) -> None:
    """Writes the two files and prints the summary; exits with 2 on a mistake of the user's."""
    try:
        if len(argv) > 1:
            raise UserError(f"unexpected argument {argv[1]!r}: pass --workdir=DIR")
        terminal.print_summary(report.write(Path(WORKDIR.value)), Console())
    except UserError as error:
        print(f"launch.report: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main)
