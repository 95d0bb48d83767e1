"""The reverse KL at each token of a model's own text, beside its formula on whole distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.config import MeshConfig
from bridge_jax.models import decoder
from bridge_jax.parallel.sharding import make_mesh, parameter_shardings, shard_batch
from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import TrainingSequence
from bridge_jax.training.objectives import distillation
from bridge_jax.training.objectives.distillation import ReverseKL, SoftTargets
from bridge_jax.training.step import loss_and_gradients
from tests import plain

V = 512
SEQUENCES = [
    TrainingSequence([5, 6, 7], [8, 9, 10, 1], []),
    TrainingSequence([20, 21], [22, 23, 24, 25, 26, 1], []),
    TrainingSequence([40], [41, 42], []),  # Cut off: it has no end token.
    TrainingSequence([50, 51, 52], [1], []),
]

compute = jax.jit(loss_and_gradients, static_argnums=(0, 1, 4))


@pytest.fixture(scope="module")
def other(tiny_model):
    """A model with the same vocabulary that predicts something else."""
    config, params = tiny_model
    return config, jax.tree.map(lambda a: a * 1.3, params)


def rows_of(other, k, mesh, sequences=SEQUENCES):
    """Returns the packed rows, with the other model's predictions at each target."""
    found = distillation.predict(*other, sequences, k, V, 2, 16, 2, mesh)
    ends = np.cumsum([s.targets for s in sequences])
    soft = [
        s._replace(extra_targets=SoftTargets(*(part[end - s.targets : end] for part in found)))
        for s, end in zip(sequences, ends)
    ]
    return pack(soft, 16, 2)


def plain_loss(params, other, config):
    """Returns the mean of sum_v p_v (log p_v - log q_v) over all targets."""
    total = count = 0.0
    found = (plain.logprobs(config, each, SEQUENCES) for each in (params, other))
    for p, q in zip(*found):
        total += (jnp.exp(p) * (p - q)).sum()
        count += len(p)
    return total / count


def test_with_the_whole_vocabulary_it_is_the_reverse_kl_and_so_is_its_gradient(
    tiny_model, other, one_device
):
    config, params = tiny_model
    metrics, gradients = compute(ReverseKL(), config, params, rows_of(other, V, one_device), 1)
    by_formula = jax.jit(jax.value_and_grad(plain_loss), static_argnums=2)
    loss, expected = by_formula(params, other[1], config)
    assert float(loss) > 0.01
    np.testing.assert_allclose(metrics["loss"], loss, rtol=2e-4)
    np.testing.assert_allclose(metrics["kl_loss"], loss, rtol=2e-4)
    for found, wanted in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected)):
        np.testing.assert_allclose(found, wanted, atol=2e-5)
    assert float(metrics["tokens"]) == sum(s.length for s in SEQUENCES)


def test_fewer_outcomes_see_less_and_an_equal_model_nothing(tiny_model, other, one_device):
    config, params = tiny_model
    whole = compute(ReverseKL(), config, params, rows_of(other, V, one_device), 1)[0]["loss"]
    few = compute(ReverseKL(), config, params, rows_of(other, 8, one_device), 1)[0]["loss"]
    assert 0 < float(few) < float(whole)
    same, gradients = compute(ReverseKL(), config, params, rows_of(tiny_model, 8, one_device), 1)
    assert abs(float(same["loss"])) < 1e-5
    assert max(float(jnp.abs(a).max()) for a in jax.tree.leaves(gradients)) < 1e-4


def test_tokens_without_predictions_change_nothing(tiny_model, other, one_device):
    config, params = tiny_model
    rows = rows_of(other, 8, one_device)
    loss, gradients = compute(ReverseKL(), config, params, rows, 1)
    ids = np.where(rows.extra_targets.weight[..., None] > 0, rows.extra_targets.ids, 77)
    changed = rows._replace(extra_targets=rows.extra_targets._replace(ids=ids))
    same, equal = compute(ReverseKL(), config, params, changed, 1)
    assert float(loss["loss"]) == float(same["loss"])
    jax.tree.map(np.testing.assert_array_equal, gradients, equal)


@pytest.mark.slow
def test_micro_batches_and_devices_change_no_gradient(tiny_model, other, one_device):
    config, params = tiny_model
    rows = jax.tree.map(lambda a: a[:8], rows_of(other, 8, one_device, SEQUENCES * 6))
    assert len(rows.tokens) == 8
    loss, gradients = compute(ReverseKL(), config, params, rows, 1)
    found, equal = compute(ReverseKL(), config, params, rows, 4)
    np.testing.assert_allclose(found["loss"], loss["loss"], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(equal), jax.tree.leaves(gradients)):
        np.testing.assert_allclose(a, b, atol=2e-6)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    boxed = jax.eval_shape(lambda: decoder.init(config, jax.random.key(0)))
    with jax.set_mesh(mesh):
        placed = jax.tree.map(jax.device_put, params, parameter_shardings(boxed, mesh))
        found, equal = compute(ReverseKL(), config, placed, shard_batch(rows, mesh), 1)
    np.testing.assert_allclose(found["loss"], loss["loss"], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(equal), jax.tree.leaves(gradients)):
        np.testing.assert_allclose(a, b, atol=2e-6)
