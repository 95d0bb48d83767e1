"""Checkpoints on disk: their location, their config, and their tensors, which are read on request.

Opening safetensors files reads only their headers, except to compare a head with the embedding.
"""

import functools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from bridge_jax.errors import UserError
from bridge_jax.models.hub.families import COMPOSITES, FAMILIES, TEXT_ONLY, Parts, Tensor
from bridge_jax.models.hub.gguf_file import bundled_smollm2, open_gguf
from bridge_jax.models.hub.hf_config import complete

GENERATION_CONFIG = "generation_config.json"
# Files to fetch from the hub: no pickles, no code.
_HUB_COPIES = ["consolidated*", "original/*"]  # the same weights in their makers' own format
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja", "tokenizer*", "*.txt", "README.md"]
_FRONT_MATTER = re.compile(r"---\n(.{0,20000}?)\n---\n", re.DOTALL)
# A file in the same folder: no "..", no "/".
_FILE_NAME = re.compile(r"\w[\w.+-]{0,199}\.safetensors", re.ASCII)
_DTYPES = ("F32", "BF16", "F16", "F64")
_COMPARED_AT_ONCE = 1 << 22  # entries
_GGUF_ENDS = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))
# Top-level keys of a composite that override its text_config, where they may be mere defaults.
_OF_THE_WHOLE = (
    "dtype",
    "torch_dtype",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "quantization_config",
)


class Source(NamedTuple):
    """An open checkpoint.

    Attributes:
      path: the folder or file.
      hf_config: its config.json, complete.
      table: the tensors of the family, with the names of this file format.
      shapes: shape of each tensor, by name.
      rows: (name, first, last) -> rows of the tensor, up to but not including `last`.
    """

    path: Path
    hf_config: dict[str, Any]
    table: tuple[Tensor, ...]
    shapes: dict[str, tuple[int, ...]]
    rows: Callable[[str, int, int], np.ndarray]


class StoredTensors(NamedTuple):
    """The tensors of a language model in safetensors files, which are read on request.

    Attributes:
      shapes: shape of each tensor, by name.
      where: name -> (open file, name in that file).
    """

    shapes: dict[str, tuple[int, ...]]
    where: dict[str, tuple[Any, str]]

    def rows(self, name: str, first: int, last: int) -> np.ndarray:
        """Returns rows of one tensor, f[at most last - first, ...]; no other rows are read."""
        file, theirs = self.where[name]
        return file.get_slice(theirs)[first : min(last, self.shapes[name][0])]


def locate(checkpoint: str) -> Path:
    """Returns the folder or GGUF file that `checkpoint` names; a hub id is downloaded once.

    Raises:
      UserError: it does not exist, or the hub cannot be reached.
    """
    path = bundled_smollm2() if checkpoint == "smollm2-135m" else Path(checkpoint)
    if path.exists():
        return path
    if is_hub_id(checkpoint):
        return _from_hub(checkpoint)
    raise UserError(
        f"checkpoint {checkpoint!r}: no such folder or file; give a folder with config.json "
        "and *.safetensors, a .gguf file, a hub id as ORGANIZATION/NAME, or 'smollm2-135m'"
    )


def licence_of(path: Path) -> str:
    """Returns the licence that a model's own metadata names, such as "apache-2.0"; "" if none.

    Args:
      path: a folder, whose model card is read, or a GGUF file, whose header is read.
    """
    if path.is_file():
        found = open_gguf(path).metadata.get("general.license")
    else:
        try:
            card = (path / "README.md").read_text(encoding="utf-8")
            front = _FRONT_MATTER.match(card.replace("\r\n", "\n"))
            found = yaml.safe_load(front[1]).get("license") if front else ""
        except (OSError, ValueError, AttributeError, RecursionError, yaml.YAMLError):
            return ""
    return found if isinstance(found, str) and re.fullmatch(r"[\w.+-]{1,80}", found) else ""


