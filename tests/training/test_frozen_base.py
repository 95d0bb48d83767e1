"""An adapter's training computes no gradient of what is frozen."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.interpreters import partial_eval

from bridge_jax.config import LoraConfig
from bridge_jax.models import decoder, projection
from bridge_jax.models.config import DecoderConfig
from bridge_jax.text.packing import Rows
from bridge_jax.training.objectives.sft import SFT
from bridge_jax.training.step import loss_and_gradients
from tests.jaxprs import sizes

# Sizes that name their axes: no two products of them are equal.
V, D, F, HEADS, KV, H = 97, 24, 40, 4, 1, 8
RANK, ROWS, WIDTH, TARGETS = 3, 2, 13, 5
CONFIG = DecoderConfig(
    V, D, 2, HEADS, KV, H, F, lora=LoraConfig(rank=RANK, targets=("mlp/*", "attention/*"))
)
# Weights of a layer and the table, by their sizes.
BASE = {D * HEADS * H, D * KV * H, D * F, V * D}


def shapes(*shape, dtype=jnp.int32):
    return jax.ShapeDtypeStruct(shape, dtype)


def weight_gradients(config, frozen_too):
    """Returns the sizes of base weights that matrix products of a step have for results."""
    params = nn.unbox(jax.eval_shape(lambda: decoder.init(config, jax.random.key(0))))
    trained, frozen = projection.split(params)
    if frozen_too:
        trained, frozen = params, None
    tokens, small = shapes(ROWS, WIDTH), shapes(ROWS, TARGETS)
    weights = shapes(ROWS, TARGETS, dtype=jnp.float32)
    rows = Rows(tokens, tokens, tokens, small, small, weights, weights)

    def step(trained, frozen, rows):
        return loss_and_gradients(SFT(), config, trained, rows, frozen=frozen)[1]

    traced = jax.make_jaxpr(step)(trained, frozen, rows).jaxpr
    needed, _ = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))  # as XLA does
    return {
        size
        for size, equation in sizes(needed)
        if equation.primitive.name == "dot_general" and size in BASE
    }


@pytest.mark.parametrize(("remat", "tied"), [("none", True), ("full", False), ("dots", True)])
def test_no_product_is_of_the_shape_of_a_frozen_weight(remat, tied):
    config = dataclasses.replace(CONFIG, remat=remat, tied=tied)
    assert weight_gradients(config, frozen_too=False) == set()
    assert weight_gradients(config, frozen_too=True) == BASE
