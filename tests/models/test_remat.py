"""What of a layer is computed again in the backward pass."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.interpreters import partial_eval

from bridge_jax.config import TrainConfig
from bridge_jax.models import costs, decoder
from bridge_jax.models.config import DecoderConfig
from tests.jaxprs import sizes

CONFIG = DecoderConfig(64, 16, 2, 2, 1, 8, 32, kernel="splash")
ROW = jnp.ones((1, 128), jnp.int32)


@pytest.mark.parametrize(("policy", "forward"), [("full", 2), ("attention", 1), ("none", 1)])
def test_the_attention_kernel_is_computed_again_or_kept(policy, forward):
    config = dataclasses.replace(CONFIG, remat=policy)
    params = nn.unbox(jax.eval_shape(lambda: decoder.init(config, jax.random.key(0))))

    def total(params):
        return decoder.hidden_states(config, params, ROW, ROW, ROW).sum()

    traced = jax.make_jaxpr(jax.grad(total))(params).jaxpr
    needed, _ = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))  # as XLA does
    kernels = {id(e): e for _, e in sizes(needed) if e.primitive.name == "pallas_call"}.values()
    names = [str(equation.params["name"]) for equation in kernels]
    assert sum("splash_mha_fwd" in name for name in names) == forward
    assert len(names) == forward + 1  # and one kernel of the backward pass


def test_flops_that_are_saved(one_device):
    def flops(policy):
        train = TrainConfig(batch_rows=1, row_tokens=128, remat=policy)
        return costs.train_step(CONFIG, train, 8, one_device).flops

    assert flops("full") - flops("attention") == 4 * 2 * 2 * 8 * 128 * 128
    assert flops("attention") > flops("none")
