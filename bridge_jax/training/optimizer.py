"""AdamW with linear warm-up, cosine decay and gradient clipping.

The rate is an input of the training step and not part of the optimizer, so that trainings which
differ only in it, or in their number of steps, are one compiled program.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bridge_jax.config import TrainConfig


def learning_rates(config: TrainConfig, total_steps: int) -> np.ndarray:
    """Returns f32[total_steps]: a line up to the peak, then a cosine to a tenth of it."""
    warmup = max(1, round(config.warmup_fraction * total_steps))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        config.learning_rate,
        warmup,
        max(total_steps, warmup + 1),
        0.1 * config.learning_rate,
    )
    # One ahead: a first step at rate 0 would be paid for and train nothing.
    return np.asarray(jax.vmap(schedule)(np.arange(1, total_steps + 1)), np.float32)


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Returns AdamW without its learning rate, which multiplies the directions later.

    Norms and biases are not decayed.
    """
    return _adamw(config.clip_norm, config.weight_decay)


@functools.cache  # One for all rates and epochs, so that `make_train_step` finds its step again.
def _adamw(clip_norm: float, weight_decay: float) -> optax.GradientTransformation:
    def decayed(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: path[-1].key not in ("scale", "bias"), params
        )

    return optax.chain(
        optax.stateless(lambda gradients, _: _clipped(gradients, clip_norm)),
        optax.scale_by_adam(b2=0.95),
        optax.add_decayed_weights(weight_decay, decayed),
        optax.scale(-1.0),
    )


def _clipped(gradients: Any, limit: float) -> Any:
    """Returns the gradients, shortened to `limit` if their norm is larger.

    One factor for all, which XLA fuses into what reads them; `optax.clip_by_global_norm` divides
    and selects each number before.
    """
    return optax.tree.scale(jnp.minimum(1.0, limit / optax.tree.norm(gradients)), gradients)
