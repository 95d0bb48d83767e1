"""The published config.json of checkpoints in common use, by hub id.

Presets allow planning a run, counting its parameters and testing without downloads, even for gated
models: `hf_config.from_hf(presets.hf_config("Qwen/Qwen2.5-7B-Instruct"))`. A run itself reads the
config.json beside the weights; only its mesh sizes may be based on a preset.

A preset omits entries that equal the class default (`families`), entries that `from_hf` does not
read (token ids, initializers, dropout), and the window that Qwen2.5 names but does not use.
`torch_dtype` is the dtype of the published weights.
"""

import copy
from typing import Any

from bridge_jax.errors import UserError

_LLAMA2 = {
    "model_type": "llama",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
    "torch_dtype": "float16",
}
_SMOLLM2 = _LLAMA2 | {
    "rope_theta": 100_000,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_LLAMA31 = _LLAMA2 | {
    "rope_theta": 500_000.0,
    "rope_scaling": _LLAMA3_ROPE,
    "max_position_embeddings": 131_072,
    "torch_dtype": "bfloat16",
}
_LLAMA32 = _LLAMA31 | {
    "rope_scaling": _LLAMA3_ROPE | {"factor": 32.0},
    "tie_word_embeddings": True,
}
_MISTRAL = {
    "model_type": "mistral",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 32_768,
    "torch_dtype": "bfloat16",
}
_QWEN25 = {
    "model_type": "qwen2",
    "rope_theta": 1_000_000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
_QWEN3 = _QWEN25 | {"model_type": "qwen3", "max_position_embeddings": 40_960}
_GEMMA2 = {"model_type": "gemma2", "torch_dtype": "bfloat16"}
_GEMMA3 = {
    "model_type": "gemma3_text",
    "sliding_window": 512,
    "max_position_embeddings": 32_768,
    "torch_dtype": "bfloat16",
}
_UNTIED = {"tie_word_embeddings": False}


_SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "intermediate_size",
)  # fmt: skip


def _sizes(*sizes: int) -> dict[str, Any]:
    return dict(zip(_SIZES, sizes, strict=True))


# The columns are V, D, L, N, K, F: vocabulary, model, layers, heads, kv heads, mlp.
PRESETS: dict[str, dict[str, Any]] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": _SMOLLM2 | _sizes(49152, 576, 30, 9, 3, 1536),
    "HuggingFaceTB/SmolLM2-360M-Instruct": _SMOLLM2 | _sizes(49152, 960, 32, 15, 5, 2560),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": _SMOLLM2
    | _sizes(49152, 2048, 24, 32, 32, 8192)
    | {"rope_theta": 130_000},
    "Qwen/Qwen2.5-0.5B-Instruct": _QWEN25 | _sizes(151936, 896, 24, 14, 2, 4864),
    "Qwen/Qwen2.5-1.5B-Instruct": _QWEN25 | _sizes(151936, 1536, 28, 12, 2, 8960),
    "Qwen/Qwen2.5-3B-Instruct": _QWEN25 | _sizes(151936, 2048, 36, 16, 2, 11008),
    "Qwen/Qwen2.5-7B-Instruct": _QWEN25 | _UNTIED | _sizes(152064, 3584, 28, 28, 4, 18944),
    "Qwen/Qwen2.5-14B-Instruct": _QWEN25 | _UNTIED | _sizes(152064, 5120, 48, 40, 8, 13824),
    "Qwen/Qwen3-0.6B": _QWEN3 | _sizes(151936, 1024, 28, 16, 8, 3072),
    "Qwen/Qwen3-1.7B": _QWEN3 | _sizes(151936, 2048, 28, 16, 8, 6144),
    "Qwen/Qwen3-8B": _QWEN3 | _UNTIED | _sizes(151936, 4096, 36, 32, 8, 12288),
    "meta-llama/Llama-2-7b-chat-hf": _LLAMA2 | _sizes(32000, 4096, 32, 32, 32, 11008),
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA31 | _sizes(128256, 4096, 32, 32, 8, 14336),
    "meta-llama/Llama-3.2-1B-Instruct": _LLAMA32 | _sizes(128256, 2048, 16, 32, 8, 8192),
    "meta-llama/Llama-3.2-3B-Instruct": _LLAMA32 | _sizes(128256, 3072, 28, 24, 8, 8192),
    "mistralai/Mistral-7B-Instruct-v0.1": _MISTRAL | _sizes(32000, 4096, 32, 32, 8, 14336),
    "mistralai/Mistral-7B-Instruct-v0.3": _MISTRAL
    | _sizes(32768, 4096, 32, 32, 8, 14336)
    | {"rope_theta": 1_000_000.0, "sliding_window": None},
    "google/gemma-2-2b-it": _GEMMA2 | _sizes(256000, 2304, 26, 8, 4, 9216),
    "google/gemma-2-9b-it": _GEMMA2 | _sizes(256000, 3584, 42, 16, 8, 14336),
    "google/gemma-3-270m-it": _GEMMA3 | _sizes(262144, 640, 18, 4, 1, 2048),
    "google/gemma-3-1b-it": _GEMMA3 | _sizes(262144, 1152, 26, 4, 1, 6912),
}


def hf_config(hub_id: str) -> dict[str, Any]:
    """Returns a copy of the published `config.json` of a checkpoint.

    Raises:
      UserError: there is no preset for it; the message lists the presets.
    """
    if hub_id not in PRESETS:
        raise UserError(f"no preset for {hub_id!r}; available: {', '.join(PRESETS)}")
    return copy.deepcopy(PRESETS[hub_id])
