"""Export of our parameters as a folder that transformers loads, or an adapter that PEFT loads.

The tables for import (`families`) are read from right to left. A folder is written under a
temporary name beside its final one, and renamed when complete; existing files are not touched.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import einops
import huggingface_hub
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError

from bridge_jax.errors import UserError
from bridge_jax.models import projection
from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.hub.families import FAMILIES, Tensor, named_tensors
from bridge_jax.models.hub.files import GENERATION_CONFIG, is_composite, is_hub_id, locate
from bridge_jax.models.hub.hf_config import complete

SHARD_BYTES = 4 << 30


@contextlib.contextmanager
def folder(out: Path) -> Iterator[Path]:
    """Yields a folder to write into, which becomes `out` if the block ends without an error.

    Raises:
      UserError: `out` exists, or the disk is full or cannot be written.
    """
    if out.exists():
        raise UserError(f"--out={out}: already exists; choose a new folder")
    partial = None
    missing = [parent for parent in out.parents if not parent.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        partial.chmod(0o755)
        yield partial
        partial.rename(out)
    except (OSError, SafetensorError) as error:  # safetensors raises its own error.
        why = getattr(error, "strerror", None) or error
        raise UserError(f"--out={out}: {why}; free some space or choose another place") from error
    finally:
        if partial:
            shutil.rmtree(partial, ignore_errors=True)
        if not out.exists():
            for parent in missing:  # the innermost first
                with contextlib.suppress(OSError):
                    parent.rmdir()


def push(folder: Path, name: str, public: bool) -> str:
    """Uploads an exported folder to a repository of the Hugging Face hub; returns its URL.

    The token is the environment variable HF_TOKEN, and is never shown. An existing repository keeps
    its visibility.

    Args:
      folder: a folder that `launch.export` wrote.
      name: the repository, as ORGANISATION/NAME.
      public: whether a new repository is public.

    Raises:
      UserError: the name is malformed, there is no token, or the upload fails. The folder stays.
    """
    token = check_token(name)
    try:
        hub = huggingface_hub.HfApi(token=token)
        hub.create_repo(name, private=not public, exist_ok=True)
        hub.upload_folder(repo_id=name, folder_path=folder)
        return f"{hub.endpoint}/{name}"
    except Exception as error:  # The hub's client and its HTTP library raise many error types.
        why = (str(error).strip().splitlines() or [""])[0].replace(token, "HF_TOKEN")
        again = f"hf upload {name} {folder}" + ("" if public else " --private")
        raise UserError(
            f"--push={name}: {folder} was written, but the upload failed "
            f"({type(error).__name__}: {why[:200]}). To try again: {again}"
        ) from None  # The exception chain might show the token.


def check_token(name: str) -> str:
    """Returns the hub's token; raises a `UserError` if it is missing or `name` is malformed."""
    if not is_hub_id(name):
        raise UserError(f"--push={name}: give the repository as ORGANIZATION/NAME")
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        raise UserError(
            f"--push={name} needs a token: set the environment variable HF_TOKEN to one that may "
            "write (https://huggingface.co/settings/tokens)"
        )
    return token


def write_model(
    out: Path, config: DecoderConfig, params: Any, hf_config: dict[str, Any], dtype: Any = None
) -> None:
    """Writes config.json and the weights; an adapter is merged, one tensor at a time.

    Args:
      out: an empty folder.
      config, params: the model.
      hf_config: config.json of the checkpoint that it came from, cut to the model's layers.
      dtype: dtype of the weights; None is the dtype in `hf_config`, or f32 if that has none.
    """
    hf_config = complete(hf_config)
    dtype = jnp.dtype(dtype or hf_config.get("dtype") or "float32")
    params = traverse_util.flatten_dict(params, sep="/")
    table = FAMILIES[hf_config["model_type"]].tensors
    tensors = {name: (row, layer) for name, row, layer in named_tensors(table, config)}
    split = huggingface_hub.split_state_dict_into_shards_factory(
        {name: _size(row, params) * dtype.itemsize for name, (row, _) in tensors.items()},
        get_storage_size=lambda size: size,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=SHARD_BYTES,
    )
    for file, names in split.filename_to_tensors.items():
        values = {name: _value(*tensors[name], config, params).astype(dtype) for name in names}
        _save(out / file, values)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        _write_json(out / "model.safetensors.index.json", index)
    said = {"dtype": dtype.name, "torch_dtype": dtype.name, "tie_word_embeddings": config.tied}
    _write_json(out / "config.json", hf_config | said)


