"""Products in bf16 while everything else is f32, as a CPU with matrix units computes them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.config import ModelConfig
from bridge_jax.models.config import DecoderConfig, computing_on
from bridge_jax.models.head import Head, logprobs_at
from bridge_jax.models.matmul import matmul, project
from bridge_jax.parallel.sharding import make_mesh
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.training.objectives.sft import SFT
from bridge_jax.training.step import loss_and_gradients
from tests.jaxprs import sizes
from tests.models.test_lora import ROWS

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 8)).astype(np.float32)
W = RNG.standard_normal((8, 2, 4)).astype(np.float32)


def rounded(a):
    """Returns f32 numbers that bf16 has."""
    return np.asarray(jnp.asarray(a).astype(jnp.bfloat16).astype(jnp.float32))


def test_only_what_is_multiplied_is_rounded():
    found = matmul("BSX,XNH->BSNH", jnp.asarray(X), jnp.asarray(W), jnp.bfloat16)
    wanted = np.einsum("BSX,XNH->BSNH", rounded(X), rounded(W))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
    assert np.abs(found - np.einsum("BSX,XNH->BSNH", X, W)).max() > 1e-3


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_gradients_of_a_projection(dtype):
    y = RNG.standard_normal((2, 3, 2, 4)).astype(np.float32)
    found, back = jax.vjp(lambda x, w: project(x, w, dtype), jnp.asarray(X), jnp.asarray(W))
    by_x, by_w = back(jnp.asarray(y))
    to = rounded if dtype == jnp.bfloat16 else np.asarray
    x, w, y = to(X), to(W), to(y)
    near = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(found, np.einsum("BSX,XNH->BSNH", x, w), **near)
    np.testing.assert_allclose(by_x, np.einsum("BSNH,XNH->BSX", y, w), **near)
    np.testing.assert_allclose(by_w, np.einsum("BSX,BSNH->XNH", x, y), **near)
    assert by_w.dtype == by_x.dtype == jnp.float32


def test_a_head_rounds_what_it_multiplies():
    hidden, table = jnp.asarray(X.reshape(6, 8)), jnp.asarray(W.reshape(8, 8))
    ids = jnp.arange(6)[:, None] % 8
    found = logprobs_at(hidden, Head(table, dtype=jnp.bfloat16), ids)
    logits = rounded(hidden) @ rounded(table).T
    wanted = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), np.asarray(ids), axis=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_all_products_of_a_training_step_but_attentions_are_of_bf16(tiny_model, remat):
    config, params = tiny_model
    config = dataclasses.replace(config, matmul=jnp.bfloat16, remat=remat)

    def step(params):
        return loss_and_gradients(SFT(), config, params, ROWS)[1]

    products = [
        equation
        for _, equation in sizes(jax.make_jaxpr(step)(params).jaxpr)
        if equation.primitive.name == "dot_general"
    ]
    assert {equation.outvars[0].aval.dtype for equation in products} == {jnp.dtype("float32")}
    # Attention's, which have batch axes, stay in f32; projections and the head have none.
    wide = [e for e in products if e.invars[0].aval.dtype == jnp.float32]
    assert wide and all(e.params["dimension_numbers"][1][0] for e in wide)
    assert len(products) - len(wide) >= 3 * (7 + 1)
    gradients = step(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}
    kernel = np.asarray(gradients["layers"]["mlp"]["up"]["kernel"])
    assert np.any(kernel != rounded(kernel))

    plain = loss_and_gradients(SFT(), dataclasses.replace(config, matmul=None), params, ROWS)[1]
    wanted = np.asarray(plain["layers"]["mlp"]["up"]["kernel"])
    error = np.linalg.norm(kernel - wanted) / np.linalg.norm(wanted)
    assert 1e-5 < error < 2e-2


def test_what_a_run_computes_in(checkpoint):
    plain, narrow = ModelConfig(str(checkpoint)), ModelConfig(str(checkpoint), matmul="bfloat16")
    mesh = make_mesh(devices=jax.devices()[:1])
    model = RoleModel("student", plain, mesh, 0).load()
    assert (model.config.dtype, model.config.matmul_dtype) == (jnp.float32, jnp.float32)

    role = RoleModel("student", narrow, mesh, 0)
    model = role.load()
    assert (model.config.dtype, model.config.matmul_dtype) == (jnp.float32, jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype("bfloat16")}
    trained = role.trainable()
    assert {leaf.dtype for leaf in jax.tree.leaves(trained.params)} == {jnp.dtype("float32")}
    assert trained.config.matmul_dtype == jnp.bfloat16


def test_a_chip_computes_in_bf16():
    class Chip:
        platform = "tpu"

    config = computing_on(DecoderConfig(100, 48, 1, 12, 6, 4, 96), ModelConfig(), Chip())
    assert config.dtype == config.matmul_dtype == jnp.bfloat16
