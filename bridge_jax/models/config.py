"""The shape of a decoder: one dataclass for all families (`bridge_jax.models.hub.families`)."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from bridge_jax.config import LoraConfig

Kernel = Literal["plain", "splash", "cudnn"]


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary positions (RoFormer, 2104.09864).

    Attributes:
      theta: base of the frequencies.
      factor: frequencies are divided by it (position interpolation, 2306.15595); with
        `original_context`, only the low ones.
      original_context: tokens before Llama 3.1 stretched its context; 0 is linear scaling.
      low, high: Llama 3.1's `low_freq_factor` and `high_freq_factor`: wavelengths above
        original_context / low are divided, below original_context / high kept, between blended.
    """

    theta: float = 10_000.0
    factor: float = 1.0
    original_context: int = 0
    low: float = 1.0
    high: float = 4.0


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A decoder.

    Attributes:
      vocab_size (V), model_dim (D), num_layers (L), num_heads (N), num_kv_heads (K), head_dim (H),
        mlp_dim (F): the sizes.
      rope: of all layers, or of those with full attention.
      local_rope: of the layers with a window; None is `rope`.
      window: tokens that a local layer sees, itself included.
      local: which of the L layers are local; empty is none.
      norm_eps: epsilon of the RMS norms.
      norm_offset: added to a norm's scale: Gemma stores scale - 1.
      post_norms: attention and MLP have a norm after them as well as before.
      qkv_bias: queries, keys and values have a bias.
      qk_norm: queries and keys are normed over H before they are rotated.
      activation: of the MLP's gate.
      scale_embedding: embeddings are multiplied by sqrt(D).
      query_scale: attention scores are multiplied by it; None is H^-1/2.
      attention_softcap, final_softcap: c * tanh(scores / c) on attention scores and logits.
      tied: the head is the embedding, transposed.
      max_positions: the context that the checkpoint was trained for.
      lora: the adapter, None without one.
      param_dtype: of the parameters; an adapter's are f32.
      dtype: of activations and matrix products; norms, softmax and losses are f32.
      kernel: of attention (`bridge_jax.models.attention`).
      remat: what of a layer the backward pass recomputes (`TrainConfig.remat`).
      cache: in what the keys and values of a generation are kept (`GenerationConfig.cache`).
    """

    vocab_size: int
    model_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    rope: Rope = Rope()
    local_rope: Rope | None = None
    window: int | None = None
    local: tuple[bool, ...] = ()
    norm_eps: float = 1e-5
    norm_offset: float = 0.0
    post_norms: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    activation: Literal["silu", "gelu_tanh"] = "silu"
    scale_embedding: bool = False
    query_scale: float | None = None
    attention_softcap: float | None = None
    final_softcap: float | None = None
    tied: bool = True
    max_positions: int = 2048
    lora: LoraConfig | None = None
    param_dtype: Any = jnp.float32
    dtype: Any = jnp.float32
    kernel: Kernel = "plain"
    remat: Literal["full", "attention", "dots", "none"] = "none"
    cache: Literal["compute", "bf16", "int8"] = "compute"


def compute_dtype(device: Any = None) -> Any:
    """Returns bf16 on TPU and GPU, f32 on CPU, where bf16 is slower; by default of this machine."""
    device = device or jax.devices()[0]
    return jnp.float32 if device.platform == "cpu" else jnp.bfloat16


def computing_on(
    config: DecoderConfig, attention: Literal["auto", "plain"] = "auto", device: Any = None
) -> DecoderConfig:
    """Returns `config` with the compute dtype of a device and, if `auto`, its kernel."""
    device = device or jax.devices()[0]
    kernel = best_kernel(device) if attention == "auto" else "plain"
    return dataclasses.replace(config, dtype=compute_dtype(device), kernel=kernel)


def best_kernel(device: Any) -> Kernel:
    """Returns the attention kernel for a device: cuDNN's flash attention needs an Ampere GPU."""
    if device.platform == "tpu":
        return "splash"
    capability = str(getattr(device, "compute_capability", ""))  # "9.0"; on ROCm "gfx942"
    is_ampere = capability.partition(".")[0].isdecimal() and float(capability) >= 8
    return "cudnn" if device.platform == "gpu" and is_ampere else "plain"
