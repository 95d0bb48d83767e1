"""Left padding, packing and the rest of the batch do not change an example's logits."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.models import decoder
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
    params = nn.unbox(decoder.init(config, jax.random.key(0)))
    keys = iter(jax.random.split(jax.random.key(1), 100))
    return jax.tree.map(lambda a: a + 0.1 * jax.random.normal(next(keys), a.shape), params)


@functools.partial(jax.jit, static_argnums=0)
def _packed(config, params, tokens, positions, segments):
    hidden = decoder.hidden_states(config, params, tokens, positions, segments)
    return decoder.output_head(config, params).logits(hidden)


@functools.partial(jax.jit, static_argnums=0)
def _padded(config, params, tokens, lengths):
    width = tokens.shape[1]
    pad = (width - lengths)[:, None]
    cache = decoder.init_cache(config, len(tokens), width)
    cache = cache._replace(mask=jnp.arange(width) >= pad)
    positions = jnp.maximum(jnp.arange(width) - pad, 0)
    visible = decoder.in_cache(cache, width)
    hidden, _ = decoder.Decoder(config).apply({"params": params}, tokens, positions, visible, cache)
    return decoder.output_head(config, params).logits(hidden)


def packed_logits(config, *row):
    return _packed(config, params_of(config), *row)


def padded_logits(config, *batch):
    return _padded(config, params_of(config), *batch)


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


@pytest.mark.parametrize("config", [LLAMA, GEMMA, QWEN], ids=["llama", "gemma", "qwen"])
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

    lengths = np.array([len(text) for text in TEXTS])
    padded = np.zeros((len(TEXTS), 32), np.int32)
    for r, text in enumerate(TEXTS):
        padded[r, 32 - len(text) :] = text
    for order in ([0, 1, 2, 3], [3, 1], [2]):
        logits = padded_logits(config, padded[order], lengths[order])
        for r, index in enumerate(order):
            close(logits[r, 32 - len(TEXTS[index]) :], expected[index])