def is_hub_id(checkpoint: str) -> bool:
    """Returns whether `checkpoint` has the form ORGANISATION/NAME."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", checkpoint) is not None


@functools.cache  # Asked once per process, so that a run never changes its base midway.
def _from_hub(checkpoint: str) -> Path:
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            checkpoint, allow_patterns=_HUB_FILES, ignore_patterns=_HUB_COPIES
        )
        return Path(folder)
    except Exception as error:  # The hub's client and its HTTP library raise many error types.
        raise UserError(
            f"checkpoint {checkpoint!r}: no such folder, and it cannot be downloaded from the "
            f"Hugging Face hub ({type(error).__name__}: {str(error)[:200]}); for a gated "
            "model, accept its terms and set HF_TOKEN"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
      UserError: the file cannot be read, or does not hold a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); download it again") from error
    except OSError as error:
        raise UserError(_unreadable(path, error)) from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def read_hf_config(path: Path) -> dict[str, Any]:
    """Returns the complete config.json of a folder, or its equivalent from a GGUF header.

    For a multimodal checkpoint it is the config of the language model. `tie_word_embeddings` is
    false if the weights have a head that differs from the embedding, whatever the config says.

    Raises:
      UserError: there is no config, it is damaged, or the model is not supported.
    """
    if path.suffix == ".gguf":
        return complete(open_gguf(path).hf_config(), str(path))
    return _folder_config(path)[0]


def open_source(path: Path) -> Source:
    """Returns the checkpoint at `path`.

    Raises:
      UserError: its family is not supported, or a file is not readable.
    """
    if path.suffix == ".gguf":
        hf, file = read_hf_config(path), open_gguf(path)
        return Source(path, hf, FAMILIES[hf["model_type"]].gguf, file.shapes(), file.rows)
    hf, parts = _folder_config(path)
    stored = _open_all(_find(path), parts)
    return Source(path, hf, FAMILIES[hf["model_type"]].tensors, stored.shapes, stored.rows)


def is_composite(path: Path) -> bool:
    """Returns whether the checkpoint at `path` has parts besides its language model.

    Raises:
      UserError: as by `read_hf_config`.
    """
    return path.suffix != ".gguf" and _folder_config(path)[1] is not TEXT_ONLY


def read_end_ids(path: Path, rows: int) -> list[int]:
    """Returns the end tokens that a checkpoint's configs name, in order, without duplicates.

    Args:
      path: a folder or a GGUF file.
      rows: number of rows of its embedding table.

    Raises:
      UserError: one of them is not an index of the table.
    """
    if path.suffix == ".gguf":
        metadata = open_gguf(path).metadata
        given = {f"{path}: {key}": metadata.get(key) for key in _GGUF_ENDS}
    else:
        given = {f"{path / 'config.json'}: eos_token_id": read_hf_config(path).get("eos_token_id")}
        file = path / GENERATION_CONFIG
        if file.is_file():
            given[f"{file}: eos_token_id"] = read_json(file).get("eos_token_id")
    found: dict[int, None] = {}
    for where, value in given.items():
        for i in value if isinstance(value, list) else [value]:
            if i is None:
                continue
            if not isinstance(i, int) or isinstance(i, bool) or not 0 <= i < rows:
                raise UserError(
                    f"{where}={value!r}: {i!r} is not a token of the model, whose embedding table "
                    f"has {rows:,} rows; set it to the end-of-text token ids, or remove the key"
                )
            found[i] = None
    return list(found)


def _folder_config(folder: Path) -> tuple[dict[str, Any], Parts]:
    """Returns the complete config.json of the language model, and the prefixes of its tensors."""
    file = folder / "config.json"
    if not file.is_file():
        _refuse_adapter(folder)
        raise UserError(f"{folder}: has no config.json")
    hf = read_json(file)
    if "assistant" in hf and "student" in hf:
        raise UserError(
            f"{folder}: is the workdir of a run, not a model; export one with python -m "
            f"launch.export --workdir={folder} --role=student --out=DIR"
        )
    hf, parts = _text_config(hf, str(file))
    hf = complete(hf, str(file))
    if hf["tie_word_embeddings"] and any(folder.glob("*.safetensors")):
        stamped = []
        for weights in _find(folder):
            stat = weights.stat()
            stamped.append((weights, stat.st_mtime_ns, stat.st_size))
        hf["tie_word_embeddings"] = not _has_own_head(tuple(stamped), hf["model_type"], parts)
    return hf, parts


def _text_config(hf: dict[str, Any], where: str) -> tuple[dict[str, Any], Parts]:
    """Returns the config.json of the language model alone, and the prefixes of its tensors.

    Raises:
      UserError: the checkpoint is a composite that cannot be read.
    """
    family, given = hf.get("model_type"), hf.get("text_config")
    is_known = isinstance(family, str) and family in COMPOSITES
    if not is_known and not any(f"{part}_config" in hf for part in ("text", "vision", "audio")):
        return hf, TEXT_ONLY
    if is_known and isinstance(given or {}, dict):
        whole = {key: hf[key] for key in _OF_THE_WHOLE if hf.get(key) is not None}
        text: dict[str, Any] = {"model_type": f"{family}_text"} | (given or {}) | whole
        if isinstance(text.get("dtype"), dict):  # one dtype per part
            text["dtype"] = text["dtype"].get("text_config")
        text["architectures"] = [FAMILIES[f"{family}_text"].architecture]
        return text, COMPOSITES[str(family)]
    inner = given.get("model_type") if isinstance(given, dict) else None
    said = f"{where}: model_type={family!r} has a language model among other parts"
    if not isinstance(inner, str) or inner not in FAMILIES:
        raise UserError(
            f"{said} (of type {inner!r}), which is not supported; use a text-only checkpoint of "
            f"{', '.join(FAMILIES)}"
        )
    raise UserError(
        f"{said}; save it on its own, and use that folder:\n"
        "  from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, "
        "AutoTokenizer\n"
        "  whole = AutoModelForImageTextToText.from_pretrained(IN, dtype='auto')\n"
        "  text = AutoModelForCausalLM.from_config(whole.config.text_config, dtype=whole.dtype)\n"
        "  text.model = whole.model.language_model; text.lm_head = whole.lm_head\n"
        "  text.save_pretrained(OUT); AutoTokenizer.from_pretrained(IN).save_pretrained(OUT)"
    )


def _refuse_adapter(folder: Path) -> None:
    """Raises a `UserError` that says how to merge it, if a folder holds only an adapter."""
    file = folder / "adapter_config.json"
    if not file.is_file():
        return
    base = read_json(file).get("base_model_name_or_path")
    raise UserError(
        f"{folder}: is an adapter of {base!r}, not a model; merge the two, and use the new "
        "folder:\n"
        "  from peft import AutoPeftModelForCausalLM\n"
        "  from transformers import AutoTokenizer\n"
        f"  whole = AutoPeftModelForCausalLM.from_pretrained({str(folder)!r})\n"
        "  whole.merge_and_unload().save_pretrained(OUT)\n"
        f"  AutoTokenizer.from_pretrained({base!r}).save_pretrained(OUT)"
    )


def _find(folder: Path) -> list[Path]:
    """Returns the safetensors files of a folder.

    Raises:
      UserError: there are none, or the index is damaged or names files that are not there.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():  # which transformers prefers
        return [whole]
    if index.is_file():
        return _files_of_index(index)
    files = sorted(folder.glob("model*.safetensors")) or sorted(
        file for file in folder.glob("*.safetensors") if not file.name.startswith("adapter_")
    )
    if not files:
        _refuse_adapter(folder)
        raise UserError(f"{folder}: has no *.safetensors; pickled checkpoints are not supported")
    return files


