"""The model families that can be read and written, as a table with one row per family.

Another table lists their tensors: our parameter path, an einops pattern from their axes to ours,
and their names in files. `{i}` is the layer index. The pattern of a per-layer tensor describes one
layer; our parameter stacks all layers along a leading axis. Read from right to left, the same
pattern exports.
"""

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from bridge_jax.models.config import DecoderConfig


class Tensor(NamedTuple):
    """One tensor of a checkpoint.

    Attributes:
      theirs: its name in the files.
      ours: our parameter path.
      pattern: einops pattern from their axes to ours.
      added: constant that the files add to each entry.
    """

    theirs: str
    ours: str
    pattern: str
    added: float = 0.0

    @property
    def stacked(self) -> bool:
        """Returns whether there is one such tensor per layer."""
        return "{i}" in self.theirs

    def axes(self, config: DecoderConfig) -> dict[str, int]:
        """Returns the size of each axis of the pattern."""
        sizes = {
            "V": config.vocab_size,
            "D": config.model_dim,
            "N": config.num_heads,
            "K": config.num_kv_heads,
            "H": config.head_dim,
            "F": config.mlp_dim,
            "half": config.head_dim // 2,
            "two": 2,
        }
        return {name: sizes[name] for name in re.findall(r"\w+", self.pattern)}

    def shape(self, config: DecoderConfig) -> tuple[int, ...]:
        """Returns the shape of the tensor in a checkpoint."""
        sizes, theirs = self.axes(config), self.pattern.partition(" -> ")[0]
        return tuple(
            math.prod(sizes[name] for name in re.findall(r"\w+", axis))
            for axis in re.findall(r"\([^)]*\)|\w+", theirs)
        )


class Family(NamedTuple):
    """One model family.

    Attributes:
      architecture: its class in transformers.
      defaults: the config.json keys that the class reads, with the class defaults (transformers
        4.57 and 5 agree on all of them).
      traits: fields of `DecoderConfig` that are the same in all its models.
      gguf: its tensors in GGUF files; empty if its GGUF files are not supported.
    """

    architecture: str
    defaults: dict[str, Any]
    traits: dict[str, Any]
    gguf: tuple[Tensor, ...] = ()

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Its tensors in safetensors files."""
        return _tensors(self.traits)


# Our path of a tensor, the pattern, and its names in safetensors and in GGUF files.
_TensorNames = tuple[str, str, str, str]
_WHOLE: list[_TensorNames] = [
    ("embedding", "V D -> V D", "model.embed_tokens.weight", "token_embd.weight"),
    ("final_norm/scale", "D -> D", "model.norm.weight", "output_norm.weight"),
    ("head", "V D -> V D", "lm_head.weight", "output.weight"),
]
_LAYER: list[_TensorNames] = [
    ("attention_norm/scale", "D -> D", "input_layernorm.weight", "attn_norm.weight"),
    ("attention/query/kernel", "(N H) D -> D N H", "self_attn.q_proj.weight", "attn_q.weight"),
    ("attention/key/kernel", "(K H) D -> D K H", "self_attn.k_proj.weight", "attn_k.weight"),
    ("attention/value/kernel", "(K H) D -> D K H", "self_attn.v_proj.weight", "attn_v.weight"),
    ("attention/out/kernel", "D (N H) -> N H D", "self_attn.o_proj.weight", "attn_output.weight"),
    ("mlp/gate/kernel", "F D -> D F", "mlp.gate_proj.weight", "ffn_gate.weight"),
    ("mlp/up/kernel", "F D -> D F", "mlp.up_proj.weight", "ffn_up.weight"),
    ("mlp/down/kernel", "D F -> F D", "mlp.down_proj.weight", "ffn_down.weight"),
]
_PRE_NORM: list[_TensorNames] = [
    ("mlp_norm/scale", "D -> D", "post_attention_layernorm.weight", "ffn_norm.weight"),
]
# Rows that depend on a trait.
_POST_NORMS: list[_TensorNames] = [
    (
        "attention_post_norm/scale",
        "D -> D",
        "post_attention_layernorm.weight",
        "post_attention_norm.weight",
    ),
    ("mlp_norm/scale", "D -> D", "pre_feedforward_layernorm.weight", "ffn_norm.weight"),
    (
        "mlp_post_norm/scale",
        "D -> D",
        "post_feedforward_layernorm.weight",
        "post_ffw_norm.weight",
    ),
]
_QKV_BIAS: list[_TensorNames] = [
    ("attention/query/bias", "(N H) -> N H", "self_attn.q_proj.bias", "attn_q.bias"),
    ("attention/key/bias", "(K H) -> K H", "self_attn.k_proj.bias", "attn_k.bias"),
    ("attention/value/bias", "(K H) -> K H", "self_attn.v_proj.bias", "attn_v.bias"),
]
_QK_NORM: list[_TensorNames] = [
    ("attention/query_norm/scale", "H -> H", "self_attn.q_norm.weight", "attn_q_norm.weight"),
    ("attention/key_norm/scale", "H -> H", "self_attn.k_norm.weight", "attn_k_norm.weight"),
]


def _tensors(traits: dict[str, Any], is_gguf: bool = False) -> tuple[Tensor, ...]:
    """Returns the tensors of a model with these traits, named as in GGUF or safetensors files."""
    layer = _LAYER + (_POST_NORMS if traits.get("post_norms") else _PRE_NORM)
    if traits.get("qkv_bias"):
        layer = layer + _QKV_BIAS
    if traits.get("qk_norm"):
        layer = layer + _QK_NORM
    rows = [(ours, pattern, names[is_gguf]) for ours, pattern, *names in _WHOLE]
    prefix = "blk.{i}." if is_gguf else "model.layers.{i}."
    for ours, pattern, *names in layer:
        rows.append((f"layers/{ours}", pattern, prefix + names[is_gguf]))
    # llama.cpp has only one form of the norm, so its files store Gemma's scale with the 1 added.
    offset = traits.get("norm_offset", 0.0) if is_gguf else 0.0
    return tuple(
        Tensor(theirs, ours, pattern, offset if ours.endswith("norm/scale") else 0.0)
        for ours, pattern, theirs in rows
    )


def _interleaved(row: Tensor) -> Tensor:
    """Returns a row in llama.cpp's layout for Llama, with the rotary halves interleaved."""
    if not row.ours.endswith(("query/kernel", "key/kernel")):
        return row
    heads = row.pattern[1]
    return row._replace(pattern=f"({heads} half two) D -> D {heads} (two half)")


