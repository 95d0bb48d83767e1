"""Checkpoints on disk: where they are, their config and their tensors, not yet read."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bridge_jax.errors import UserError
from bridge_jax.models import composite, names, weight_files
from bridge_jax.models.families import complete
from bridge_jax.models.gguf_file import bundled_smollm2, open_gguf
from bridge_jax.models.weight_files import read_json

# What is fetched from the hub; neither pickles nor code are.
_HUB_COPIES = ["consolidated*", "original/*"]  # the same weights in their makers' own format
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja", "tokenizer*", "*.txt"]


class Source(NamedTuple):
    """An open checkpoint.

    Attributes:
      path: the folder or file.
      hf_config: its config.json, complete.
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
    """Returns the config.json of a folder, or what a GGUF file says in its place, complete.

    Of a checkpoint with images it is that of the language model. Where the head is said to be the
    embedding, but the weights have another head, `tie_word_embeddings` is false.

    Raises:
      UserError: there is none, it is damaged, or the model is not supported.
    """
    if path.suffix == ".gguf":
        return complete(open_gguf(path).hf_config(), str(path))
    return _folder_config(path)[0]


def open_source(path: Path) -> Source:
    """Returns the checkpoint at `path`.

    Raises:
      UserError: it is of a family that we do not know, or not readable.
    """
    if path.suffix == ".gguf":
        hf, file = read_hf_config(path), open_gguf(path)
        return Source(path, hf, names.GGUF[hf["model_type"]], file.shapes(), file.tensor)
    hf, parts = _folder_config(path)
    tensors = weight_files.open_all(weight_files.find(path), parts)
    return Source(path, hf, names.HF[hf["model_type"]], tensors.shapes, tensors.read)


def is_composite(path: Path) -> bool:
    """Returns whether the checkpoint at `path` has other parts than its language model.

    Raises:
      UserError: as by `read_hf_config`.
    """
    return path.suffix != ".gguf" and _folder_config(path)[1] is not composite.ALONE


def _folder_config(folder: Path) -> tuple[dict[str, Any], composite.Parts]:
    """Returns the complete config.json of the language model, and where its tensors are."""
    file = folder / "config.json"
    if not file.is_file():
        weight_files.refuse_adapter(folder)
        raise UserError(f"{folder}: has no config.json")
    hf = read_json(file)
    if "assistant" in hf and "student" in hf:
        raise UserError(
            f"{folder}: is the workdir of a run, not a model; python -m launch.export "
            f"--workdir={folder} --role=student --out=DIR makes one of it"
        )
    hf, parts = composite.text_config(hf, str(file))
    hf = complete(hf, str(file))
    if hf["tie_word_embeddings"] and any(folder.glob("*.safetensors")):
        has_own_head = weight_files.has_own_head(folder, hf["model_type"], parts)
        hf["tie_word_embeddings"] = not has_own_head
    return hf, parts
