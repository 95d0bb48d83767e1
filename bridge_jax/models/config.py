"""The shape of a decoder, as read from a checkpoint."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from bridge_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A decoder of the Llama family.

    Attributes:
      vocab_size (V), model_dim (D), num_layers (L), num_heads (N), num_kv_heads (K), head_dim (H),
        mlp_dim (F): the sizes.
      rope_theta: base of the rotary embedding.
      norm_eps: epsilon of the RMS norms.
      tied: the head is the embedding, transposed.
      max_positions: the context that the checkpoint was trained for.
      dtype: of activations and matrix products; norms, softmax and losses are f32.
      remat: recompute each layer in the backward pass instead of keeping its activations.
    """

    vocab_size: int
    model_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    tied: bool = True
    max_positions: int = 2048
    dtype: Any = jnp.float32
    remat: bool = False

    @property
    def num_params(self) -> int:
        """Parameters, the embedding counted once when tied."""
        d, f, h = self.model_dim, self.mlp_dim, self.head_dim
        attention = d * h * (2 * self.num_heads + 2 * self.num_kv_heads)
        layer = attention + 3 * d * f + 2 * d
        tables = self.vocab_size * d * (1 if self.tied else 2)
        return self.num_layers * layer + tables + d


def from_hf(hf: dict[str, Any]) -> DecoderConfig:
    """Returns the config of a checkpoint's `config.json`.

    Raises:
      UserError: the family or one of its features is not supported.
    """
    family = hf.get("model_type")
    if family != "llama":
        raise UserError(f"model_type={family!r} is not supported; supported: llama")
    # transformers 5 moved rope_theta into rope_parameters; both spellings are in circulation.
    rope = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise UserError(f"rope scaling {rope} is not supported; use a checkpoint without it")
    if hf.get("hidden_act", "silu") != "silu" or hf.get("attention_bias") or hf.get("mlp_bias"):
        raise UserError("only silu activations without attention or MLP biases are supported")
    heads = hf["num_attention_heads"]
    return DecoderConfig(
        vocab_size=hf["vocab_size"],
        model_dim=hf["hidden_size"],
        num_layers=hf["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=hf.get("num_key_value_heads") or heads,
        head_dim=hf.get("head_dim") or hf["hidden_size"] // heads,
        mlp_dim=hf["intermediate_size"],
        rope_theta=float(rope.get("rope_theta") or hf.get("rope_theta") or 10_000.0),
        norm_eps=float(hf.get("rms_norm_eps", 1e-5)),
        tied=bool(hf.get("tie_word_embeddings", False)),
        max_positions=hf.get("max_position_embeddings", 2048),
    )


def compute_dtype() -> Any:
    """Returns bf16 on TPU and GPU, f32 on CPU, where bf16 is slower."""
    return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
