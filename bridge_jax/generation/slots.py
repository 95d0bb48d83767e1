"""The programs of the engine: prefill, copy and decode, over slots that each hold one sequence.

They are compiled once per model, mesh and `Size`: prompts, limits, temperatures and forced tokens
are array arguments.

The last token of a prompt is not prefilled: it is the input of the first decoding step, as each
sampled token is the input of the next step. So prefill needs no head, and all samples of one prompt
can share the whole prefilled cache.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bridge_jax.generation.sampling import sample
from bridge_jax.models import decoder
from bridge_jax.models.cache import LayerCache, Places, cache_spec, copy_slots, init_cache
from bridge_jax.models.config import DecoderConfig
from bridge_jax.parallel.sharding import BATCH, batch_devices, constrain

FORCED = 32  # Maximum number of forced tokens per request.
UNLESS = 8  # Maximum length of the token sequence that cancels them.
# On a GPU, programs run as graphs (XLA's command buffers), the whole decoding loop as one graph.
# Otherwise its hundreds of small kernels per token are launched one by one. Tested with JAX 0.11 on
# an H200.
GPU_OPTIONS = {
    "xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,"
    "DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE",
    "xla_gpu_graph_min_graph_size": 1,
}


class RequestArrays(NamedTuple):
    """The requests of all slots, as arrays with one row per slot.

    Attributes:
      length: int32[B], tokens in the cache: at first the prompt without its last token; each
        decoding step adds one.
      token: int32[B], the input of the next decoding step: at first the last prompt token.
      limit: int32[B], maximum number of new tokens.
      stream: uint32[B], gives the request its own random numbers.
      temperature, top_p: f32[B], sampling settings.
      forced: int32[B, FORCED], tokens to insert instead of sampled ones; right-padded with -1.
      force_at: int32[B], number of new tokens before the forced ones.
      unless: int32[B, UNLESS], a token sequence that cancels the forced tokens if it is generated
        before `force_at`; left-padded with -1. A row of only -1 never cancels.
    """

    length: Any
    token: Any
    limit: Any
    stream: Any
    temperature: Any
    top_p: Any
    forced: Any
    force_at: Any
    unless: Any


class Written(NamedTuple):
    """The tokens that each slot has generated so far.

    Attributes:
      active: bool[B], whether the slot is still generating.
      count: int32[B], number of new tokens.
      tokens: int32[B, M]; entries after the first `count` are left over from earlier requests.
      logprobs, sampled_logprobs: f32[B, M], nats (`sampling.Sampled`).
      steps: int32[], decoding steps of the last call.
    """

    active: jax.Array
    count: jax.Array
    tokens: jax.Array
    logprobs: jax.Array
    sampled_logprobs: jax.Array
    steps: jax.Array


class State(NamedTuple):
    """State of all slots: their cache, the current requests, and the tokens generated so far."""

    cache: tuple[LayerCache, ...]
    rows: RequestArrays
    written: Written


def init_state(config: DecoderConfig, slots: int, length: int, new: int, ahead: int) -> State:
    """Returns the state of empty slots.

    Args:
      slots: B.
      length: maximum tokens of a sequence.
      new: M, maximum new tokens of a sequence.
      ahead: maximum tokens of a prompt that one call prefills.
    """
    ints, floats = jnp.zeros(slots, jnp.int32), jnp.zeros(slots)
    out, logprobs = jnp.zeros((slots, new), jnp.int32), jnp.zeros((slots, new))
    forced, unless = jnp.full((slots, FORCED), -1), jnp.full((slots, UNLESS), -1)
    unsigned = jnp.zeros(slots, jnp.uint32)
    rows = RequestArrays(ints, ints, ints, unsigned, floats, floats, forced, ints, unless)
    none = jnp.zeros(slots, bool)
    written = Written(none, ints, out, logprobs, logprobs, jnp.int32(0))
    return _placed(State(init_cache(config, slots, length, ahead), rows, written))


def prefill(
    config: DecoderConfig,
    params: Any,
    cache: tuple[LayerCache, ...],
    tokens: jax.Array,
    places: Places,
) -> tuple[LayerCache, ...]:
    """Returns the caches after writing blocks of prompts to them.

    Args:
      config, params: the model, with `decoder.unstacked` parameters.
      cache: one per layer.
      tokens: int32[G, BLOCK]. Several rows may be consecutive blocks of one prompt. The padding
        after the end of a prompt is written too; decoding overwrites it.
      places: the cache positions of the tokens.
    """
    return decoder.extend(config, params, tokens, places, cache)[1]


def decode(
    config: DecoderConfig,
    params: Any,
    state: State,
    fresh: jax.Array,
    rows: RequestArrays,
    seed: jax.Array,
    ends: jax.Array,
    free: jax.Array,
    steps: jax.Array,
) -> tuple[State, Written]:
    """Decodes in all active slots until enough of them have ended.

    Args:
      config, params: the model, with `decoder.unstacked` parameters.
      state: the state of the slots.
      fresh: bool[B], slots that start a new request.
      rows: the requests of the fresh slots; other rows are ignored.
      seed: uint32[]. The random key of a token is derived from it, the request's `stream` and the
        token's position, so a sample does not depend on its slot or on other requests.
      ends: int32[E], tokens that end a sequence.
      free: int32[]; the call returns once this many slots are inactive.
      steps: int32[], maximum number of steps.

    Returns:
      The new state, and its `written`.
    """
    batch = jnp.arange(fresh.shape[0])

    def fresh_or(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(fresh.reshape(-1, *(1,) * (old.ndim - 1)), new, old)

    rows = jax.tree.map(fresh_or, rows, state.rows)
    written = state.written._replace(
        active=state.written.active | fresh,
        count=jnp.where(fresh, 0, state.written.count),
        steps=jnp.int32(0),
    )

    def random_key(stream: jax.Array, position: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), position)

    def goes_on(state: State) -> jax.Array:
        ended = (~state.written.active).sum()
        return (state.written.steps < steps) & (ended < jnp.minimum(free, batch.size))

    def step(state: State) -> State:
        cache, rows, written = state
        places = Places(rows.length[:, None], None, rows.length)
        hidden, cache = decoder.extend(config, params, rows.token[:, None], places, cache)
        logits = decoder.output_head(config, params).logits(hidden[:, -1])  # B V
        keys = jax.vmap(random_key)(rows.stream, rows.length)
        at = written.count - rows.force_at
        inside = (at >= 0) & (at < FORCED)
        forced = jnp.where(inside, rows.forced[batch, jnp.clip(at, 0, FORCED - 1)], -1)
        token, logprob, sampled = sample(logits, keys, rows.temperature, rows.top_p, forced)

        def put(all_: jax.Array, new: jax.Array) -> jax.Array:
            slot = jnp.where(written.active, written.count, all_.shape[1])
            return all_.at[batch, slot].set(new, mode="drop")

        count = written.count + written.active
        ended = (token[:, None] == ends).any(1) | (count >= rows.limit)
        tokens = put(written.tokens, token)
        # The last tokens, to compare with the sequence that cancels forcing.
        at_last = written.count[:, None] + jnp.arange(1 - UNLESS, 1)
        last = jnp.where(at_last < 0, -1, tokens[batch[:, None], jnp.maximum(at_last, 0)])
        is_written = ((last == rows.unless) | (rows.unless < 0)).all(1) & (rows.unless[:, -1] >= 0)
        never = is_written & (at < 0)
        rows = rows._replace(
            token=jnp.where(written.active, token, rows.token),
            length=rows.length + written.active,
            force_at=jnp.where(written.active & never, jnp.iinfo(jnp.int32).max, rows.force_at),
        )
        written = Written(
            written.active & ~ended,
            count,
            tokens,
            put(written.logprobs, logprob),
            put(written.sampled_logprobs, sampled),
            written.steps + 1,
        )
        return _placed(State(cache, rows, written))

    state = jax.lax.while_loop(goes_on, step, _placed(State(state.cache, rows, written)))
    return state, state.written


class Size(NamedTuple):
    """The sizes that the programs are compiled for.

    Attributes:
      count: number of slots, B.
      length: length of a slot: maximum tokens of a sequence.
      new: maximum new tokens of a sequence, M.
      blocks: prompt blocks prefilled in one call, one per row, G.
      block_tokens: tokens per block.
      copies: slots copied in one call.
      ends: number of tokens that end a sequence, E.
    """

    count: int
    length: int
    new: int
    blocks: int
    block_tokens: int
    copies: int
    ends: int


class Programs(NamedTuple):
    """The programs, lowered or compiled, and the abstract state with its shardings.

    Compiled programs take the arguments of the functions above, without the config and sizes. Cache
    and state are donated; `decode` returns its `Written` replicated on all devices.
    """

    init_state: Any
    prefill: Any
    copy: Any
    decode: Any
    state: State


def lowered(config: DecoderConfig, mesh: Mesh, size: Size) -> Programs:
    """Lowers the programs for a mesh, whose devices may belong to another machine."""
    by_rows = NamedSharding(mesh, PartitionSpec(BATCH))
    everywhere = NamedSharding(mesh, PartitionSpec())

    def array(*shape: int, dtype: Any = jnp.int32, sharding: Any = by_rows) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    params = decoder.abstract_unstacked(config, mesh)
    count, ahead = size.count, size.blocks // batch_devices(mesh) * size.block_tokens
    with jax.set_mesh(mesh):
        start = functools.partial(init_state, config, count, size.length, size.new, ahead)
        shapes = jax.eval_shape(start)
        places = jax.tree.map(lambda a: by_rows if a.ndim else everywhere, shapes)
        kept = NamedSharding(mesh, cache_spec(config.num_kv_heads))
        places = places._replace(cache=jax.tree.map(lambda _: kept, shapes.cache))
        state: Any = jax.tree.map(
            lambda a, place: array(*a.shape, dtype=a.dtype, sharding=place), shapes, places
        )
        empty = jax.jit(start, out_shardings=places).lower()
        # Donated arguments come back with the same sharding, so each program is compiled once.
        cached = places.cache
        read = jax.jit(functools.partial(prefill, config), donate_argnums=1, out_shardings=cached)
        copy = jax.jit(copy_slots, donate_argnums=0, out_shardings=cached)
        write = jax.jit(
            functools.partial(decode, config),
            donate_argnums=1,
            out_shardings=(places, jax.tree.map(lambda _: everywhere, places.written)),
        )
        tokens, one, copied = (
            array(size.blocks, size.block_tokens),
            array(size.blocks),
            array(size.copies),
        )
        scalar, ends = array(sharding=everywhere), array(size.ends, sharding=everywhere)
        fresh, seed = array(count, dtype=bool), array(dtype=jnp.uint32, sharding=everywhere)
        return Programs(
            empty,
            read.lower(params, state.cache, tokens, Places(tokens, one, one)),
            copy.lower(state.cache, copied, copied),
            write.lower(params, state, fresh, state.rows, seed, ends, scalar, scalar),
            state,
        )


@functools.lru_cache(maxsize=8)  # Assistant and student, for many requests and for few.
def compiled(config: DecoderConfig, mesh: Mesh, size: Size) -> Programs:
    """Returns the programs compiled for a mesh; equal arguments compile once."""
    made = lowered(config, mesh, size)
    options = GPU_OPTIONS if mesh.devices.flat[0].platform == "gpu" else None
    steps = {
        name: program.compile(compiler_options=options)
        for name, program in made._asdict().items()
        if name != "state"
    }
    return made._replace(**steps)


def _placed(state: State) -> State:
    """Shards requests and generated tokens over the batch axes, as the slots' cache is."""

    def place(a: jax.Array) -> jax.Array:
        return constrain(a, "batch", *(None,) * (a.ndim - 1)) if a.ndim else a

    return state._replace(
        rows=jax.tree.map(place, state.rows), written=jax.tree.map(place, state.written)
    )
