"""Tiny random models of every family, made by transformers (needs torch)."""

from pathlib import Path
from typing import Any

VOCAB = 128
_SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}
_GEMMA2 = {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 7, "num_hidden_layers": 4}
_GEMMA3 = _GEMMA2 | {"num_hidden_layers": 7}

# name -> (family, changes to the small config)
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": False}),
    "llama_tied_one_kv_head": ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "llama_all_heads": ("llama", {"num_key_value_heads": 4, "hidden_size": 40}),
    "llama_wide_heads": (
        "llama",
        {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 24, "hidden_size": 40},
    ),
    "llama_rope_theta": (
        "llama",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "head_dim": 16},
    ),
    "llama3_rope": ("llama", {"rope_parameters": _LLAMA3, "head_dim": 16}),
    "llama_linear_rope": ("llama", {"rope_parameters": _LINEAR}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral_window": ("mistral", {"sliding_window": 5}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2_untied": ("qwen2", {"tie_word_embeddings": False, "num_key_value_heads": 1}),
    "qwen2_window": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", {"tie_word_embeddings": True, "head_dim": 16}),
    "qwen3_untied": ("qwen3", {"tie_word_embeddings": False, "num_key_value_heads": 4}),
    "gemma2": ("gemma2", _GEMMA2),
    "gemma2_small_caps": (
        "gemma2",
        _GEMMA2 | {"attn_logit_softcapping": 0.5, "final_logit_softcapping": 1.0},
    ),
    "gemma3": ("gemma3_text", _GEMMA3),
    "gemma3_scaled": (
        "gemma3_text",
        _GEMMA3
        | {
            "num_key_value_heads": 1,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
            },
        },
    ),
}


def make(shape: str, folder: Path, dtype: str = "float32", **more: Any) -> Any:
    """Writes the model of `shape`, with `more` changes; returns transformers' own."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    family, changes = SHAPES[shape]
    config = AutoConfig.for_model(family, **{**_SMALL, **changes, **more})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        # Wide enough that every part matters: biases and norms are drawn too.
        for name, tensor in model.named_parameters():
            offset = 1.0 if "norm" in name and not family.startswith("gemma") else 0.0
            tensor.normal_(offset, 0.15)
    model = model.to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size="30KB")  # several files and an index
    return load(folder)  # whose rotary frequencies are f32, unlike those of a model cast to bf16


def load(folder: Path) -> Any:
    """Returns transformers' model of a folder, in the dtype that its config names."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
