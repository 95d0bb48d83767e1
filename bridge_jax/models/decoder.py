"""The decoder: one pure function of (params, tokens), for training, scoring and generation.

It returns the final hidden states. Callers apply the head (`bridge_jax.models.head`) to the
positions they need, in chunks of the vocabulary, so that no B x S x V array exists.
All families share one code path with switches in `DecoderConfig`. Layers differ only in whether
they are local, so one compiled body serves all. Generation runs the same layers one by one
(`extend`), with separate weight and cache arrays per layer: with stacked arrays, a CPU or GPU would
copy a layer's weights at every token. There is no dropout outside of LoRA adapters, since none of
the supported checkpoints was trained with it.

Comments give the shape that their line computes: B batch, S positions of this call, D model width,
N query heads, K key and value heads, H head width, F MLP width, V vocabulary, L layers.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bridge_jax.models import projection
from bridge_jax.models.attention import (
    RESIDUALS,
    Rotation,
    SlidingWindow,
    attention,
    rotate,
    rotation,
)
from bridge_jax.models.cache import LayerCache, Places, cached_attention
from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.head import Head
from bridge_jax.models.projection import Projection, parameter
from bridge_jax.parallel.sharding import (
    BATCH,
    axis_size,
    constrain,
    on_each_device,
    parameter_shardings,
)

Params = Any


class RMSNorm(nn.Module):
    """Root mean square norm, computed in f32."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `x`, normed and scaled over the last axis.

        Args:
          x: f[..., D], or f[..., H] for the norms of queries and keys.
        """
        offset = self.config.norm_offset
        init = nn.initializers.zeros if offset else nn.initializers.ones
        init = nn.with_logical_partitioning(init, ("norm",))
        scale: Any = self.param("scale", init, (x.shape[-1],), self.config.param_dtype)
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide**2, -1, keepdims=True) + self.config.norm_eps)
        if offset:  # Gemma scales before rounding, the others after.
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
        is_local: jax.Array | bool,
        *,
        segments: jax.Array | None = None,
        places: Places | None = None,
        cache: LayerCache | None = None,
    ) -> tuple[jax.Array, LayerCache | None]:
        """Returns f[B, S, D], and the cache with the new keys and values.

        Args:
          x: f[B, S, D], normed.
          rotate_by: the rotation of each position.
          is_local: bool[], whether the sliding window applies in this layer; with a cache, static.
          segments: int32[B, S], segment ids of packed rows; None in generation.
          places, cache: in generation, where the tokens go in the cache, and this layer's cache.
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
        scale = h**-0.5 if c.query_scale is None else c.query_scale
        softcap = c.attention_softcap
        if places is not None:
            assert cache is not None
            size = c.window if is_local else None
            mixed, cache = cached_attention(
                query, key, value, cache, places, scale, softcap, size
            )  # B S N H
        else:
            assert segments is not None
            applies = jnp.asarray(is_local)
            window = SlidingWindow(c.window, applies) if c.window and any(c.local) else None
            mixed = attention(
                query, key, value, segments, scale, softcap, window, c.kernel
            )  # B S N H
        out = project("out", (*heads, "embed"), (c.model_dim,))(mixed)  # B S D
        return out, cache


class MLP(nn.Module):
    """Gated feed-forward block (GLU variants, 2002.05202)."""

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
        activate = jax.nn.silu if c.activation == "silu" else jax.nn.gelu  # tanh form
        hidden = constrain(activate(gate) * up, "batch", None, "mlp")  # B S F
        return Projection(c, ("mlp", "embed"), (c.model_dim,), name="down")(hidden)  # B S D


