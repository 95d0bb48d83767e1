import jax
import jax.numpy as jnp
import numpy as np

from bridge_jax.config import TrainConfig
from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import TrainingSequence
from bridge_jax.training import step
from bridge_jax.training.objectives.sft import SFT
from bridge_jax.training.step import learning_rates, make_optimizer

ROWS = pack([TrainingSequence([3, 4], [5, 6], [7, 1])], 8, 2)


def test_schedule_by_hand():
    # 2 of 10 steps of warm-up, then a cosine from 1 to 0.1 over 8 steps; no step has rate 0.
    rates = learning_rates(TrainConfig(learning_rate=1.0, warmup_fraction=0.2), 10)
    cosine = [0.1 + 0.9 * (1 + np.cos(np.pi * i / 8)) / 2 for i in range(9)]
    np.testing.assert_allclose(rates, [0.5, *cosine], atol=1e-6)
    assert rates.dtype == np.float32


def test_schedule_of_very_short_stages():
    for total in (1, 2, 3):
        rates = learning_rates(TrainConfig(learning_rate=1.0), total)
        assert rates.shape == (total,)
        assert np.isfinite(rates).all() and rates.max() == 1


def params():
    return {
        "embedding": jnp.ones((3, 2)),
        "layers": {
            "attention_norm": {"scale": jnp.ones(2)},
            "mlp": {"up": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}},
        },
        "final_norm": {"scale": jnp.ones(2)},
    }


def test_norms_and_biases_are_not_decayed():
    optimizer = make_optimizer(TrainConfig(weight_decay=0.5))
    state = jax.jit(optimizer.init)(params())
    zeros = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), params())
    updates, state = jax.jit(optimizer.update)(zeros, state, params())
    np.testing.assert_allclose(updates["embedding"], -0.5)
    np.testing.assert_allclose(updates["layers"]["mlp"]["up"]["kernel"], -0.5)
    assert not np.any(updates["layers"]["mlp"]["up"]["bias"])
    assert not np.any(updates["layers"]["attention_norm"]["scale"])
    assert not np.any(updates["final_norm"]["scale"])


def test_trainings_of_another_rate_and_length_are_one_program(tiny_model, one_device):
    config, weights = tiny_model

    def program(train):
        optimizer = make_optimizer(train)
        state = step.init_state(optimizer, jax.tree.map(jnp.array, weights), one_device)
        compiled = step.make_train_step(SFT(), config, optimizer)
        return compiled.lower(state, {}, ROWS, np.float32(0.1)).as_text()

    longer = TrainConfig(epochs=9, learning_rate=0.1, warmup_fraction=0.5, checkpoint_every=7)
    assert program(TrainConfig()) == program(longer)
    assert program(TrainConfig()) != program(TrainConfig(clip_norm=0.5))


def test_a_step_goes_as_far_as_its_rate_says(tiny_model, one_device):
    config, weights = tiny_model
    optimizer = make_optimizer(TrainConfig())
    step_fn = step.make_train_step(SFT(), config, optimizer)

    def moved(rate):
        state = step.init_state(optimizer, jax.tree.map(jnp.array, weights), one_device)
        state, _ = step_fn(state, {}, ROWS, np.float32(rate))
        return np.asarray(state.params["final_norm"]["scale"]) - weights["final_norm"]["scale"]

    assert not moved(0.0).any()
    assert np.abs(moved(0.01)).max() > 0.005
    np.testing.assert_allclose(moved(0.02), 2 * moved(0.01), atol=1e-6)
    assert step_fn._cache_size() == 1


def test_gradients_are_clipped_by_their_global_norm():
    optimizer = make_optimizer(TrainConfig(clip_norm=0.5, weight_decay=0.0))
    big = jax.tree.map(lambda p: 100 * jnp.ones_like(p), params())
    _, state = optimizer.update(big, optimizer.init(params()), params())
    # Adam's first moment is (1 - 0.9) times the clipped gradient, whose norm is 0.5.
    moments = [s.mu for s in jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, "mu"))
               if hasattr(s, "mu")]  # fmt: skip
    norm = np.sqrt(sum(float((m**2).sum()) for m in jax.tree.leaves(moments[0])))
    np.testing.assert_allclose(norm, 0.05, rtol=1e-5)
