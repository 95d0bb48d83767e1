"""Pretrained weights into our parameters: safetensors folders and GGUF files.

Tensors are read one at a time: beyond the parameters themselves no more than one is in memory.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import einops
import flax.linen as nn
import jax
import numpy as np

from bridge_jax.config import ModelConfig
from bridge_jax.errors import UserError
from bridge_jax.models import decoder, names
from bridge_jax.models.config import DecoderConfig, from_hf
from bridge_jax.models.gguf_file import bundled_smollm2, open_gguf

# Harmless extras: constants that older exports kept, and the copy of a tied embedding.
_IGNORED = re.compile(r"rotary_emb\.inv_freq$|^lm_head\.weight$")


class Source(NamedTuple):
    """A checkpoint on disk, its tensors not yet read."""

    path: Path
    hf_config: dict[str, Any]
    table: tuple[names.Tensor, ...]
    names: set[str]
    read: Callable[[str], np.ndarray]


def locate(checkpoint: str) -> Path:
    """Returns the folder or GGUF file that `checkpoint` names."""
    path = bundled_smollm2() if checkpoint == "smollm2-135m" else Path(checkpoint)
    if not path.exists():
        raise UserError(
            f"checkpoint {checkpoint!r}: no such folder or file; give a folder with config.json "
            "and *.safetensors, a .gguf file, or 'smollm2-135m'"
        )
    return path


def load(model: ModelConfig) -> tuple[DecoderConfig, dict[str, Any]]:
    """Returns the config and the f32 parameters (numpy) of a checkpoint, cut to `keep_layers`.

    Raises:
      UserError: the checkpoint is missing, truncated, of another family, or has other tensors
        than its config promises (all are listed).
    """
    source = _open(locate(model.checkpoint))
    config = from_hf(source.hf_config)
    layers = _kept_layers(model, config)
    rows = [row for row in source.table if row.ours != ("head",) or not config.tied]
    expected = {row.theirs.format(i=i) for row in rows for i in range(config.num_layers)}
    if missing := sorted(expected - source.names):
        raise UserError(f"{source.path}: tensors are missing: {', '.join(missing)}")
    if extra := sorted(n for n in source.names - expected if not _IGNORED.search(n)):
        raise UserError(
            f"{source.path}: has tensors that a plain Llama has not: {', '.join(extra)}; without "
            "them it would be another model, so it is not supported"
        )

    shapes = nn.unbox(jax.eval_shape(functools.partial(decoder.init, config), jax.random.key(0)))
    sizes = {"N": config.num_heads, "K": config.num_kv_heads, "two": 2}
    params: dict[str, Any] = {}
    for row in rows:
        words = set(re.findall(r"\w+", row.pattern))
        axes = {name: size for name, size in sizes.items() if name in words}
        stacked = "{i}" in row.theirs
        shape = functools.reduce(dict.__getitem__, row.ours, shapes).shape[stacked:]
        tensors = [
            _rearranged(source, row.theirs.format(i=i), row.pattern, axes, shape)
            for i in (layers if stacked else (0,))
        ]
        value = np.stack(tensors) if stacked else tensors[0]
        node = params
        for part in row.ours[:-1]:
            node = node.setdefault(part, {})
        node[row.ours[-1]] = value
    return dataclasses.replace(config, num_layers=len(layers)), params


def _rearranged(
    source: Source, name: str, pattern: str, axes: dict[str, int], shape: tuple[int, ...]
) -> np.ndarray:
    value = source.read(name)
    try:
        ours = einops.rearrange(value, pattern, **axes)
    except einops.EinopsError:
        ours = None
    if ours is None or ours.shape != shape:
        raise UserError(f"{source.path}: {name} has shape {value.shape}, against its config")
    return ours


def read_config(model: ModelConfig) -> DecoderConfig:
    """Returns the config of a checkpoint, cut to `keep_layers`; no tensor is read."""
    path = locate(model.checkpoint)
    is_gguf = path.suffix == ".gguf"
    config = from_hf(open_gguf(path).hf_config() if is_gguf else _read_hf_config(path))
    return dataclasses.replace(config, num_layers=len(_kept_layers(model, config)))


def _kept_layers(model: ModelConfig, config: DecoderConfig) -> tuple[int, ...]:
    if bad := [i for i in model.keep_layers if not 0 <= i < config.num_layers]:
        raise UserError(
            f"keep_layers={bad}: {model.checkpoint} has layers 0 to {config.num_layers - 1}"
        )
    return model.keep_layers or tuple(range(config.num_layers))


def _open(path: Path) -> Source:
    if path.suffix == ".gguf":
        file = open_gguf(path)
        return Source(path, file.hf_config(), names.LLAMA_GGUF, file.names(), file.tensor)
    return _open_safetensors(path)


def _open_safetensors(folder: Path) -> Source:
    from safetensors import SafetensorError, safe_open

    hf_config = _read_hf_config(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder}: has no *.safetensors; pickled checkpoints are not read")
    where = {}
    for file in files:
        try:
            handle = safe_open(file, framework="flax")
        except SafetensorError as error:
            raise UserError(f"{file}: truncated or not safetensors ({error})") from error
        where |= dict.fromkeys(handle.keys(), handle)

    def read(name: str) -> np.ndarray:
        return np.asarray(where[name].get_tensor(name), np.float32)

    return Source(folder, hf_config, names.LLAMA_HF, set(where), read)


def _read_hf_config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: has no config.json")
    return json.loads((folder / "config.json").read_text())
