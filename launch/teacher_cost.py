"""Prints what the teacher of a config may cost, for the scripts that start runs on clusters.

    python -m launch.teacher_cost --config=configs/quickstart_gemini.py --budget.usd=0.1

The flags are those of `launch.run`; data and models need not be on this machine. The three lines
are: whether the teacher is paid (yes or no), the environment variables that may hold its key, and a
sentence.
"""

import argparse
import sys

from bridge_jax import display
from bridge_jax.config import API_TEACHERS
from bridge_jax.config.fields import check
from bridge_jax.config.io import load, override
from bridge_jax.errors import UserError
from launch.overrides import split

_KEYS = {"openai": "OPENAI_API_KEY", "gemini": "GEMINI_API_KEY GOOGLE_API_KEY"}


def lines(path: str, assignments: list[str]) -> list[str]:
    """Returns the three lines for the config in a file.

    Raises:
      UserError: the config cannot be read, or has a mistake.
    """
    config = override(load(path), assignments)
    check(config)
    teacher, budget = config.teacher, config.budget
    if teacher.kind not in API_TEACHERS or teacher.replay_from:
        return [
            "no",
            "",
            "The teacher costs nothing: it is a program, or its answers are recorded.",
        ]
    if teacher.free:
        return ["no", _KEYS[teacher.kind], f"The teacher {teacher.model} is marked as free."]
    cap = f"{budget.queries:,} queries and ${budget.usd:,.2f} at most"
    cap = f"The teacher {teacher.model} is paid: {cap} (budget.queries, budget.usd)."
    return ["yes", _KEYS[teacher.kind], cap]


if __name__ == "__main__":
    theirs, changes = split(sys.argv)
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--config", required=True)
    try:
        print(*lines(parser.parse_known_args(theirs[1:])[0].config, changes), sep="\n")
    except UserError as error:
        display.print_error(f"error: {error}")
        sys.exit(2)