class Layer(nn.Module):
    """Attention and MLP, each with a norm before it (Gemma: also after) and a residual sum."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        is_local: jax.Array | bool,
        rotations: tuple[Rotation, ...],
        segments: jax.Array | None = None,
        places: Places | None = None,
        cache: LayerCache | None = None,
    ) -> tuple[jax.Array, LayerCache | None]:
        """Returns the new residual stream f[B, S, D], and the layer's cache with these tokens.

        Args:
          x: f[B, S, D], the residual stream before this layer.
          is_local: bool[], whether this layer is local; with a cache, static.
          rotations: one for all layers or, if local layers differ, (full, local).
          segments: int32[B, S], segment ids of packed rows; None in generation.
          places, cache: in generation, where the tokens go in the cache, and this layer's cache.
        """
        c = self.config

        def norm(name: str, y: jax.Array) -> jax.Array:
            return RMSNorm(c, name=name)(y)

        # One body serves all layers: a local layer takes the second rotation, if there are two.
        rotation = rotations[0]
        if len(rotations) == 2:
            rotation = jax.tree.map(
                lambda full, local: jnp.where(is_local, local, full), *rotations
            )
        mixed, cache = Attention(c, name="attention")(
            norm("attention_norm", x),
            rotation,
            is_local,
            segments=segments,
            places=places,
            cache=cache,
        )  # B S D
        x = x + (norm("attention_post_norm", mixed) if c.post_norms else mixed)  # B S D
        mixed = MLP(c, name="mlp")(norm("mlp_norm", x))  # B S D
        x = x + (norm("mlp_post_norm", mixed) if c.post_norms else mixed)  # B S D
        return constrain(x, "batch", None, None), cache


class Decoder(nn.Module):
    """The decoder module, from tokens to final hidden states."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, tokens: jax.Array, positions: jax.Array, segments: jax.Array) -> jax.Array:
        """Returns f[B, S, D] after the final norm.

        Args:
          tokens: int32[B, S].
          positions: int32[B, S], restarting at 0 for each packed segment.
          segments: int32[B, S], segment ids of packed rows; 0 is padding.
        """
        c = self.config
        table = ("vocab", "embed"), (c.vocab_size, c.model_dim)
        embedding = parameter(self, "embedding", *table, c.param_dtype)  # V D
        if not c.tied:
            parameter(self, "head", *table, c.param_dtype)  # V D
        layer: Any = Layer
        if c.remat != "none":
            policies = jax.checkpoint_policies
            kept = {
                "dots": policies.save_only_these_names(projection.PRODUCTS),
                "attention": policies.save_only_these_names(RESIDUALS),
                "full": None,
            }[c.remat]
            layer = nn.remat(Layer, prevent_cse=False, policy=kept)
        layers = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast, nn.broadcast),  # type: ignore[arg-type]
            length=c.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x, _ = layers(c, name="layers")(
            _embed(c, embedding, tokens),
            jnp.asarray(_is_local(c)),
            _rotations(c, positions),
            segments,
        )  # B S D
        return RMSNorm(c, name="final_norm")(x)


def _embed(config: DecoderConfig, embedding: jax.Array, tokens: jax.Array) -> jax.Array:
    """Returns the residual stream f[B, S, D] before the first layer."""
    x = constrain(_looked_up(embedding, tokens).astype(config.dtype), "batch", None, None)
    return x * jnp.asarray(config.model_dim**0.5, config.dtype) if config.scale_embedding else x


def _looked_up(table: jax.Array, tokens: jax.Array) -> jax.Array:
    """Returns the rows f[B, S, D] of a table f[V, D] for tokens int32[B, S].

    If `tensor` splits V, each chip looks up the rows that it holds, and the results are summed over
    `tensor`. Gathering the table instead would move all V rows to use a few.
    """
    parts = axis_size("tensor")
    if parts == 1 or len(table) % parts or len(tokens) % axis_size(*BATCH):
        return jnp.take(table, tokens, axis=0)

    def on_chip(table: jax.Array, tokens: jax.Array) -> jax.Array:
        at = tokens - jax.lax.axis_index("tensor") * len(table)
        here = (at >= 0) & (at < len(table))
        rows = jnp.take(table, jnp.where(here, at, 0), axis=0)
        return jax.lax.psum(jnp.where(here[..., None], rows, 0), "tensor")

    rows = PartitionSpec(BATCH)
    return on_each_device(on_chip, (PartitionSpec("tensor"), rows), rows)(table, tokens)


def _rotations(config: DecoderConfig, positions: jax.Array) -> tuple[Rotation, ...]:
    """Returns the rotations of positions int32[B, S]: one or, if local layers differ, two."""
    found = (rotation(config.rope, config.head_dim, positions),)
    if config.local_rope is None or not any(config.local):
        return found
    return (*found, rotation(config.local_rope, config.head_dim, positions))


