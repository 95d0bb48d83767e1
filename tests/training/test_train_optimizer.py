import jax
import jax.numpy as jnp
import numpy as np

from bridge_jax.config import TrainConfig
from bridge_jax.training.optimizer import learning_rate, make_optimizer


def test_schedule_by_hand():
    # 2 of 10 steps of warm-up, then a cosine from 1 to 0.1 over 8 steps; no step has rate 0.
    rate = learning_rate(TrainConfig(learning_rate=1.0, warmup_fraction=0.2), 10)
    cosine = [0.1 + 0.9 * (1 + np.cos(np.pi * i / 8)) / 2 for i in range(9)]
    expected = [0.5, *cosine, 0.1]
    np.testing.assert_allclose([rate(step) for step in range(11)], expected, atol=1e-6)


def test_schedule_of_very_short_stages():
    for total in (1, 2, 3):
        rate = learning_rate(TrainConfig(learning_rate=1.0), total)
        values = np.asarray([rate(step) for step in range(total + 1)])
        assert np.isfinite(values).all() and values.max() == 1


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
    config = TrainConfig(learning_rate=1.0, weight_decay=0.5, warmup_fraction=0.0)
    optimizer = make_optimizer(config, 10)
    state = optimizer.init(params())
    zeros = jax.tree.map(jnp.zeros_like, params())
    updates, state = optimizer.update(zeros, state, params())
    np.testing.assert_allclose(updates["embedding"], -0.5)
    np.testing.assert_allclose(updates["layers"]["mlp"]["up"]["kernel"], -0.5)
    assert not np.any(updates["layers"]["mlp"]["up"]["bias"])
    assert not np.any(updates["layers"]["attention_norm"]["scale"])
    assert not np.any(updates["final_norm"]["scale"])


def test_gradients_are_clipped_by_their_global_norm():
    config = TrainConfig(clip_norm=0.5, weight_decay=0.0)
    optimizer = make_optimizer(config, 10)
    big = jax.tree.map(lambda p: 100 * jnp.ones_like(p), params())
    _, state = optimizer.update(big, optimizer.init(params()), params())
    # Adam's first moment is (1 - 0.9) times the clipped gradient, whose norm is 0.5.
    moments = [s.mu for s in jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, "mu"))
               if hasattr(s, "mu")]  # fmt: skip
    norm = np.sqrt(sum(float((m**2).sum()) for m in jax.tree.leaves(moments[0])))
    np.testing.assert_allclose(norm, 0.05, rtol=1e-5)
