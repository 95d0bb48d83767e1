"""The config of a decoder: one dataclass for all families (`bridge_jax.models.hub.families`)."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from bridge_jax.config import LoraConfig, ModelConfig

Kernel = Literal["plain", "splash", "cudnn"]


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary positions (RoFormer, 2104.09864).

    Attributes:
      theta: base of the frequencies.
      factor: divides the frequencies (position interpolation, 2306.15595); with
        `original_context`, only the low ones.
      original_context: context in tokens before Llama 3.1 extended it; 0 is linear scaling.
      low, high: Llama 3.1's `low_freq_factor` and `high_freq_factor`. Frequencies with a wavelength
        above original_context / low are divided by `factor`, those with one below
        original_context / high are kept, and those between are blended.
    """

    theta: float = 10_000.0
    factor: float = 1.0
    original_context: int = 0
    low: float = 1.0
    high: float = 4.0


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The architecture of a decoder, and how it is computed.

    Attributes:
      vocab_size (V), model_dim (D), num_layers (L), num_heads (N), num_kv_heads (K), head_dim (H),
        mlp_dim (F): the sizes.
      rope: rotary positions of all layers, or of the full-attention layers if `local_rope` is set.
      local_rope: rotary positions of the local layers; None is `rope`.
      window: tokens that a query in a local layer attends to, its own included.
      local: whether each of the L layers is local (sliding-window); empty if none is.
      norm_eps: epsilon of the RMS norms.
      norm_offset: added to a norm's scale, since Gemma stores scale - 1.
      post_norms: attention and MLP have a norm after them as well as before.
      qkv_bias: queries, keys and values have a bias.
      qk_norm: queries and keys are normed over H before they are rotated.
      activation: activation of the MLP's gate.
      scale_embedding: embeddings are multiplied by sqrt(D).
      query_scale: factor of the attention scores; None is H^-1/2.
      attention_softcap, final_softcap: c in c * tanh(x / c), for attention scores and logits; None
        applies no cap.
      tied: the head is the transposed embedding.
      max_positions: the context length that the checkpoint was trained for.
      lora: the adapter; None if there is none.
      param_dtype: dtype of the parameters; an adapter's are always f32.
      dtype: dtype of activations; norms, softmax and losses are f32.
      matmul: dtype in which projections and the head multiply; None is `dtype`.
      kernel: attention kernel (`bridge_jax.models.attention`).
      remat: what the backward pass recomputes of a layer (`TrainConfig.remat`).
      cache: dtype of the keys and values in generation (`GenerationConfig.cache`).
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
    matmul: Any = None
    kernel: Kernel = "plain"
    remat: Literal["full", "attention", "dots", "none"] = "none"
    cache: Literal["compute", "bf16", "int8"] = "compute"

    @property
    def matmul_dtype(self) -> Any:
        """The dtype in which projections and the head multiply; generation needs no wider one."""
        return self.dtype if self.matmul is None else self.matmul


def computing_on(
    config: DecoderConfig, model: ModelConfig | None = None, device: Any = None
) -> DecoderConfig:
    """Returns `config` with the dtypes and attention kernel for a device, as `model` chooses them.

    Activations and products are bf16 on TPU and GPU. On a CPU, activations are f32, and so are
    products unless `model.matmul` is bfloat16.

    Args:
      model: its choices; None takes the defaults.
      device: the first device by default.
    """
    model, device = model or ModelConfig(), device or jax.devices()[0]
    kernel = best_kernel(device) if model.attention == "auto" else "plain"
    dtype = jnp.float32 if device.platform == "cpu" else jnp.bfloat16
    matmul = jnp.bfloat16 if model.matmul == "bfloat16" else None
    return dataclasses.replace(config, dtype=dtype, matmul=matmul, kernel=kernel)


def best_kernel(device: Any) -> Kernel:
    """Returns the attention kernel for a device: cuDNN's needs an Ampere or newer GPU."""
    if device.platform == "tpu":
        return "splash"
    capability = str(getattr(device, "compute_capability", ""))  # "9.0"; on ROCm "gfx942"
    is_ampere = capability.partition(".")[0].isdecimal() and float(capability) >= 8
    return "cudnn" if device.platform == "gpu" and is_ampere else "plain"