_LLAMA = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "max_position_embeddings": 2048,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "rope_scaling": None,
    "rope_parameters": None,
    "tie_word_embeddings": False,
}
_MISTRAL = _LLAMA | {
    "intermediate_size": 14_336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "sliding_window": 4096,
}
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
_GEMMA3 = _GEMMA2 | {
    "vocab_size": 262_208,
    "max_position_embeddings": 131_072,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "sliding_window_pattern": 6,
}
_GEMMA_TRAITS = {
    "norm_offset": 1.0,
    "post_norms": True,
    "activation": "gelu_tanh",
    "scale_embedding": True,
}

_QKV_BIASES, _QK_NORMS = {"qkv_bias": True}, {"qk_norm": True}
_GEMMA3_TRAITS = _GEMMA_TRAITS | _QK_NORMS
FAMILIES: dict[str, Family] = {
    "llama": Family("LlamaForCausalLM", _LLAMA, {}, tuple(map(_interleaved, _tensors({}, True)))),
    "mistral": Family("MistralForCausalLM", _MISTRAL, {}),
    "qwen2": Family("Qwen2ForCausalLM", _QWEN, _QKV_BIASES, _tensors(_QKV_BIASES, True)),
    "qwen3": Family(
        "Qwen3ForCausalLM", _QWEN | {"head_dim": 128}, _QK_NORMS, _tensors(_QK_NORMS, True)
    ),
    "gemma2": Family("Gemma2ForCausalLM", _GEMMA2, _GEMMA_TRAITS),
    "gemma3_text": Family(
        "Gemma3ForCausalLM", _GEMMA3, _GEMMA3_TRAITS, _tensors(_GEMMA3_TRAITS, True)
    ),
}


class Parts(NamedTuple):
    """Prefixes of tensor names in a checkpoint that has parts besides its language model.

    Attributes:
      text: pairs (their prefix, the prefix in a checkpoint of the language model alone).
      other: prefixes of tensors outside the language model, which are not read.
    """

    text: tuple[tuple[str, str], ...] = ()
    other: tuple[str, ...] = ()

    def own_name(self, name: str) -> str | None:
        """Returns a tensor's name in the language model alone; None if it is not part of that."""
        if name.startswith(self.other):
            return None
        for theirs, ours in self.text:
            if name.startswith(theirs):
                return ours + name.removeprefix(theirs)
        return name


TEXT_ONLY = Parts()
# By model_type. The hub and transformers use the first prefixes, other writers the module names.
COMPOSITES = {
    "gemma3": Parts(
        (
            ("language_model.model.", "model."),
            ("language_model.lm_head.", "lm_head."),
            ("model.language_model.", "model."),
        ),
        (
            "vision_tower.",
            "multi_modal_projector.",
            "model.vision_tower.",
            "model.multi_modal_projector.",
        ),
    ),
}


def named_tensors(
    table: tuple[Tensor, ...], config: DecoderConfig
) -> Iterator[tuple[str, Tensor, int]]:
    """Yields (name, row, layer) for each tensor of a model; per-layer tensors come last."""
    rows = [row for row in table if row.ours != "head" or not config.tied]
    for row in rows:
        if not row.stacked:
            yield row.theirs, row, 0
    for layer in range(config.num_layers):
        for row in rows:
            if row.stacked:
                yield row.theirs.format(i=layer), row, layer
