"""Writes a copy of a model whose vocabulary is cut down to what the data of a config needs.

python -m launch.trim --config=my_task.py --out=models/student
python -m launch.run --config=my_task.py --student.checkpoint=models/student --workdir=runs/mine

A third to two thirds of a model under 1B are the rows of its vocabulary. The trimmed model reads
the texts of the data as before, token for token, and any other text in shorter tokens. transformers
loads it like any other. The test split is not read.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags, logging

from launch import settings
from launch.overrides import run_main

if TYPE_CHECKING:
    from bridge_jax.pipeline.artifacts import Role

_OUT = flags.DEFINE_string("out", None, "The folder to create.", required=True)
_ROLE = flags.DEFINE_enum("role", "student", ["student", "assistant"], "Which model to trim.")
_COMMON = flags.DEFINE_integer(
    "common", 8192, "Also keep this many of the tokenizer's most frequent tokens."
)


def main(assignments: list[str]) -> None:
    """Writes weights, config and tokenizer, and prints their sizes."""
    from bridge_jax.config import io as config_io

    config = config_io.override(config_io.load(settings.file()), settings.changes(assignments))
    # These imports take seconds, so a mistyped flag is reported before them.
    from rich.console import Console

    from bridge_jax import display
    from bridge_jax.methods.checks import validate
    from bridge_jax.methods.inputs import Inputs
    from bridge_jax.methods.trimming import trim
    from bridge_jax.pipeline.content import Hashes

    validate(config, has_data=bool(config.data.path))
    logging.set_verbosity(logging.WARNING)
    role: Role = _ROLE.value  # type: ignore[assignment]
    inputs = Inputs(config, Path(), None, Hashes())
    out = Path(_OUT.value)
    found = trim(inputs, getattr(config, role), role, _COMMON.value, out)
    display.say(
        Console(highlight=False),
        f"{out}: {found.tokens:,} of {found.tokens_before:,} tokens, "
        f"{found.params / 1e6:,.1f} of {found.params_before / 1e6:,.1f} million parameters. "
        f"Use it with --{role}.checkpoint={out}",
    )


if __name__ == "__main__":
    run_main(main)
