"""An objective is one class: the step, the loop and the devices need to be told nothing else."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.config import MeshConfig, TrainConfig
from bridge_jax.models import decoder, head
from bridge_jax.parallel.sharding import make_mesh, parameter_shardings, shard_batch
from bridge_jax.training import loop
from bridge_jax.training.step import loss_and_gradients


@dataclasses.dataclass(frozen=True)
class Doubling:
    """Every token is followed by its double, and the first hidden states are kept small."""

    penalty: float
    name: str = "doubling"

    def counts(self, batch):
        there = batch["tokens"] > 0
        return {"double": there.sum().astype(jnp.float32), "size": there[:, 0].sum()}

    def weights(self, counts):
        return {"double": 1.0, "size": self.penalty}

    def loss(self, model, params, batch, dropout=None):
        tokens = batch["tokens"]
        there = tokens > 0
        at = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        hidden = decoder.hidden_states(model, params, tokens, at, there.astype(int), dropout)
        flat, output = hidden.reshape(-1, hidden.shape[-1]), decoder.output_head(model, params)
        nll = head.token_statistics(flat, output, 2 * tokens.reshape(-1)).nll
        size = (hidden[:, 0] ** 2).mean(-1)
        sums = {"double": (nll * there.reshape(-1)).sum(), "size": (size * there[:, 0]).sum()}
        return sums, {"tokens": there.sum().astype(jnp.float32)}


class Batches:
    """Random batches without an end; the position is the number of those that were taken."""

    def __init__(self):
        self.taken = 0

    def next_batch(self, params):
        self.taken += 1
        rng = np.random.default_rng(self.taken)
        return {"tokens": rng.integers(1, 40, (4, 6), dtype=np.int32)}, {"taken": self.taken}

    def get_state(self):
        return {"taken": self.taken}

    def set_state(self, state):
        self.taken = state["taken"]


CONFIG = TrainConfig(row_tokens=6, learning_rate=1e-2, checkpoint_every=4, accumulate=2)


def train(out, model, mesh, data, steps=12, **more):
    config, params = model
    out.mkdir(exist_ok=True)
    boxed = jax.eval_shape(lambda: decoder.init(config, jax.random.key(0)))
    places = parameter_shardings(boxed, mesh)
    params = jax.tree.map(lambda p, s: jax.device_put(p.copy(), s), params, places)
    toy = Doubling(0.1)
    more |= {"steps": steps, "config": CONFIG, "seed": 0, "mesh": mesh}
    return loop.train(out, "toy", config, params, toy, data, **more)


def logged(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_it_trains_and_its_parts_are_logged(tmp_path, tiny_model, one_device):
    train(tmp_path, tiny_model, one_device, Batches())
    rows = logged(tmp_path)
    assert len(rows) == 12 and rows[-1]["double_loss"] < 0.8 * rows[0]["double_loss"]
    assert [row["taken"] for row in rows] == [*range(1, 13)]
    for row in rows:
        assert row["loss"] == pytest.approx(row["double_loss"] + 0.1 * row["size_loss"], rel=1e-5)


def test_it_goes_on_after_the_batches_that_were_trained_on(tmp_path, tiny_model, one_device):
    class Killed(Batches):
        def next_batch(self, params):
            if self.taken == 7:
                raise KeyboardInterrupt
            return super().next_batch(params)

    expected = train(tmp_path / "whole", tiny_model, one_device, Batches())
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", tiny_model, one_device, Killed())
    data = Batches()
    found = train(tmp_path / "cut", tiny_model, one_device, data)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert data.taken == 12


@pytest.mark.slow
def test_neither_micro_batches_nor_devices_change_its_gradient(tiny_model, one_device):
    config, params = tiny_model
    tokens = np.zeros((16, 6), np.int32)
    for row in range(11):  # The last micro-batch has no tokens.
        tokens[row, : 1 + row % 6] = 1 + np.arange(1 + row % 6)
    compute = jax.jit(loss_and_gradients, static_argnums=(0, 1, 4))
    expected = compute(Doubling(0.1), config, params, {"tokens": tokens}, 1)
    assert expected[0]["grad_norm"] > 0.1
    mesh = make_mesh(MeshConfig(2, 2, 2))
    boxed = jax.eval_shape(lambda: decoder.init(config, jax.random.key(0)))
    placed = jax.tree.map(jax.device_put, params, parameter_shardings(boxed, mesh))
    with jax.set_mesh(mesh):
        batch = shard_batch({"tokens": tokens}, mesh, 4)
        found = compute(Doubling(0.1), config, placed, batch, 4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), found, expected)