def _is_local(config: DecoderConfig) -> tuple[bool, ...]:
    return config.local or (False,) * config.num_layers


def unstacked(params: Params) -> Params:
    """Returns the parameters with one tree per layer, as `extend` takes them."""
    stacked = params["layers"]
    count = len(jax.tree.leaves(stacked)[0])
    layers = tuple(jax.tree.map(lambda a, i=i: a[i], stacked) for i in range(count))
    return {**params, "layers": layers}


def extend(
    config: DecoderConfig,
    params: Params,
    tokens: jax.Array,
    places: Places,
    cache: tuple[LayerCache, ...],
) -> tuple[jax.Array, tuple[LayerCache, ...]]:
    """Returns f[B, S, D] after the final norm, and the caches with these tokens added.

    Args:
      config: config of the decoder, without an adapter.
      params: parameters as `unstacked` returns them.
      tokens: int32[B, S], S consecutive tokens of a sequence in each row.
      places: where the tokens go in the cache.
      cache: one cache per layer (`cache.init_cache`).
    """
    x, found = _embed(config, params["embedding"], tokens), []
    rotations = _rotations(config, places.positions)
    for layer, is_local, kept in zip(params["layers"], _is_local(config), cache, strict=True):
        out: Any = Layer(config).apply(
            {"params": layer}, x, is_local, rotations, places=places, cache=kept
        )
        x, kept = out
        found.append(kept)
    normed: Any = RMSNorm(config).apply({"params": params["final_norm"]}, x)
    return normed, tuple(found)


def init(config: DecoderConfig, key: jax.Array) -> Params:
    """Returns random parameters, boxed with their logical axis names."""
    tokens = jnp.zeros((1, 2), jnp.int32)
    return Decoder(config).init(key, tokens, tokens, tokens)["params"]


def abstract(config: DecoderConfig, mesh: Mesh) -> Params:
    """Returns the parameters as `jax.ShapeDtypeStruct`s with their shardings on the mesh."""
    boxed = _boxed_shapes(config)
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
        nn.unbox(boxed),
        parameter_shardings(boxed, mesh),
    )


def abstract_unstacked(config: DecoderConfig, mesh: Mesh) -> Params:
    """Returns the parameters of `abstract` with one tree per layer, as in `unstacked`."""
    params = abstract(config, mesh)

    def of_layer(a: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        sharding: Any = a.sharding
        place = NamedSharding(mesh, PartitionSpec(*sharding.spec[1:]))
        return jax.ShapeDtypeStruct(a.shape[1:], a.dtype, sharding=place)

    layer = jax.tree.map(of_layer, params["layers"])
    return {**params, "layers": (layer,) * config.num_layers}


def init_adapter(config: DecoderConfig, mesh: Mesh, key: jax.Array) -> Params:
    """Returns a new adapter for `config.lora`; until it is trained, it changes no output."""
    shardings = jax.tree.map(lambda a: a.sharding, projection.split(abstract(config, mesh))[0])
    return jax.jit(
        lambda key: projection.split(nn.unbox(init(config, key)))[0], out_shardings=shardings
    )(key)


def hidden_states(
    config: DecoderConfig,
    params: Params,
    tokens: jax.typing.ArrayLike,
    positions: jax.typing.ArrayLike,
    segments: Any,
    dropout: jax.Array | None = None,
) -> jax.Array:
    """Returns f[B, S, D] for packed rows; segment 0 is padding.

    `dropout` is the random key for the adapter's dropout; None turns dropout off.
    """
    rngs = None if dropout is None else {"dropout": dropout}
    found: Any = Decoder(config).apply({"params": params}, tokens, positions, segments, rngs=rngs)
    return found


def output_head(config: DecoderConfig, params: Params) -> Head:
    """Returns the output head: its own table f[V, D] or the tied embedding, and its soft cap."""
    table = params["embedding"] if config.tied else params["head"]
    return Head(table, config.final_softcap, config.matmul_dtype)


def count_parameters(config: DecoderConfig) -> int:
    """Returns the number of parameters, including any adapter; a tied embedding counts once."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(_boxed_shapes(config)))


@functools.cache  # A run asks for its few models many times.
def _boxed_shapes(config: DecoderConfig) -> Params:
    return jax.eval_shape(functools.partial(init, config), jax.random.key(0))
