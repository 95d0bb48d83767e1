"""Where each tensor of a checkpoint lives in our parameters: one table per format.

A row is (their name, our path, einops pattern from their axes to ours). `{i}` is the layer; the
patterns of layer rows describe one layer, and ours has all layers stacked in front. Read right
to left the same patterns export.
"""

from typing import NamedTuple


class Tensor(NamedTuple):
    """One tensor: their name, our path and how their axes become ours."""

    theirs: str
    ours: tuple[str, ...]
    pattern: str


_PLAIN = "D -> D"

LLAMA_HF = (
    Tensor("model.embed_tokens.weight", ("embedding",), "V D -> V D"),
    Tensor("lm_head.weight", ("head",), "V D -> V D"),
    Tensor("model.norm.weight", ("final_norm", "scale"), _PLAIN),
    Tensor(
        "model.layers.{i}.input_layernorm.weight", ("layers", "attention_norm", "scale"), _PLAIN
    ),
    Tensor(
        "model.layers.{i}.post_attention_layernorm.weight", ("layers", "mlp_norm", "scale"), _PLAIN
    ),
    Tensor(
        "model.layers.{i}.self_attn.q_proj.weight",
        ("layers", "attention", "query"),
        "(N H) D -> D N H",
    ),
    Tensor(
        "model.layers.{i}.self_attn.k_proj.weight",
        ("layers", "attention", "key"),
        "(K H) D -> D K H",
    ),
    Tensor(
        "model.layers.{i}.self_attn.v_proj.weight",
        ("layers", "attention", "value"),
        "(K H) D -> D K H",
    ),
    Tensor(
        "model.layers.{i}.self_attn.o_proj.weight",
        ("layers", "attention", "out"),
        "D (N H) -> N H D",
    ),
    Tensor("model.layers.{i}.mlp.gate_proj.weight", ("layers", "mlp", "gate"), "F D -> D F"),
    Tensor("model.layers.{i}.mlp.up_proj.weight", ("layers", "mlp", "up"), "F D -> D F"),
    Tensor("model.layers.{i}.mlp.down_proj.weight", ("layers", "mlp", "down"), "D F -> F D"),
)

# llama.cpp interleaves the two rotary halves of queries and keys (half, 2); ours are (2, half).
LLAMA_GGUF = (
    Tensor("token_embd.weight", ("embedding",), "V D -> V D"),
    Tensor("output.weight", ("head",), "V D -> V D"),
    Tensor("output_norm.weight", ("final_norm", "scale"), _PLAIN),
    Tensor("blk.{i}.attn_norm.weight", ("layers", "attention_norm", "scale"), _PLAIN),
    Tensor("blk.{i}.ffn_norm.weight", ("layers", "mlp_norm", "scale"), _PLAIN),
    Tensor(
        "blk.{i}.attn_q.weight",
        ("layers", "attention", "query"),
        "(N half two) D -> D N (two half)",
    ),
    Tensor(
        "blk.{i}.attn_k.weight", ("layers", "attention", "key"), "(K half two) D -> D K (two half)"
    ),
    Tensor("blk.{i}.attn_v.weight", ("layers", "attention", "value"), "(K H) D -> D K H"),
    Tensor("blk.{i}.attn_output.weight", ("layers", "attention", "out"), "D (N H) -> N H D"),
    Tensor("blk.{i}.ffn_gate.weight", ("layers", "mlp", "gate"), "F D -> D F"),
    Tensor("blk.{i}.ffn_up.weight", ("layers", "mlp", "up"), "F D -> D F"),
    Tensor("blk.{i}.ffn_down.weight", ("layers", "mlp", "down"), "D F -> F D"),
)
