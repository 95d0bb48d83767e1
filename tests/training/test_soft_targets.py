"""What the assistant would have written beside a token: stored, packed and learned from."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.config import MeshConfig
from bridge_jax.models import decoder
from bridge_jax.parallel.sharding import make_mesh, parameter_shardings, shard_batch
from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import TrainingSequence
from bridge_jax.training.batches import Shuffled
from bridge_jax.training.objectives import distillation
from bridge_jax.training.objectives.distillation import SoftTargets, SoftTargetSFT
from bridge_jax.training.objectives.sft import SFT
from bridge_jax.training.step import loss_and_gradients
from tests import plain

SEQUENCES = [
    TrainingSequence([5, 6, 7], [8, 9, 10, 11], [12, 1]),
    TrainingSequence([20, 21], [22, 23], [24, 25, 1]),
    TrainingSequence([30, 31, 32, 33], [], [34, 1]),
    TrainingSequence([40], [41, 42, 43, 44, 45, 46], [1]),
    TrainingSequence([50, 51, 52, 53, 54, 55], [56], [57, 58, 1]),
]
V = 512

compute = jax.jit(loss_and_gradients, static_argnums=(0, 1, 4))


def step(model, sequences, share, accumulate=1):
    rows = pack(sequences, 24, 2)
    objective = SoftTargetSFT(share, 0.3) if rows.extra_targets else SFT(0.3)
    return compute(objective, *model, rows, accumulate)


def predict(model, mesh, k, among=V, batch_rows=2, sequences=SEQUENCES):
    return distillation.predict(*model, sequences, k, among, batch_rows, 24, 2, mesh)


def with_soft(sequences, found):
    """Returns the sequences with their part of what was predicted for all."""
    ends = np.cumsum([s.targets for s in sequences])
    return [
        s._replace(extra_targets=SoftTargets(*(part[end - s.targets : end] for part in found)))
        for s, end in zip(sequences, ends)
    ]


def placed(model, mesh):
    """Returns the model cut over the mesh."""
    config, params = model
    boxed = jax.eval_shape(lambda: decoder.init(config, jax.random.key(0)))
    return config, jax.tree.map(jax.device_put, params, parameter_shardings(boxed, mesh))


@pytest.fixture(scope="module")
def other(tiny_model):
    """A model with the same vocabulary that predicts something else."""
    config, params = tiny_model
    return config, jax.tree.map(lambda a: a * 1.3, params)


def test_divergence_by_hand():
    p, q = np.array([0.5, 0.3]), np.array([0.4, 0.1])
    expected = 0.5 * np.log(0.5 / 0.4) + 0.3 * np.log(0.3 / 0.1) + 0.2 * np.log(0.2 / 0.5)
    found = distillation.divergence(jnp.log(p), jnp.log(q))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert distillation.divergence(jnp.log(p), jnp.log(p)) == 0


def test_divergence_without_a_rest_is_finite_and_so_is_its_gradient():
    p, q = jnp.log(jnp.array([0.75, 0.25])), jnp.log(jnp.array([0.5, 0.5]))
    value, gradient = jax.value_and_grad(distillation.divergence, argnums=1)(p, q)
    np.testing.assert_allclose(value, 0.75 * np.log(1.5) + 0.25 * np.log(0.5), rtol=1e-5)
    np.testing.assert_allclose(gradient, [-0.75, -0.25], rtol=1e-5)


@pytest.mark.slow
def test_predictions_are_those_of_each_sequence_alone(other, one_device):
    found = predict(other, one_device, k=7)
    expected = np.concatenate(plain.logprobs(*other, SEQUENCES))
    assert found.ids.shape == found.logprobs.shape == (len(expected), 7)
    logprobs, ids = jax.lax.top_k(expected, 7)
    np.testing.assert_allclose(found.logprobs, logprobs, atol=1e-4)
    assert (found.ids == np.asarray(ids)).mean() > 0.98  # rounding may swap near ties


@pytest.mark.parametrize("mesh", [MeshConfig(1, 8, 1), MeshConfig(2, 2, 2)], ids=str)
def test_eight_devices_predict_what_one_predicts(other, one_device, mesh):
    mesh = make_mesh(mesh)
    found, expected = predict(placed(other, mesh), mesh, 7), predict(other, one_device, 7)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-5)


def test_with_the_whole_vocabulary_the_loss_is_the_full_divergence(tiny_model, other, one_device):
    soft = with_soft(SEQUENCES, predict(other, one_device, k=V))
    nll, kl = {"rationale": [], "answer": []}, {"rationale": [], "answer": []}
    found = (plain.logprobs(*model, SEQUENCES) for model in (other, tiny_model))
    for s, p, q in zip(SEQUENCES, *found):
        divergences = (np.exp(p) * (p - q)).sum(1)
        losses = -q[np.arange(s.targets), s.rationale + s.answer]
        for part, where in (
            ("rationale", slice(0, len(s.rationale))),
            ("answer", slice(len(s.rationale), None)),
        ):
            nll[part] += losses[where].tolist()
            kl[part] += divergences[where].tolist()
    for share in (0.0, 0.4, 1.0):
        metrics, _ = step(tiny_model, soft, share)
        for part, found in (
            ("rationale", metrics["rationale_loss"]),
            ("answer", metrics["answer_loss"]),
        ):
            expected = (1 - share) * np.mean(nll[part]) + share * np.mean(kl[part])
            np.testing.assert_allclose(found, expected, rtol=2e-4)
        mixed = 0.3 * metrics["rationale_loss"] + 0.7 * metrics["answer_loss"]
        np.testing.assert_allclose(metrics["loss"], mixed, rtol=1e-5)


def test_a_token_without_soft_targets_keeps_its_whole_loss(tiny_model, other, one_device):
    soft = with_soft(SEQUENCES, predict(other, one_device, k=4))
    some = [with_it if i == 1 else s for i, (s, with_it) in enumerate(zip(SEQUENCES, soft))]
    losses = {}
    for name, sequences in (("none", SEQUENCES), ("some", some), ("all", soft)):
        metrics, _ = step(tiny_model, sequences, 0.5)
        losses[name] = np.array([metrics["rationale_loss"] * 13, metrics["answer_loss"] * 11])
    alone = {}
    for name, sequences in (("none", SEQUENCES[1:2]), ("all", soft[1:2])):
        metrics, _ = step(tiny_model, sequences, 0.5)
        alone[name] = np.array([metrics["rationale_loss"] * 2, metrics["answer_loss"] * 3])
    np.testing.assert_allclose(
        losses["some"] - losses["none"], alone["all"] - alone["none"], atol=2e-4
    )
    assert abs(losses["all"] - losses["some"]).min() > 1e-2


def test_accumulation_and_devices_do_not_move_the_loss(tiny_model, other, one_device):
    soft = with_soft(SEQUENCES, predict(other, one_device, k=4))
    expected = step(tiny_model, soft * 2, 0.5)
    chex.assert_trees_all_close(step(tiny_model, soft * 2, 0.5, 2), expected, atol=1e-5)
    mesh = make_mesh(MeshConfig(2, 2, 2))
    with jax.set_mesh(mesh):
        rows = shard_batch(pack(soft * 2, 24, 2), mesh)
        found = compute(SoftTargetSFT(0.5, 0.3), *placed(tiny_model, mesh), rows, 1)
    chex.assert_trees_all_close(found, expected, atol=1e-5)


def test_a_student_that_descends_comes_closer_to_the_assistant(tiny_model, other, one_device):
    config, params = tiny_model
    soft = with_soft(SEQUENCES, predict(other, one_device, k=4))
    losses = []
    for _ in range(5):
        metrics, gradients = step((config, params), soft, 1.0)
        params = jax.tree.map(lambda p, g: p - 0.2 * g, params, gradients)
        losses.append(float(metrics["loss"]))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]


def test_soft_targets_are_packed_beside_their_targets():
    soft = [
        s._replace(
            extra_targets=SoftTargets(
                np.full((s.targets, 2), i + 1),
                np.full((s.targets, 2), -0.5 * i),
                np.ones(s.targets),
            )
        )
        if i != 2
        else s
        for i, s in enumerate(SEQUENCES)
    ]
    rows = pack(soft, 24, 2)
    # First fit: three sequences in the first row (9 + 7 + 6 tokens), two in the second.
    expected = [[1] * 6 + [2] * 5 + [0] * 2, [4] * 7 + [5] * 4]
    for row, ids in enumerate(expected):
        filled = slice(0, len(ids))
        np.testing.assert_array_equal(rows.extra_targets.ids[row, filled, 1], ids)
        np.testing.assert_array_equal(rows.extra_targets.weight[row, filled], np.array(ids) > 0)
        assert rows.extra_targets.weight[row, len(ids) :].sum() == 0
    assert rows.extra_targets.logprobs[1, 8, 0] == -2.0
    without = pack(SEQUENCES, 24, 2)
    assert without.extra_targets is None
    chex.assert_trees_all_equal(rows._replace(extra_targets=None), without)


def test_batches_carry_them(tiny_model):
    soft = [
        s._replace(
            extra_targets=SoftTargets(
                np.full((s.targets, 2), i + 1), np.zeros((s.targets, 2)), np.ones(s.targets)
            )
        )
        for i, s in enumerate(SEQUENCES)
    ]
    rows = pack(soft, 24, 2)
    batch, _ = Shuffled(rows, 3, 1, seed=0).next_batch()
    assert batch.extra_targets.ids.shape == (3, *rows.extra_targets.ids.shape[1:])
    for tokens, ids in zip(batch.tokens, batch.extra_targets.ids):
        (row,) = [r for r in range(2) if (rows.tokens[r] == tokens).all()] or [None]
        expected = 0 if row is None else rows.extra_targets.ids[row]
        np.testing.assert_array_equal(ids, expected)


def test_one_compilation_for_all_batches(other, one_device):
    before = distillation.predict_batch._cache_size()
    predict(other, one_device, k=3, batch_rows=1)
    predict(other, one_device, k=3, batch_rows=1, sequences=SEQUENCES[::-1])
    assert distillation.predict_batch._cache_size() == before + 1
