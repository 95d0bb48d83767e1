"""Packing, a cache and the rest of the batch do not change an example's logits."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.models import decoder
from bridge_jax.models.cache import Places, init_cache, places_of
from bridge_jax.models.config import DecoderConfig, Rope

LLAMA = DecoderConfig(97, 32, 3, 4, 2, 8, 48, rope=Rope(500_000.0, 8.0, 32), tied=False)
GEMMA = dataclasses.replace(
    LLAMA,
    tied=True,
    norm_offset=1.0,
    post_norms=True,
    qk_norm=True,
    activation="gelu_tanh",
    scale_embedding=True,
    local_rope=Rope(1000.0),
    window=6,
    local=(True, False, True),
    attention_softcap=20.0,
    final_softcap=30.0,
)
QWEN = dataclasses.replace(LLAMA, qkv_bias=True, window=5, local=(False, True, True))
RNG = np.random.default_rng(0)
TEXTS = [RNG.integers(0, 97, n) for n in (11, 23, 7, 17)]
WIDTH = 64


@functools.cache
def params_of(config):
    def drawn(key, other):
        params = nn.unbox(decoder.init(config, key))
        keys = iter(jax.random.split(other, 100))
        return jax.tree.map(lambda a: a + 0.1 * jax.random.normal(next(keys), a.shape), params)

    return jax.jit(drawn)(jax.random.key(0), jax.random.key(1))


@functools.partial(jax.jit, static_argnums=0)
def _packed(config, params, tokens, positions, segments):
    hidden = decoder.hidden_states(config, params, tokens, positions, segments)
    return decoder.output_head(config, params).logits(hidden)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _cached(config, params, tokens, places, size):
    """Returns the logits of rows int32[G, S], in the blocks and slots of `places`."""
    cache = init_cache(config, *size)
    found = []
    for block in zip(tokens, *places):
        hidden, cache = decoder.extend(config, params, block[0], Places(*block[1:]), cache)
        found.append(decoder.output_head(config, params).logits(hidden))
    return jnp.stack(found)


def packed_logits(config, *row):
    return _packed(config, params_of(config), *row)


def row(*texts):
    """Returns (tokens, positions, segments) of one packed row."""
    tokens, positions, segments = np.zeros((3, WIDTH), np.int32)
    at = 0
    for number, text in enumerate(texts, 1):
        part = slice(at, at + len(text))
        tokens[part], positions[part], segments[part] = text, np.arange(len(text)), number
        at += len(text)
    return tokens, positions, segments


def alone(config, text):
    return np.asarray(packed_logits(config, *(a[None] for a in row(text))))[0, : len(text)]


CONFIGS = pytest.mark.parametrize(
    "config",
    [
        pytest.param(LLAMA, id="llama"),
        pytest.param(GEMMA, id="gemma", marks=pytest.mark.slow),
        pytest.param(QWEN, id="qwen", marks=pytest.mark.slow),
    ],
)


@CONFIGS
def test_every_example_has_the_logits_it_has_alone(config):
    expected = [alone(config, text) for text in TEXTS]
    assert min(e.std() for e in expected) > 0.1
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)

    rows = [row(*TEXTS), row(*TEXTS[2:]), row(TEXTS[1], TEXTS[0])]
    logits = packed_logits(config, *(np.stack(parts) for parts in zip(*rows)))
    for r, members in enumerate([(0, 1, 2, 3), (2, 3), (1, 0)]):
        at = 0
        for index in members:
            length = len(TEXTS[index])
            close(logits[r, at : at + length], expected[index])
            at += length


@CONFIGS
def test_a_cache_gives_the_same_logits_in_any_slots(config):
    """Each text is read in blocks of four, three a call: two of one text and one of another."""
    calls = [[(1, 0), (1, 4), (0, 0)], [(0, 4), (1, 8), (1, 12)], [(1, 16), (1, 20), (0, 8)]]
    slots, size = {0: 4, 1: 1}, (5, 24, 8)
    tokens, positions, at, last = [], [], [], []
    for call in calls:
        padded = {i: np.pad(TEXTS[i], (0, 24 - len(TEXTS[i]))) for i in slots}
        tokens.append([padded[i][start : start + 4] for i, start in call])
        positions.append([np.arange(start, start + 4) for _, start in call])
        at.append([slots[i] for i, _ in call])
        last.append([max(s for j, s in call if j == i) + 3 for i, _ in call])
    places = [jnp.asarray(np.array(part), jnp.int32) for part in (positions, at, last)]
    params = decoder.unstacked(params_of(config))
    logits = _cached(config, params, jnp.asarray(np.array(tokens)), places, size)
    assert (min(places_of(config, 24, 8)) < 24) == bool(config.window)  # a ring
    for call, found in zip(calls, np.asarray(logits)):
        for (index, start), block in zip(call, found):
            real = len(TEXTS[index]) - start
            expected = alone(config, TEXTS[index])[start : start + 4]
            np.testing.assert_allclose(block[:real], expected, rtol=0, atol=1e-5)
