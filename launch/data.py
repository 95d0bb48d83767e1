r"""Shows what a run would read: faults, splits, lengths, and what each model sees of the data.

python -m launch.data --config=configs/medical_cpu.py --data.path=pubmedqa.jsonl
python -m launch.data --data.path=tickets.csv --write=tickets_config.py \
    --teacher.model=gpt-5-mini --teacher.usd_per_million_input=0.25 \
    --teacher.usd_per_million_output=2

Without a config, the format, the columns and the kind of the answers are guessed from the file, and
the guesses are printed; `--write` writes a config for the file, including the flags that were
given. Tokenizers are loaded, but no weights; nothing is sent or paid, and no key is needed.
"""

import dataclasses
import json
from pathlib import Path

from absl import flags, logging

from launch import settings
from launch.overrides import run_main

_WRITE = flags.DEFINE_string("write", "", "Write a config for the data to this Python file.")
_FORCE = flags.DEFINE_bool("force", False, "Let --write replace a file.")
_ROWS = flags.DEFINE_integer("rows", 1, "Examples to show as each model sees them.", lower_bound=0)
_JSON = flags.DEFINE_bool("json", False, "Print JSON for programs.")


def main(assignments: list[str]) -> None:
    """Inspects the data of a config or of a file, and writes a config if asked to."""
    from bridge_jax.config.fields import check
    from bridge_jax.config.io import load, override
    from bridge_jax.errors import UserError

    _check_flags(assignments)
    config = None
    if settings.is_given():
        config = override(load(settings.file()), settings.changes(assignments))
    # These imports take seconds, so a mistyped flag is reported before them.
    from rich.console import Console

    from bridge_jax.config import RunConfig
    from bridge_jax.data import guessing
    from bridge_jax.data.rows import BadRowsError
    from bridge_jax.planning import inspection, proposal

    logging.set_verbosity(logging.WARNING)
    console = Console(highlight=False, stderr=_JSON.value)
    data = (config or override(RunConfig(), assignments)).data
    said: tuple[str, ...] = ()
    if config is None:
        given = [a.partition("=")[0].removeprefix("data.") for a in assignments]
        data, said = guessing.guess(data, given)
        config = override(proposal.starting(data), assignments)
    check(config)
    for guessed in said:
        inspection.say(console, f"Guessed: {guessed}")
    try:
        seen = inspection.inspect(config)
    except BadRowsError as error:
        if not error.bad.cause:
            inspection.show_bad_rows(console, error.bad, data.path)
        raise UserError(str(error).partition("\n")[0]) from None
    if not settings.is_given():
        longest = max(seen.most.values())
        config = proposal.fitted(config, seen.max_prompt_tokens, longest, seen.splits)
        config = override(config, assignments)
        seen = dataclasses.replace(seen, config=config)
    inspection.show_bad_rows(console, seen.splits.bad, data.path)
    if _JSON.value:
        print(json.dumps(seen.to_json(), indent=2))
    else:
        inspection.show(console, seen, _ROWS.value)
    if _WRITE.value:
        told = proposal.docstring(config, _WRITE.value, seen.splits)
        Path(_WRITE.value).write_text(proposal.as_python(config, told), "utf-8")
        inspection.say(console, f"\nWrote {_WRITE.value}; its first lines say how to run it.")


def _check_flags(assignments: list[str]) -> None:
    """Raises a `UserError` for flags that do not go together."""
    from bridge_jax.errors import UserError

    if not settings.is_given() and not any(a.startswith("data.path=") for a in assignments):
        raise UserError(
            "name a config with --config, or a file of your own with --data.path=FILE (.csv, "
            ".jsonl, .parquet) or a dataset on the hub"
        )
    if not _WRITE.value:
        return
    file = Path(_WRITE.value)
    if settings.is_given():
        raise UserError("--write writes a config for data that has none; leave out --config")
    if file.exists() and not _FORCE.value:
        raise UserError(f"--write={file} exists; name another file, or replace it with --force")
    if not file.parent.is_dir():
        raise UserError(f"--write={file}: there is no folder {file.parent}")


if __name__ == "__main__":
    run_main(main)
