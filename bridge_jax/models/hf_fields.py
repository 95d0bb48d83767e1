"""The keys of a config.json that make a model: their types, their ranges, and the class defaults.

A config.json leaves out what equals the default of its class in transformers, so a key that is
missing has the value below, which may differ from one family to the next.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from bridge_jax.errors import UserError

_SIZES = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "max_position_embeddings": 2048,
}
_PLAIN = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "rope_scaling": None,
    "rope_parameters": None,
    "tie_word_embeddings": False,
}
_LLAMA = _SIZES | _PLAIN
_QWEN = _LLAMA | {
    "vocab_size": 151_936,
    "intermediate_size": 22_016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32_768,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "layer_types": None,
}
_GEMMA2 = {key: value for key, value in _LLAMA.items() if key != "hidden_act"} | {
    "vocab_size": 256_000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 8192,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "sliding_window": 4096,
    "layer_types": None,
    "tie_word_embeddings": True,
}

# What each family's class reads, with its defaults (transformers 4.57 and 5 agree on all of them).
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "mistral": _LLAMA
    | {
        "intermediate_size": 14_336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
    },
    "qwen2": _QWEN,
    "qwen3": _QWEN | {"head_dim": 128},
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2
    | {
        "vocab_size": 262_208,
        "max_position_embeddings": 131_072,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "sliding_window_pattern": 6,
    },
}

LAYER_TYPES = ("full_attention", "sliding_attention")
DTYPES = ("float32", "bfloat16", "float16", "float64")
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}


class Kind(NamedTuple):
    """Describes the allowed values of a key, in words and as a test."""

    said: str
    fits: Callable[[Any], bool]


def _whole(low: int, high: int) -> Kind:
    def fits(value: Any) -> bool:
        return type(value) is int and low <= value <= high

    return Kind(f"a whole number from {low:,} to {high:,}", fits)


def _number(low: float, high: float) -> Kind:
    def fits(value: Any) -> bool:
        return type(value) in (int, float) and low <= value <= high

    return Kind(f"a number from {low:g} to {high:g}", fits)


def _list_of(kind: Kind, said: str) -> Kind:
    return Kind(said, lambda value: isinstance(value, list) and all(map(kind.fits, value)))


_ID = _whole(0, (1 << 31) - 1)
_WORD = Kind("a string", lambda value: isinstance(value, str))
_FLAG = Kind("true or false", lambda value: isinstance(value, bool))
_OBJECT = Kind("an object", lambda value: isinstance(value, dict))
_LAYER_TYPE = Kind("a kind of layer", lambda value: value in LAYER_TYPES)
_WHOLE_HEAD = Kind("1: rotating a part of each head is not supported", lambda value: value == 1)
_DTYPE = Kind(
    " or ".join(DTYPES),
    lambda value: isinstance(value, str) and value.removeprefix("torch.") in DTYPES,
)
# The largest sizes are far above any published model, and small enough to be multiplied.
_TOKENS = _whole(1, (1 << 31) - 1)
_HEADS = _whole(1, 1 << 14)

KINDS: dict[str, Kind] = {
    "vocab_size": _whole(1, 1 << 24),
    "hidden_size": _whole(1, 1 << 20),
    "intermediate_size": _whole(1, 1 << 22),
    "num_hidden_layers": _whole(1, 1 << 12),
    "num_attention_heads": _HEADS,
    "num_key_value_heads": _HEADS,
    "head_dim": Kind(
        "an even number from 2 to 16,384", lambda value: _HEADS.fits(value) and value % 2 == 0
    ),
    "max_position_embeddings": _TOKENS,
    "hidden_act": _WORD,
    "hidden_activation": _WORD,
    "rms_norm_eps": _number(0, 1),
    "rope_theta": _number(1, 1e15),
    "rope_local_base_freq": _number(1, 1e15),
    "rope_scaling": _OBJECT,
    "rope_parameters": _OBJECT,
    "tie_word_embeddings": _FLAG,
    "use_sliding_window": _FLAG,
    "sliding_window": _TOKENS,
    "sliding_window_pattern": _TOKENS,
    "max_window_layers": _whole(0, 1 << 31),
    "layer_types": _list_of(_LAYER_TYPE, f"a list of {' and '.join(LAYER_TYPES)}"),
    "query_pre_attn_scalar": _number(1e-3, 1e9),
    "attn_logit_softcapping": _number(1e-3, 1e9),
    "final_logit_softcapping": _number(1e-3, 1e9),
}
# Read for every family, where they are given.
_SHARED = {
    "architectures": _list_of(_WORD, "a list of names"),
    "dtype": _DTYPE,
    "torch_dtype": _DTYPE,
    "partial_rotary_factor": _WHOLE_HEAD,
    "bos_token_id": _ID,
    "eos_token_id": Kind(
        "a token id, or a list of them",
        lambda value: all(map(_ID.fits, value if isinstance(value, list) else [value])),
    ),
}
# The parts of rope_scaling and rope_parameters.
_ROPE = {
    "rope_type": _WORD,
    "type": _WORD,
    "rope_theta": KINDS["rope_theta"],
    "factor": _number(1, 1e6),
    "original_max_position_embeddings": _TOKENS,
    "low_freq_factor": _number(1e-3, 1e6),
    "high_freq_factor": _number(1e-3, 1e6),
    "partial_rotary_factor": _WHOLE_HEAD,
}
_NULL_IS_NONE = {
    "rope_scaling",
    "rope_parameters",
    "layer_types",
    "sliding_window",
    "attn_logit_softcapping",
    "final_logit_softcapping",
}
_NULL_IS_DERIVED = {
    "head_dim": ("llama", "mistral", "qwen2"),
    "num_key_value_heads": ("llama", "mistral", "qwen2", "qwen3"),
}


def with_defaults(hf: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns a config.json with the class defaults of its family in place of missing keys.

    Args:
      hf: of a family in `DEFAULTS`.
      where: names the file in errors.

    Raises:
      UserError: a value is of another type, or out of its range.
    """
    family = hf["model_type"]
    hf = DEFAULTS[family] | hf
    for key in DEFAULTS[family]:
        derived = family in _NULL_IS_DERIVED.get(key, ())
        if hf[key] is not None or not (derived or key in _NULL_IS_NONE):
            require(KINDS[key], hf[key], key, where)
    for key, kind in _SHARED.items():
        if hf.get(key) is not None:
            require(kind, hf[key], key, where)
    return hf


def check_rope(given: dict[str, Any], key: str, where: str) -> None:
    """Checks the parts of `rope_scaling`, or of `rope_parameters` for one kind of layer.

    Raises:
      UserError: one is of another type, or out of its range.
    """
    for name, kind in _ROPE.items():
        if name in given:
            require(kind, given[name], f"{key}.{name}", where)


def require(kind: Kind, value: Any, key: str, where: str) -> None:
    """Checks one value.

    Raises:
      UserError: it is not of `kind`.
    """
    if kind.fits(value):
        return
    shown = "[...]" if isinstance(value, list) else "{...}"
    if not isinstance(value, list | dict):
        shown = json.dumps(value)[:60]
    raise UserError(f"{where}: {key}={shown} must be {kind.said}")
