"""The decoder: one pure function of (params, tokens), for training, scoring and generation.

It returns the final hidden states. The head is applied by its users (`bridge_jax.models.head`) to
the positions they need, in chunks of the vocabulary, so no B x S x V array exists.
All families are one code path with switches in `DecoderConfig`; layers differ only in whether they
are local, so one compiled body serves all. Left out: dropout outside of LoRA adapters (none of
the supported checkpoints was trained with it).

Comments give the shape of what their line computes: B batch, S positions that are computed, T slots
that are attended to (those of the cache, or S), D model, N query heads, K key and value heads,
H head, F mlp, V vocabulary, L layers.
"""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from bridge_jax.models import lora
from bridge_jax.models.attention import (
    RESIDUALS,
    Rotation,
    SlidingWindow,
    Visible,
    attention,
    rotate,
    rotation,
)
from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.head import Head
from bridge_jax.models.lora import Projection, parameter
from bridge_jax.parallel.sharding import constrain, parameter_shardings

Params = Any


class KVCache(NamedTuple):
    """Keys and values of the tokens so far, filled up to slot `index`.

    Attributes:
      keys, values: f[L, B, K, T, H], as matrix products take them: a CPU transposes nothing.
      mask: bool[B, T], the slots that hold a token; left padding is False.
      index: int32[], the next slot to write.
    """

    keys: jax.Array
    values: jax.Array
    mask: jax.Array
    index: jax.Array


def init_cache(config: DecoderConfig, batch: int, length: int) -> KVCache:
    """Returns an empty cache for `length` slots."""
    shape = (config.num_layers, batch, config.num_kv_heads, length, config.head_dim)
    zeros = jnp.zeros(shape, config.dtype)  # L B K T H
    zeros = constrain(zeros, "layers", "batch", "kv_heads", None, "head_dim")
    return KVCache(zeros, zeros, jnp.zeros((batch, length), bool), jnp.int32(0))


def in_cache(cache: KVCache, steps: int) -> Visible:
    """Returns the slots that the `steps` tokens written from `cache.index` on attend to."""
    batch = cache.mask.shape[0]
    return Visible(jnp.ones((batch, steps), int), cache.mask.astype(int), cache.index)


class RMSNorm(nn.Module):
    """Root mean square norm, computed in f32."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns f[..., D], normed and scaled over the last axis.

        Args:
          x: f[..., D], or f[..., H] of the heads' norms.
        """
        offset = self.config.norm_offset
        init = nn.initializers.zeros if offset else nn.initializers.ones
        init = nn.with_logical_partitioning(init, ("norm",))
        scale: Any = self.param("scale", init, (x.shape[-1],), self.config.param_dtype)
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide**2, -1, keepdims=True) + self.config.norm_eps)
        if offset:  # Gemma scales before it rounds, the others after.
            return (wide * (offset + scale.astype(jnp.float32))).astype(x.dtype)
        return wide.astype(x.dtype) * scale.astype(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        rotate_by: Rotation,
        visible: Visible,
        is_local: jax.Array,
        cache: KVCache | None,
        layer: jax.Array,
    ) -> tuple[jax.Array, KVCache | None]:
        """Returns f[B, S, D], and the cache with this layer's keys and values written.

        Args:
          x: f[B, S, D], normed.
          rotate_by: the rotation of each position.
          visible: which keys each query attends to.
          is_local: bool[], whether the sliding window applies in this layer.
          cache: of all layers, while generating.
          layer: int32[], the index of this layer in the cache.
        """
        c = self.config
        n, k, h = c.num_heads, c.num_kv_heads, c.head_dim
        heads, kv_heads = ("heads", "head_dim"), ("kv_heads", "head_dim")

        def project(
            name: str, axes: tuple[str, ...], shape: tuple[int, ...], bias: bool = False
        ) -> Projection:
            return Projection(c, axes, shape, bias, name=name)

        def on_heads(x: jax.Array, name: str) -> jax.Array:
            return constrain(x, "batch", None, name, "head_dim")

        query = project("query", ("embed", *heads), (n, h), c.qkv_bias)(x)  # B S N H
        key = project("key", ("embed", *kv_heads), (k, h), c.qkv_bias)(x)  # B S K H
        value = project("value", ("embed", *kv_heads), (k, h), c.qkv_bias)(x)  # B S K H
        if c.qk_norm:
            query, key = RMSNorm(c, name="query_norm")(query), RMSNorm(c, name="key_norm")(key)
        query = on_heads(rotate(query, rotate_by), "heads")  # B S N H
        key = on_heads(rotate(key, rotate_by), "kv_heads")  # B S K H
        value = on_heads(value, "kv_heads")  # B S K H
        if cache is not None:
            # The cache is carried whole and updated in place: one slot is written, none copied.
            start = (layer, 0, 0, cache.index, 0)
            new_keys, new_values = (x.swapaxes(1, 2)[None] for x in (key, value))  # 1 B K S H
            cache = cache._replace(
                keys=jax.lax.dynamic_update_slice(cache.keys, new_keys, start),
                values=jax.lax.dynamic_update_slice(cache.values, new_values, start),
            )
            key, value = (
                jax.lax.dynamic_index_in_dim(x, layer, keepdims=False).swapaxes(1, 2)  # B T K H
                for x in (cache.keys, cache.values)
            )
        scale = h**-0.5 if c.query_scale is None else c.query_scale
        window = SlidingWindow(c.window, is_local) if c.window and any(c.local) else None
        softcap = c.attention_softcap
        mixed = attention(query, key, value, visible, scale, softcap, window, c.kernel)  # B S N H
        out = project("out", (*heads, "embed"), (c.model_dim,))(mixed)  # B S D
        return out, cache


