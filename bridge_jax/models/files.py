"""Checkpoints on disk: where they are, their config and their tensors, not yet read."""

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bridge_jax.errors import UserError
from bridge_jax.models import names
from bridge_jax.models.gguf_file import bundled_smollm2, open_gguf

# What is fetched from the hub; neither pickles nor code are.
_HUB_COPIES = ["consolidated*", "original/*"]  # the same weights in their makers' own format
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja", "tokenizer*", "*.txt"]


class Source(NamedTuple):
    """An open checkpoint.

    Attributes:
      path: the folder or file.
      hf_config: its config.json.
      table: where its tensors belong.
      shapes: of each tensor, by name.
      read: name -> the tensor.
    """

    path: Path
    hf_config: dict[str, Any]
    table: tuple[names.Tensor, ...]
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]


def locate(checkpoint: str) -> Path:
    """Returns the folder or GGUF file that `checkpoint` names; a hub id is downloaded once.

    Raises:
      UserError: there is none, or the hub cannot be reached.
    """
    path = bundled_smollm2() if checkpoint == "smollm2-135m" else Path(checkpoint)
    if path.exists():
        return path
    if is_hub_id(checkpoint):
        return _from_hub(checkpoint)
    raise UserError(
        f"checkpoint {checkpoint!r}: no such folder or file; give a folder with config.json "
        "and *.safetensors, a .gguf file, a hub id as ORGANISATION/NAME, or 'smollm2-135m'"
    )


def is_hub_id(checkpoint: str) -> bool:
    """Returns whether `checkpoint` reads as ORGANISATION/NAME."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", checkpoint) is not None


@functools.cache  # The hub is asked once a process: a run does not change its base half-way.
def _from_hub(checkpoint: str) -> Path:
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            checkpoint, allow_patterns=_HUB_FILES, ignore_patterns=_HUB_COPIES
        )
        return Path(folder)
    except Exception as error:  # The hub's client and its HTTP library raise many kinds.
        raise UserError(
            f"checkpoint {checkpoint!r}: no such folder, and it cannot be had from the Hugging "
            f"Face hub ({type(error).__name__}: {str(error)[:200]}); for a gated "
            "model accept its terms and set HF_TOKEN"
        ) from error


def read_hf_config(path: Path) -> dict[str, Any]:
    """Returns the config.json of a folder, or what a GGUF file says in its place.

    Raises:
      UserError: there is none, or it is damaged.
    """
    if path.suffix == ".gguf":
        return open_gguf(path).hf_config()
    if not (path / "config.json").is_file():
        raise UserError(f"{path}: has no config.json")
    return _read_json(path / "config.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); download it again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: a JSON object is expected, not {type(value).__name__}")
    return value


def open_source(path: Path) -> Source:
    """Returns the checkpoint at `path`.

    Raises:
      UserError: it is of a family that we do not know, or not readable.
    """
    hf_config = read_hf_config(path)
    is_gguf = path.suffix == ".gguf"
    tables = names.GGUF if is_gguf else names.HF
    family = hf_config.get("model_type")
    if "assistant" in hf_config and "student" in hf_config:
        raise UserError(
            f"{path}: is the workdir of a run, not a model; python -m launch.export "
            f"--workdir={path} --role=student --out=DIR makes one of it"
        )
    if family not in tables:
        kind = "GGUF" if is_gguf else "safetensors"
        raise UserError(
            f"{path}: model_type={family!r} is not supported in {kind}; supported: "
            f"{', '.join(tables)}"
        )
    if is_gguf:
        file = open_gguf(path)
        return Source(path, hf_config, tables[family], file.shapes(), file.tensor)
    return Source(path, hf_config, tables[family], *_open_safetensors(path))


def _open_safetensors(
    folder: Path,
) -> tuple[dict[str, tuple[int, ...]], Callable[[str], np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    where, shapes = {}, {}
    for file in _safetensors_files(folder):
        if not file.is_file():
            raise UserError(f"{file}: missing, though the index names it; download it again")
        try:
            handle = safe_open(file, framework="np")
        except SafetensorError as error:
            raise UserError(f"{file}: truncated or not safetensors ({error})") from error
        for name in handle.keys():  # noqa: SIM118 - it is no dict
            where[name] = handle
            shapes[name] = tuple(handle.get_slice(name).get_shape())
    return shapes, lambda name: where[name].get_tensor(name)


def _safetensors_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map: dict[str, str] = _read_json(index).get("weight_map", {})
        return sorted({folder / name for name in weight_map.values()})
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder}: has no *.safetensors; pickled checkpoints are not read")
    return files
