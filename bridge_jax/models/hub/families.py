"""The families of models that are read and written: one row of a table for each.

A tensor's entry is (their name, our path, einops pattern from their axes to ours). `{i}` is the
layer; the pattern of a layer's tensor describes one layer, and ours has all layers stacked in
front. Read from right to left the same pattern exports.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from bridge_jax.models.config import DecoderConfig


class Tensor(NamedTuple):
    """One tensor: their name, our path and how their axes become ours."""

    theirs: str
    ours: str
    pattern: str

    @property
    def stacked(self) -> bool:
        """Whether there is one for each layer."""
        return "{i}" in self.theirs

    def axes(self, config: DecoderConfig) -> dict[str, int]:
        """Returns the sizes that the pattern needs to take axes apart."""
        sizes = {"N": config.num_heads, "K": config.num_kv_heads, "two": 2}
        names = re.findall(r"\w+", self.pattern)
        return {name: size for name, size in sizes.items() if name in names}


class Family(NamedTuple):
    """One family.

    Attributes:
      architecture: its class in transformers.
      defaults: the keys of a config.json that the class reads, with the class defaults
        (transformers 4.57 and 5 agree on all of them).
      tensors: their names in safetensors files.
      traits: fields of `DecoderConfig` that are the same in all its models.
      gguf: names of its tensors in GGUF files; none where those are not read.
    """

    architecture: str
    defaults: dict[str, Any]
    tensors: tuple[Tensor, ...]
    traits: dict[str, Any]
    gguf: tuple[Tensor, ...] = ()


def _table(prefix: str, layer: str, rows: dict[str, tuple[str, str]]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            theirs.replace("L.", layer, 1) if theirs.startswith("L.") else prefix + theirs,
            ours.replace("L/", "layers/", 1),
            pattern,
        )
        for theirs, (ours, pattern) in rows.items()
    )


def _hf(rows: dict[str, tuple[str, str]]) -> tuple[Tensor, ...]:
    head = Tensor("lm_head.weight", "head", "V D -> V D")
    return (*_table("model.", "model.layers.{i}.", _HF | rows), head)


_PLAIN = "D -> D"
_HF = {
    "embed_tokens.weight": ("embedding", "V D -> V D"),
    "norm.weight": ("final_norm/scale", _PLAIN),
    "L.input_layernorm.weight": ("L/attention_norm/scale", _PLAIN),
    "L.self_attn.q_proj.weight": ("L/attention/query/kernel", "(N H) D -> D N H"),
    "L.self_attn.k_proj.weight": ("L/attention/key/kernel", "(K H) D -> D K H"),
    "L.self_attn.v_proj.weight": ("L/attention/value/kernel", "(K H) D -> D K H"),
    "L.self_attn.o_proj.weight": ("L/attention/out/kernel", "D (N H) -> N H D"),
    "L.mlp.gate_proj.weight": ("L/mlp/gate/kernel", "F D -> D F"),
    "L.mlp.up_proj.weight": ("L/mlp/up/kernel", "F D -> D F"),
    "L.mlp.down_proj.weight": ("L/mlp/down/kernel", "D F -> F D"),
}
_HF_PRE_NORM = {"L.post_attention_layernorm.weight": ("L/mlp_norm/scale", _PLAIN)}
_HF_FOUR_NORMS = {
    "L.post_attention_layernorm.weight": ("L/attention_post_norm/scale", _PLAIN),
    "L.pre_feedforward_layernorm.weight": ("L/mlp_norm/scale", _PLAIN),
    "L.post_feedforward_layernorm.weight": ("L/mlp_post_norm/scale", _PLAIN),
}
_HF_QKV_BIAS = {
    "L.self_attn.q_proj.bias": ("L/attention/query/bias", "(N H) -> N H"),
    "L.self_attn.k_proj.bias": ("L/attention/key/bias", "(K H) -> K H"),
    "L.self_attn.v_proj.bias": ("L/attention/value/bias", "(K H) -> K H"),
}
_HF_QK_NORM = {
    "L.self_attn.q_norm.weight": ("L/attention/query_norm/scale", "H -> H"),
    "L.self_attn.k_norm.weight": ("L/attention/key_norm/scale", "H -> H"),
}

_GGUF = {
    "token_embd.weight": ("embedding", "V D -> V D"),
    "output.weight": ("head", "V D -> V D"),
    "output_norm.weight": ("final_norm/scale", _PLAIN),
    "L.attn_norm.weight": ("L/attention_norm/scale", _PLAIN),
    "L.ffn_norm.weight": ("L/mlp_norm/scale", _PLAIN),
    "L.attn_v.weight": ("L/attention/value/kernel", "(K H) D -> D K H"),
    "L.attn_output.weight": ("L/attention/out/kernel", "D (N H) -> N H D"),
    "L.ffn_gate.weight": ("L/mlp/gate/kernel", "F D -> D F"),
    "L.ffn_up.weight": ("L/mlp/up/kernel", "F D -> D F"),
    "L.ffn_down.weight": ("L/mlp/down/kernel", "D F -> F D"),
}
# For Llama, llama.cpp interleaves the two rotary halves of queries and keys: (half, two).
_GGUF_LLAMA = _GGUF | {
    "L.attn_q.weight": ("L/attention/query/kernel", "(N half two) D -> D N (two half)"),
    "L.attn_k.weight": ("L/attention/key/kernel", "(K half two) D -> D K (two half)"),
}
_GGUF_QWEN2 = _GGUF | {
    "L.attn_q.weight": ("L/attention/query/kernel", "(N H) D -> D N H"),
    "L.attn_k.weight": ("L/attention/key/kernel", "(K H) D -> D K H"),
    "L.attn_q.bias": ("L/attention/query/bias", "(N H) -> N H"),
    "L.attn_k.bias": ("L/attention/key/bias", "(K H) -> K H"),
    "L.attn_v.bias": ("L/attention/value/bias", "(K H) -> K H"),
}

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

FAMILIES: dict[str, Family] = {
    "llama": Family(
        "LlamaForCausalLM", _LLAMA, _hf(_HF_PRE_NORM), {}, _table("", "blk.{i}.", _GGUF_LLAMA)
    ),
    "mistral": Family("MistralForCausalLM", _MISTRAL, _hf(_HF_PRE_NORM), {}),
    "qwen2": Family(
        "Qwen2ForCausalLM",
        _QWEN,
        _hf(_HF_PRE_NORM | _HF_QKV_BIAS),
        {"qkv_bias": True},
        _table("", "blk.{i}.", _GGUF_QWEN2),
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        _QWEN | {"head_dim": 128},
        _hf(_HF_PRE_NORM | _HF_QK_NORM),
        {"qk_norm": True},
    ),
    "gemma2": Family("Gemma2ForCausalLM", _GEMMA2, _hf(_HF_FOUR_NORMS), _GEMMA_TRAITS),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        _GEMMA3,
        _hf(_HF_FOUR_NORMS | _HF_QK_NORM),
        _GEMMA_TRAITS | {"qk_norm": True},
    ),
}


class Parts(NamedTuple):
    """Names of tensors in a checkpoint with other parts than its language model.

    Attributes:
      text: (their prefix, the prefix in a checkpoint of the language model alone).
      other: prefixes of what is not the language model, and is not read.
    """

    text: tuple[tuple[str, str], ...] = ()
    other: tuple[str, ...] = ()

    def own_name(self, name: str) -> str | None:
        """Returns a tensor's name in the language model alone; None if it is not of it."""
        if name.startswith(self.other):
            return None
        for theirs, ours in self.text:
            if name.startswith(theirs):
                return ours + name.removeprefix(theirs)
        return name


TEXT_ONLY = Parts()
# By model_type. The hub and transformers write the first prefixes, others those of the modules.
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
    """Yields (name, row, layer) of each tensor of a model; those of the layers come last."""
    rows = [row for row in table if row.ours != "head" or not config.tied]
    for row in rows:
        if not row.stacked:
            yield row.theirs, row, 0
    for layer in range(config.num_layers):
        for row in rows:
            if row.stacked:
                yield row.theirs.format(i=layer), row, layer
