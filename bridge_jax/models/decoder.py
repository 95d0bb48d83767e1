"""The decoder: one pure function of (params, tokens), for training, scoring and generation.

It returns the final hidden states. The head is applied by its users (`bridge_jax.models.head`) to
the positions they need, in chunks of the vocabulary, so no B x S x V array exists.
Left out: dropout (none of the supported checkpoints was trained with it).
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from bridge_jax.models.config import DecoderConfig

Params = Any


class KVCache(NamedTuple):
    """Keys and values of the tokens so far, filled up to slot `index`.

    Attributes:
      keys, values: f[L, B, T, K, H].
      mask: bool[B, T], the slots that hold a token; left padding is False.
      index: int32[], the next slot to write.
    """

    keys: jax.Array
    values: jax.Array
    mask: jax.Array
    index: jax.Array


def init_cache(config: DecoderConfig, batch: int, length: int) -> KVCache:
    """Returns an empty cache for `length` slots."""
    shape = (config.num_layers, batch, length, config.num_kv_heads, config.head_dim)
    zeros = jnp.zeros(shape, config.dtype)
    return KVCache(zeros, zeros, jnp.zeros((batch, length), bool), jnp.int32(0))


def segment_mask(segments: jax.Array) -> jax.Array:
    """Returns bool[B, 1, S, S]: earlier or same position, same segment, not padding (segment 0)."""
    same = segments[:, :, None] == segments[:, None, :]
    causal = jnp.tril(jnp.ones((segments.shape[1],) * 2, bool))
    return (same & causal & (segments > 0)[:, None, :])[:, None]


def cache_mask(cache: KVCache, steps: int) -> jax.Array:
    """Returns bool[B, 1, S, T]: what the `steps` tokens written from `cache.index` may see."""
    slots = jnp.arange(cache.mask.shape[1])
    causal = slots[None, :] <= cache.index + jnp.arange(steps)[:, None]
    return (causal[None] & cache.mask[:, None, :])[:, None]


def rope(x: jax.Array, positions: jax.Array, theta: float) -> jax.Array:
    """Rotates f[B, S, N, H] by its positions int32[B, S] (RoFormer 2104.09864; halves layout)."""
    half = x.shape[-1] // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions[:, :, None, None] * frequency
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
    return rotated.astype(x.dtype)


def _kernel(module: nn.Module, name: str, axes: tuple[str, ...], shape: tuple[int, ...]) -> Any:
    init = nn.with_logical_partitioning(nn.initializers.normal(0.02), axes)
    return module.param(name, init, shape, jnp.float32)


class RMSNorm(nn.Module):
    """Root mean square norm, computed in f32."""

    eps: float

    @nn.compact
    def __call__(self, x):
        """Returns f[..., D], normed and scaled."""
        init = nn.with_logical_partitioning(nn.initializers.ones, ("norm",))
        scale: Any = self.param("scale", init, (x.shape[-1],), jnp.float32)
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide**2, -1, keepdims=True) + self.eps)
        return (wide * scale).astype(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x, positions, mask, cache, layer):
        """Returns f[B, S, D], and the cache with this layer's keys and values written."""
        c = self.config
        d, n, k, h = c.model_dim, c.num_heads, c.num_kv_heads, c.head_dim
        w_query = _kernel(self, "query", ("embed", "heads", "head_dim"), (d, n, h))
        w_key = _kernel(self, "key", ("embed", "kv_heads", "head_dim"), (d, k, h))
        w_value = _kernel(self, "value", ("embed", "kv_heads", "head_dim"), (d, k, h))
        w_out = _kernel(self, "out", ("heads", "head_dim", "embed"), (n, h, d))

        query = jnp.einsum("BSD,DNH->BSNH", x, w_query.astype(c.dtype))
        key = jnp.einsum("BSD,DKH->BSKH", x, w_key.astype(c.dtype))
        value = jnp.einsum("BSD,DKH->BSKH", x, w_value.astype(c.dtype))
        query, key = rope(query, positions, c.rope_theta), rope(key, positions, c.rope_theta)
        if cache is not None:
            # The cache is carried whole and updated in place: one slot is written, none copied.
            start = (layer, 0, cache.index, 0, 0)
            cache = cache._replace(
                keys=jax.lax.dynamic_update_slice(cache.keys, key[None], start),
                values=jax.lax.dynamic_update_slice(cache.values, value[None], start),
            )
            key = jax.lax.dynamic_index_in_dim(cache.keys, layer, keepdims=False)
            value = jax.lax.dynamic_index_in_dim(cache.values, layer, keepdims=False)
        mixed = jax.nn.dot_product_attention(query, key, value, mask=mask)
        return jnp.einsum("BSNH,NHD->BSD", mixed, w_out.astype(c.dtype)), cache


