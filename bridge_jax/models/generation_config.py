"""Reads and writes the tokens at which a checkpoint ends a text: `eos_token_id` of its configs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridge_jax.errors import UserError
from bridge_jax.models.files import read_hf_config
from bridge_jax.models.gguf_file import open_gguf
from bridge_jax.models.weight_files import read_json

_FILE = "generation_config.json"
_GGUF = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))


def read_end_ids(path: Path, rows: int) -> list[int]:
    """Returns the tokens at which a checkpoint's configs end a text, each once, in their order.

    Args:
      path: a folder or a GGUF file.
      rows: of its embedding table.

    Raises:
      UserError: one of them is no token of the table.
    """
    if path.suffix == ".gguf":
        meta = open_gguf(path).metadata
        given = {f"{path}: {key}": meta.get(key) for key in _GGUF}
    else:
        given = {f"{path / 'config.json'}: eos_token_id": read_hf_config(path).get("eos_token_id")}
        file = path / _FILE
        if file.is_file():
            given[f"{file}: eos_token_id"] = read_json(file).get("eos_token_id")
    found: dict[int, None] = {}
    for where, value in given.items():
        for i in value if isinstance(value, list) else [value]:
            if i is None:
                continue
            if not isinstance(i, int) or isinstance(i, bool) or not 0 <= i < rows:
                raise UserError(
                    f"{where}={value!r}: {i!r} is no token of the model, whose embedding table has "
                    f"{rows:,} rows; write the ids there that end a text, or take the key out"
                )
            found[i] = None
    return list(found)


def write(out: Path, hf_config: dict[str, Any], end_ids: Sequence[int], pad_id: int) -> None:
    """Writes generation_config.json: greedy, ending where the model was taught to end and did."""
    config = {
        "bos_token_id": hf_config.get("bos_token_id"),
        "eos_token_id": list(end_ids),
        "pad_token_id": pad_id,
        "do_sample": False,
    }
    kept = {key: value for key, value in config.items() if value is not None}
    (out / _FILE).write_text(json.dumps(kept, indent=2) + "\n")