class MLP(nn.Module):
    """The gated feed-forward part (GLU variants, 2002.05202)."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns f[B, S, D].

        Args:
          x: f[B, S, D], normed.
        """
        c = self.config
        gate = Projection(c, ("embed", "mlp"), (c.mlp_dim,), name="gate")(x)  # B S F
        up = Projection(c, ("embed", "mlp"), (c.mlp_dim,), name="up")(x)  # B S F
        activate = jax.nn.silu if c.activation == "silu" else jax.nn.gelu  # its tanh form
        hidden = constrain(activate(gate) * up, "batch", None, "mlp")  # B S F
        return Projection(c, ("mlp", "embed"), (c.model_dim,), name="down")(hidden)  # B S D


class Layer(nn.Module):
    """Attention and MLP, each after a norm (Gemma: between two) and added to the stream."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self,
        carry: tuple[jax.Array, KVCache | None],
        layer: jax.Array,
        is_local: jax.Array,
        rotations: tuple[Rotation, ...],
        visible: Visible,
    ) -> tuple[tuple[jax.Array, KVCache | None], None]:
        """Returns the new (stream f[B, S, D], cache), as `nn.scan` wants its carry.

        Args:
          carry: the stream f[B, S, D] of the layer before, and the cache while generating.
          layer: int32[], the index of this layer.
          is_local: bool[], whether it is a local one.
          rotations: that of a layer; where local layers have another, that too.
          visible: which keys each query attends to.
        """
        x, cache = carry
        c = self.config

        def norm(name: str, y: jax.Array) -> jax.Array:
            return RMSNorm(c, name=name)(y)

        # One body for all layers: a local one takes the second rotation, where there are two.
        rotation = rotations[0]
        if len(rotations) == 2:
            rotation = jax.tree.map(
                lambda full, local: jnp.where(is_local, local, full), *rotations
            )
        mixed, cache = Attention(c, name="attention")(
            norm("attention_norm", x), rotation, visible, is_local, cache, layer
        )  # B S D
        x = x + (norm("attention_post_norm", mixed) if c.post_norms else mixed)  # B S D
        mixed = MLP(c, name="mlp")(norm("mlp_norm", x))  # B S D
        x = x + (norm("mlp_post_norm", mixed) if c.post_norms else mixed)  # B S D
        x = constrain(x, "batch", None, None)
        return (x, cache), None


class Decoder(nn.Module):
    """Tokens to final hidden states."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        visible: Visible,
        cache: KVCache | None = None,
    ) -> tuple[jax.Array, KVCache | None]:
        """Applies the decoder.

        Args:
          tokens: int32[B, S].
          positions: int32[B, S], restarting at 0 for each packed segment.
          visible: which positions each token attends to.
          cache: the tokens before, for generation; its `mask` already covers these S tokens.

        Returns:
          f[B, S, D] after the final norm, and the cache with S more slots filled.
        """
        c = self.config
        table = ("vocab", "embed"), (c.vocab_size, c.model_dim)
        embedding = parameter(self, "embedding", *table, c.param_dtype)  # V D
        if not c.tied:
            parameter(self, "head", *table, c.param_dtype)  # V D
        x = jnp.take(embedding, tokens, axis=0).astype(c.dtype)  # B S D
        x = constrain(x, "batch", None, None)
        if c.scale_embedding:
            x = x * jnp.asarray(c.model_dim**0.5, c.dtype)
        layer: Any = Layer
        if c.remat != "none":
            policies = jax.checkpoint_policies
            kept = {
                "dots": policies.dots_with_no_batch_dims_saveable,
                "attention": policies.save_only_these_names(RESIDUALS),
                "full": None,
            }[c.remat]
            layer = nn.remat(Layer, prevent_cse=False, policy=kept)
        layers = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, 0, nn.broadcast, nn.broadcast),  # type: ignore[arg-type]
            length=c.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        rotations: tuple[Rotation, ...] = (rotation(c.rope, c.head_dim, positions),)
        if c.local_rope is not None and any(c.local):
            rotations = (*rotations, rotation(c.local_rope, c.head_dim, positions))
        is_local = jnp.asarray(c.local or (False,) * c.num_layers)  # L
        (x, cache), _ = layers(c, name="layers")(
            (x, cache), jnp.arange(c.num_layers), is_local, rotations, visible
        )  # x: B S D
        if cache is not None:
            cache = cache._replace(index=cache.index + tokens.shape[1])
        return RMSNorm(c, name="final_norm")(x), cache


