"""Our parameters into a folder that transformers loads, and what reads its format.

The tables that import a checkpoint are read from right to left. A folder is written beside its
final name and renamed when it is whole; nothing that was there before is touched.
"""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import einops
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError

from bridge_jax.config import LoraConfig
from bridge_jax.errors import UserError
from bridge_jax.models import lora, names
from bridge_jax.models.checkpoint import axes_of
from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.families import complete
from bridge_jax.models.files import is_composite, locate

SHARD_BYTES = 4 << 30


class Target(NamedTuple):
    """One tensor of a checkpoint to be: its name, and where it is taken from."""

    name: str
    row: names.Tensor
    layer: int


@contextlib.contextmanager
def folder(out: Path) -> Iterator[Path]:
    """Gives a folder to write into; it becomes `out` when the block ends without an error.

    Raises:
      UserError: `out` exists, or the disk is full or cannot be written.
    """
    if out.exists():
        raise UserError(f"--out={out}: exists already; name a new folder")
    partial = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        partial.chmod(0o755)
        yield partial
        partial.rename(out)
    except (OSError, SafetensorError) as error:  # What writes tensors has an error of its own.
        why = getattr(error, "strerror", None) or error
        raise UserError(f"--out={out}: {why}; free some space or choose another place") from error
    finally:
        if partial:
            shutil.rmtree(partial, ignore_errors=True)


def write_model(
    out: Path, config: DecoderConfig, params: Any, hf_config: dict[str, Any], dtype: Any = None
) -> None:
    """Writes config.json and the weights; an adapter is merged, one tensor at a time.

    Args:
      out: an empty folder.
      config, params: the model.
      hf_config: config.json of the checkpoint that it came from, cut to the layers it has.
      dtype: of the weights; None is that of the checkpoint it came from, f32 if it does not say.
    """
    hf_config = complete(hf_config)
    dtype = jnp.dtype(dtype or hf_config.get("dtype") or "float32")
    params = traverse_util.flatten_dict(params, sep="/")
    tensors = list(_tensors(config, hf_config))
    sizes = [_size(t, params) * dtype.itemsize for t in tensors]
    files = _files(sizes)
    weight_map = {}
    for number, members in enumerate(files, 1):
        name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        name = "model.safetensors" if len(files) == 1 else name
        _save(out / name, {tensors[i].name: _value(tensors[i], config, params, dtype)
                           for i in members})  # fmt: skip
        weight_map |= {tensors[i].name: name for i in members}
    if len(files) > 1:
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
        _write_json(out / "model.safetensors.index.json", index)
    said = {"dtype": dtype.name, "torch_dtype": dtype.name, "tie_word_embeddings": config.tied}
    _write_json(out / "config.json", hf_config | said)


def write_adapter(
    out: Path, config: DecoderConfig, params: Any, hf_config: dict[str, Any], base: str
) -> None:
    """Writes a LoRA adapter as PEFT does: adapter_config.json and adapter_model.safetensors.

    Args:
      out: an empty folder.
      config, params: the model with its adapter.
      hf_config: config.json of the base.
      base: the base model's folder or hub id, for the adapter's config.

    Raises:
      UserError: the model has no adapter, or a base that PEFT would not find it in.
    """
    if config.lora is None:
        raise UserError("the model has no adapter: it was trained in full; export the model")
    if is_composite(locate(base)):
        raise UserError(
            f"the adapter's base {base} has other parts than its language model, under other names "
            "in PEFT; export the model whole"
        )
    flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
    tensors, modules = {}, set()
    for tensor in _tensors(config, hf_config):
        path = tensor.row.ours.removesuffix("/kernel")
        if f"{path}/lora_a" not in flat:
            continue
        module = tensor.name.removesuffix(".weight")
        modules.add(module.rsplit(".", 1)[-1])
        a, b = (np.asarray(flat[f"{path}/{side}"][tensor.layer]) for side in lora.MATRICES)
        rank = config.lora.rank
        prefix = f"base_model.model.{module}"
        tensors[f"{prefix}.lora_A.weight"] = np.ascontiguousarray(a.reshape(-1, rank).T)
        tensors[f"{prefix}.lora_B.weight"] = np.ascontiguousarray(b.reshape(rank, -1).T)
    _save(out / "adapter_model.safetensors", tensors)
    _write_json(out / "adapter_config.json", _peft(config.lora, sorted(modules), base))


def _peft(config: LoraConfig, modules: list[str], base: str) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rslora,
        "target_modules": modules,
        "bias": "none",
        "inference_mode": True,
    }


def _tensors(config: DecoderConfig, hf_config: dict[str, Any]) -> Iterator[Target]:
    rows = names.HF[hf_config["model_type"]]
    rows = [row for row in rows if row.ours != "head" or not config.tied]
    for row in rows:
        if not row.stacked:
            yield Target(row.theirs, row, 0)
    for layer in range(config.num_layers):
        for row in rows:
            if row.stacked:
                yield Target(row.theirs.format(i=layer), row, layer)


def _size(tensor: Target, params: dict[str, Any]) -> int:
    shape = params[tensor.row.ours].shape
    return int(np.prod(shape[1:] if tensor.row.stacked else shape))


def _files(sizes: list[int]) -> list[list[int]]:
    """Returns which tensors share a file of at most `SHARD_BYTES`, in order."""
    files: list[list[int]] = [[]]
    filled = 0
    for index, size in enumerate(sizes):
        if files[-1] and filled + size > SHARD_BYTES:
            files.append([])
            filled = 0
        files[-1].append(index)
        filled += size
    return files


def _value(tensor: Target, config: DecoderConfig, params: dict[str, Any], dtype: Any) -> np.ndarray:
    value = params[tensor.row.ours]
    if tensor.row.stacked:
        value = value[tensor.layer]
        path = tensor.row.ours.removesuffix("/kernel")
        if config.lora is not None and f"{path}/lora_a" in params:
            a, b = (params[f"{path}/{side}"][tensor.layer] for side in lora.MATRICES)
            value = lora.merge(config.lora, value, a, b)
    ours = np.asarray(value)
    theirs, mine = tensor.row.pattern.split(" -> ")
    there = einops.rearrange(ours, f"{mine} -> {theirs}", **axes_of(tensor.row, config))
    return np.ascontiguousarray(there).astype(dtype)


def _save(file: Path, tensors: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    save_file(tensors, file, metadata={"format": "pt"})  # which transformers asks for
    file.chmod(0o644)  # as the other files are; safetensors lets nobody else read it


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
