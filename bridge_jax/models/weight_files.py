"""The safetensors files of a folder: which they are, what is in them, and whether the head is tied.

Only headers are read here, except where two tensors have to be compared.
"""

import functools
import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bridge_jax.errors import UserError
from bridge_jax.models import composite, names

# The same folder, and nothing else: no "..", no "/".
_FILE_NAME = re.compile(r"\w[\w.+-]{0,199}\.safetensors", re.ASCII)
_DTYPES = ("F32", "BF16", "F16", "F64")
_COMPARED_AT_ONCE = 1 << 22  # numbers


class Tensors(NamedTuple):
    """The tensors of a language model, not yet read.

    Attributes:
      shapes: by name.
      where: name -> (open file, the name there).
    """

    shapes: dict[str, tuple[int, ...]]
    where: dict[str, tuple[Any, str]]

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor."""
        file, theirs = self.where[name]
        return file.get_tensor(theirs)

    def rows(self, name: str, first: int, count: int) -> np.ndarray:
        """Returns f32[at most count, ...], rows of one tensor."""
        file, theirs = self.where[name]
        last = min(first + count, self.shapes[name][0])
        return np.asarray(file.get_slice(theirs)[first:last], np.float32)


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
      UserError: it cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); download it again") from error
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}); check its permissions, or "
            "download it again"
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: a JSON object is expected, not {type(value).__name__}")
    return value


def find(folder: Path) -> list[Path]:
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
        refuse_adapter(folder)
        raise UserError(f"{folder}: has no *.safetensors; pickled checkpoints are not read")
    return files


def refuse_adapter(folder: Path) -> None:
    """Says how a folder that holds an adapter alone becomes a model.

    Raises:
      UserError: it holds an adapter.
    """
    file = folder / "adapter_config.json"
    if not file.is_file():
        return
    base = read_json(file).get("base_model_name_or_path")
    raise UserError(
        f"{folder}: is an adapter of {base!r}, not a model; merge the two, and give the new "
        "folder:\n"
        "  from peft import AutoPeftModelForCausalLM\n"
        "  from transformers import AutoTokenizer\n"
        f"  whole = AutoPeftModelForCausalLM.from_pretrained({str(folder)!r})\n"
        "  whole.merge_and_unload().save_pretrained(OUT)\n"
        f"  AutoTokenizer.from_pretrained({base!r}).save_pretrained(OUT)"
    )


def open_all(files: list[Path], parts: composite.Parts) -> Tensors:
    """Returns the language model's tensors in `files`, under the names of a model alone.

    Raises:
      UserError: a file is truncated or no safetensors, a tensor is there twice, or of a type that
        is not read.
    """
    from safetensors import SafetensorError, safe_open

    tensors = Tensors({}, {})
    for file in files:
        try:
            handle = safe_open(file, framework="np")
        except OSError as error:
            raise UserError(
                f"{file}: cannot be read ({error}); check its permissions, or download it again"
            ) from error
        except SafetensorError as error:
            raise UserError(_damaged(file, error)) from error
        for theirs in handle.keys():  # noqa: SIM118 - it is no dict
            name = composite.own_name(theirs, parts)
            if name is None:
                continue
            if name in tensors.where:
                raise UserError(
                    f"{file}: the tensor {theirs} is in another file as well; keep the files of "
                    "one checkpoint in the folder"
                )
            header = handle.get_slice(theirs)
            if (dtype := header.get_dtype()) not in _DTYPES:
                raise UserError(
                    f"{file}: {theirs} is stored as {dtype}; supported: {', '.join(_DTYPES)}; of a "
                    "quantised model give the checkpoint that it was made from"
                )
            tensors.shapes[name] = tuple(header.get_shape())
            tensors.where[name] = handle, theirs
    return tensors


def has_own_head(folder: Path, family: str, parts: composite.Parts) -> bool:
    """Returns whether the files have a head, and it is another matrix than the embedding.

    Raises:
      UserError: a file cannot be read.
    """
    stamped = []
    for file in find(folder):
        stat = file.stat()
        stamped.append((file, stat.st_mtime_ns, stat.st_size))
    return _has_own_head(tuple(stamped), family, parts)


@functools.lru_cache(maxsize=16)  # It may read the two largest tensors of a model.
def _has_own_head(
    stamped: tuple[tuple[Path, int, int], ...], family: str, parts: composite.Parts
) -> bool:
    head, embedding = (
        next(row.theirs for row in names.HF[family] if row.ours == ours)
        for ours in ("head", "embedding")
    )
    tensors = open_all([file for file, *_ in stamped], parts)
    if head not in tensors.shapes or embedding not in tensors.shapes:
        return False
    shape = tensors.shapes[embedding]
    if tensors.shapes[head] != shape:
        return True
    count, *row = shape or (1,)
    step = max(1, _COMPARED_AT_ONCE // max(1, math.prod(row)))
    return any(
        not np.array_equal(
            tensors.rows(head, first, step), tensors.rows(embedding, first, step), equal_nan=True
        )
        for first in range(0, count, step)
    )


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


def _damaged(file: Path, error: Exception) -> str:
    with file.open("rb") as opened:
        start = opened.read(40)
    if start.startswith(b"version https://git-lfs"):
        return f"{file}: holds a pointer of Git LFS in place of the weights; run `git lfs pull`"
    return f"{file}: truncated or not safetensors ({error}); download it again"