def write_generation_config(
    out: Path, hf_config: dict[str, Any], end_ids: Sequence[int], pad_id: int
) -> None:
    """Writes generation_config.json: greedy decoding, with the end tokens used in training."""
    config = {
        "bos_token_id": hf_config.get("bos_token_id"),
        "eos_token_id": list(end_ids),
        "pad_token_id": pad_id,
        "do_sample": False,
    }
    kept = {key: value for key, value in config.items() if value is not None}
    _write_json(out / GENERATION_CONFIG, kept)


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
      UserError: the model has no adapter, or its base is a composite checkpoint, whose
        modules have other names in PEFT.
    """
    if config.lora is None:
        raise UserError("the model has no adapter: it was trained in full; export the full model")
    if is_composite(locate(base)):
        raise UserError(
            f"the adapter's base {base} has parts besides its language model, so PEFT uses other "
            "names for its modules; export the full model"
        )
    flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
    tensors, modules = {}, set()
    for name, row, layer in named_tensors(FAMILIES[hf_config["model_type"]].tensors, config):
        path = row.ours.removesuffix("/kernel")
        if f"{path}/lora_a" not in flat:
            continue
        module = name.removesuffix(".weight")
        modules.add(module.rsplit(".", 1)[-1])
        a, b = (np.asarray(flat[f"{path}/{side}"][layer]) for side in projection.MATRICES)
        rank = config.lora.rank
        prefix = f"base_model.model.{module}"
        tensors[f"{prefix}.lora_A.weight"] = np.ascontiguousarray(a.reshape(-1, rank).T)
        tensors[f"{prefix}.lora_B.weight"] = np.ascontiguousarray(b.reshape(rank, -1).T)
    _save(out / "adapter_model.safetensors", tensors)
    adapter_config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.lora.rank,
        "lora_alpha": config.lora.alpha,
        "lora_dropout": config.lora.dropout,
        "use_rslora": config.lora.rslora,
        "target_modules": sorted(modules),
        "bias": "none",
        "inference_mode": True,
    }
    _write_json(out / "adapter_config.json", adapter_config)


def _size(row: Tensor, params: dict[str, Any]) -> int:
    shape = params[row.ours].shape
    return int(np.prod(shape[1:] if row.stacked else shape))


def _value(row: Tensor, layer: int, config: DecoderConfig, params: dict[str, Any]) -> np.ndarray:
    """Returns one tensor in the layout of a checkpoint, with any adapter merged."""
    value = params[row.ours]
    if row.stacked:
        value = value[layer]
        path = row.ours.removesuffix("/kernel")
        if (scale := params.get(f"{path}/{projection.SCALE}")) is not None:
            value = projection.dequantized(value, scale[layer])
        if config.lora is not None and f"{path}/lora_a" in params:
            a, b = (params[f"{path}/{side}"][layer] for side in projection.MATRICES)
            value = projection.merge(config.lora, value, a, b)
    theirs, ours = row.pattern.split(" -> ")
    there = einops.rearrange(np.asarray(value), f"{ours} -> {theirs}", **row.axes(config))
    return np.ascontiguousarray(there)


def _save(file: Path, tensors: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    save_file(tensors, file, metadata={"format": "pt"})  # required by transformers
    file.chmod(0o644)  # like the other files; safetensors lets only the owner read it


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