def init(config: DecoderConfig, key: jax.Array) -> Params:
    """Returns random parameters, boxed with their logical axis names."""
    tokens = jnp.zeros((1, 2), jnp.int32)
    return Decoder(config).init(key, tokens, tokens, Visible(tokens, tokens))["params"]


def abstract(config: DecoderConfig, mesh: Mesh) -> Params:
    """Returns the parameters as `jax.ShapeDtypeStruct`s, each with its place on the mesh."""
    boxed = _boxed_shapes(config)
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
        nn.unbox(boxed),
        parameter_shardings(boxed, mesh),
    )


def init_adapter(config: DecoderConfig, mesh: Mesh, key: jax.Array) -> Params:
    """Returns a fresh adapter for `config.lora`, which changes nothing before it is trained."""
    shardings = jax.tree.map(lambda a: a.sharding, lora.split(abstract(config, mesh))[0])
    return jax.jit(lambda key: lora.split(nn.unbox(init(config, key)))[0], out_shardings=shardings)(
        key
    )


def hidden_states(
    config: DecoderConfig,
    params: Params,
    tokens: jax.typing.ArrayLike,
    positions: jax.typing.ArrayLike,
    segments: Any,
    dropout: jax.Array | None = None,
) -> jax.Array:
    """Returns f[B, S, D] for packed rows; segment 0 is padding.

    `dropout` is the random key of the adapter's dropout, while training.
    """
    visible = Visible(segments, segments)
    rngs = None if dropout is None else {"dropout": dropout}
    out: Any = Decoder(config).apply({"params": params}, tokens, positions, visible, rngs=rngs)
    return out[0]


def output_head(config: DecoderConfig, params: Params) -> Head:
    """Returns the output table f[V, D], its own or the tied embedding, and its soft cap."""
    table = params["embedding"] if config.tied else params["head"]
    return Head(table, config.final_softcap)


def count_parameters(config: DecoderConfig) -> int:
    """Returns how many numbers the parameters hold, an adapter's too, a tied embedding once."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(_boxed_shapes(config)))


@functools.cache  # A run needs those of its few models many times.
def _boxed_shapes(config: DecoderConfig) -> Params:
    return jax.eval_shape(functools.partial(init, config), jax.random.key(0))
