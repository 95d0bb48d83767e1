"""Where each tensor of a checkpoint lies in our parameters: one table per family and format.

A row is (their name, our path, einops pattern from their axes to ours). `{i}` is the layer; the
pattern of a layer's row describes one layer, and ours has all layers stacked in front. Read from
right to left the same pattern exports.
"""

from typing import NamedTuple


class Tensor(NamedTuple):
    """One tensor: their name, our path and how their axes become ours."""

    theirs: str
    ours: str
    pattern: str

    @property
    def stacked(self) -> bool:
        """Whether there is one for each layer."""
        return "{i}" in self.theirs


def _table(prefix: str, layer: str, rows: dict[str, tuple[str, str]]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            theirs.replace("L.", layer, 1) if theirs.startswith("L.") else prefix + theirs,
            ours.replace("L/", "layers/", 1),
            pattern,
        )
        for theirs, (ours, pattern) in rows.items()
    )


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


def _hf(*parts: dict[str, tuple[str, str]]) -> tuple[Tensor, ...]:
    rows = {name: row for part in (_HF, *parts) for name, row in part.items()}
    head = Tensor("lm_head.weight", "head", "V D -> V D")
    return (*_table("model.", "model.layers.{i}.", rows), head)


HF: dict[str, tuple[Tensor, ...]] = {
    "llama": _hf(_HF_PRE_NORM),
    "mistral": _hf(_HF_PRE_NORM),
    "qwen2": _hf(_HF_PRE_NORM, _HF_QKV_BIAS),
    "qwen3": _hf(_HF_PRE_NORM, _HF_QK_NORM),
    "gemma2": _hf(_HF_FOUR_NORMS),
    "gemma3_text": _hf(_HF_FOUR_NORMS, _HF_QK_NORM),
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
_GGUF_INTERLEAVED = {
    "L.attn_q.weight": ("L/attention/query/kernel", "(N half two) D -> D N (two half)"),
    "L.attn_k.weight": ("L/attention/key/kernel", "(K half two) D -> D K (two half)"),
}
_GGUF_HALVES = {
    "L.attn_q.weight": ("L/attention/query/kernel", "(N H) D -> D N H"),
    "L.attn_k.weight": ("L/attention/key/kernel", "(K H) D -> D K H"),
}
_GGUF_QKV_BIAS = {
    "L.attn_q.bias": ("L/attention/query/bias", "(N H) -> N H"),
    "L.attn_k.bias": ("L/attention/key/bias", "(K H) -> K H"),
    "L.attn_v.bias": ("L/attention/value/bias", "(K H) -> K H"),
}

GGUF: dict[str, tuple[Tensor, ...]] = {
    "llama": _table("", "blk.{i}.", _GGUF | _GGUF_INTERLEAVED),
    "qwen2": _table("", "blk.{i}.", _GGUF | _GGUF_HALVES | _GGUF_QKV_BIAS),
}