def _files_of_index(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index}: weight_map must be an object, tensor -> file; download it again")
    for name in weight_map.values():
        if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
            raise UserError(
                f"{index}: {str(name)[:60]!r} is not the name of a safetensors file beside it"
            )
    files = sorted({index.parent / name for name in weight_map.values()})
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: missing, though the index names it; download it again")
    return files


def _open_all(files: list[Path], parts: Parts) -> StoredTensors:
    """Returns the language model's tensors in `files`, named as in a checkpoint of it alone.

    Raises:
      UserError: a file is truncated or not safetensors, or a tensor is there twice or has an
        unsupported dtype.
    """
    from safetensors import SafetensorError, safe_open

    tensors = StoredTensors({}, {})
    for file in files:
        try:
            handle = safe_open(file, framework="np")
        except OSError as error:
            raise UserError(_unreadable(file, error)) from error
        except SafetensorError as error:
            raise UserError(_damaged(file, error)) from error
        for theirs in handle.keys():  # noqa: SIM118 - it is no dict
            name = parts.own_name(theirs)
            if name is None:
                continue
            if name in tensors.where:
                raise UserError(
                    f"{file}: the tensor {theirs} is also in another file; keep only the files of "
                    "one checkpoint in the folder"
                )
            header = handle.get_slice(theirs)
            if (dtype := header.get_dtype()) not in _DTYPES:
                raise UserError(
                    f"{file}: {theirs} is stored as {dtype}; supported: {', '.join(_DTYPES)}; for "
                    "a quantized model, use the checkpoint that it was made from"
                )
            tensors.shapes[name] = tuple(header.get_shape())
            tensors.where[name] = handle, theirs
    return tensors


@functools.lru_cache(maxsize=16)  # A call may read the two largest tensors of a model.
def _has_own_head(stamped: tuple[tuple[Path, int, int], ...], family: str, parts: Parts) -> bool:
    """Returns whether the files have a head that differs from the embedding.

    `stamped` also has each file's modification time and size, so changed files are compared again.
    """
    names = {row.ours: row.theirs for row in FAMILIES[family].tensors}
    head, embedding = names["head"], names["embedding"]
    tensors = _open_all([file for file, *_ in stamped], parts)
    if head not in tensors.shapes or embedding not in tensors.shapes:
        return False
    shape = tensors.shapes[embedding]
    if tensors.shapes[head] != shape:
        return True
    count, *row = shape or (1,)
    step = max(1, _COMPARED_AT_ONCE // max(1, math.prod(row)))
    for first in range(0, count, step):
        theirs, looked_up = (
            tensors.rows(name, first, first + step).astype(np.float32) for name in (head, embedding)
        )
        if not np.array_equal(theirs, looked_up, equal_nan=True):
            return True
    return False


def _unreadable(file: Path, error: OSError) -> str:
    return (
        f"{file}: cannot be read ({error.strerror or error}); check its permissions, or download "
        "it again"
    )


def _damaged(file: Path, error: Exception) -> str:
    with file.open("rb") as opened:
        start = opened.read(40)
    if start.startswith(b"version https://git-lfs"):
        return f"{file}: is a Git LFS pointer, not the weights; run `git lfs pull`"
    return f"{file}: truncated or not safetensors ({error}); download it again"