class MLP(nn.Module):
    """The gated feed-forward part (SwiGLU, 2002.05202)."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x):
        """Returns f[B, S, D]."""
        c = self.config
        gate = _kernel(self, "gate", ("embed", "mlp"), (c.model_dim, c.mlp_dim))
        up = _kernel(self, "up", ("embed", "mlp"), (c.model_dim, c.mlp_dim))
        down = _kernel(self, "down", ("mlp", "embed"), (c.mlp_dim, c.model_dim))
        hidden = jax.nn.silu(x @ gate.astype(c.dtype)) * (x @ up.astype(c.dtype))
        return hidden @ down.astype(c.dtype)


class Layer(nn.Module):
    """Attention and MLP, each behind a norm and added to the stream."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, carry, layer, positions, mask):
        """Returns the new (stream f[B, S, D], cache), as `nn.scan` wants its carry."""
        x, cache = carry
        eps = self.config.norm_eps
        normed = RMSNorm(eps, name="attention_norm")(x)
        mixed, cache = Attention(self.config, name="attention")(
            normed, positions, mask, cache, layer
        )
        x = x + mixed
        x = x + MLP(self.config, name="mlp")(RMSNorm(eps, name="mlp_norm")(x))
        return (x, cache), None


class Decoder(nn.Module):
    """Tokens to final hidden states."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        mask: jax.Array,
        cache: KVCache | None = None,
    ) -> tuple[jax.Array, KVCache | None]:
        """Applies the decoder.

        Args:
          tokens: int32[B, S].
          positions: int32[B, S], restarting at 0 for each packed segment.
          mask: bool[B, 1, S, T], who sees whom (`segment_mask`, `cache_mask`).
          cache: the tokens before, for generation; its `mask` already covers these S tokens.

        Returns:
          f[B, S, D] after the final norm, and the cache with S more slots filled.
        """
        c = self.config
        embedding = _kernel(self, "embedding", ("vocab", "embed"), (c.vocab_size, c.model_dim))
        if not c.tied:
            _kernel(self, "head", ("vocab", "embed"), (c.vocab_size, c.model_dim))
        x = jnp.take(embedding, tokens, axis=0).astype(c.dtype)
        layer = nn.remat(Layer, prevent_cse=False) if c.remat else Layer
        layers = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast),  # type: ignore[arg-type]
            length=c.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        (x, cache), _ = layers(c, name="layers")(
            (x, cache), jnp.arange(c.num_layers), positions, mask
        )
        if cache is not None:
            cache = cache._replace(index=cache.index + tokens.shape[1])
        return RMSNorm(c.norm_eps, name="final_norm")(x), cache


def init(config: DecoderConfig, key: jax.Array) -> Params:
    """Returns random f32 parameters, boxed with their logical axis names."""
    tokens = jnp.zeros((1, 2), jnp.int32)
    mask = jnp.ones((1, 1, 2, 2), bool)
    return Decoder(config).init(key, tokens, tokens, mask)["params"]


def hidden_states(
    config: DecoderConfig,
    params: Params,
    tokens: jax.typing.ArrayLike,
    positions: jax.typing.ArrayLike,
    segments: Any,
) -> jax.Array:
    """Returns f[B, S, D] for packed rows; segment 0 is padding."""
    mask = segment_mask(segments)
    out: Any = Decoder(config).apply({"params": params}, tokens, positions, mask)
    return out[0]


def head_matrix(params: Params) -> jax.Array:
    """Returns the output table f[V, D]: the head, or the tied embedding."""
    return params["head"] if "head" in params else params["embedding"]
