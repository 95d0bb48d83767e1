"""AdamW with linear warm-up, cosine decay and gradient clipping."""

from typing import Any

import jax
import optax

from bridge_jax.config import TrainConfig


def learning_rate(config: TrainConfig, total_steps: int) -> optax.Schedule:
    """Returns step -> learning rate: a line up to the peak, then a cosine to a tenth of it."""
    warmup = max(1, round(config.warmup_fraction * total_steps))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        config.learning_rate,
        warmup,
        max(total_steps, warmup + 1),
        0.1 * config.learning_rate,
    )
    # One ahead: a first step at rate 0 would be paid for and train nothing.
    return lambda step: schedule(step + 1)


def make_optimizer(config: TrainConfig, total_steps: int) -> optax.GradientTransformation:
    """Returns the optimizer of one stage; norms and biases are not decayed."""

    def decayed(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: path[-1].key not in ("scale", "bias"), params
        )

    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate(config, total_steps),
            b2=0.95,
            weight_decay=config.weight_decay,
            mask=decayed,
        ),
    )
