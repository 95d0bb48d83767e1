"""The arithmetic of a step's cost, by hand and against XLA's count of one layer."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from bridge_jax.config import LoraConfig, MeshConfig, TrainConfig
from bridge_jax.models import costs, decoder
from bridge_jax.models.cache import init_cache
from bridge_jax.models.config import DecoderConfig
from bridge_jax.parallel.sharding import make_mesh
from bridge_jax.selection.batches import Shape, empty
from bridge_jax.selection.scores import score_batch
from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import TrainingSequence
from bridge_jax.training.objectives.sft import SFT
from bridge_jax.training.step import loss_and_gradients

CONFIG = DecoderConfig(vocab_size=10, model_dim=8, num_layers=2, num_heads=2, num_kv_heads=1,
                       head_dim=4, mlp_dim=16)  # fmt: skip
LAYERS = 2 * (8 * 4 * (2 + 1 + 1 + 2) + 3 * 8 * 16)  # query, key, value, out; gate, up, down
HEAD = 10 * 8
TRAIN = TrainConfig(batch_rows=4, row_tokens=6, remat="full")
EIGHT = make_mesh(MeshConfig(2, 2, 2))


def test_parameters_are_those_of_the_model():
    assert costs.layer_parameters(CONFIG) == LAYERS == 1152
    assert costs.head_parameters(CONFIG) == HEAD
    params = decoder.count_parameters(CONFIG)
    norms = 2 * 2 * 8 + 8
    assert params == LAYERS + HEAD + norms
    adapted = dataclasses.replace(CONFIG, lora=LoraConfig(rank=3, targets=("mlp/*", "*/query")))
    assert costs.adapter_parameters(adapted) == decoder.count_parameters(adapted) - params


def test_flops_of_training(one_device, monkeypatch):
    tokens, attend = 24, 4 * 2 * 2 * 4 * 6 * 24
    forward, head = 2 * LAYERS * tokens + attend, 2 * HEAD * 4 * 5
    found = costs.train_step(CONFIG, TRAIN, 5, one_device)
    # Forward, again, and twice backward; the head likewise, but its few logits are kept.
    assert found.flops == 4 * forward + 3 * head
    kept = dataclasses.replace(TRAIN, remat="none")
    assert costs.train_step(CONFIG, kept, 5, one_device).flops == 3 * forward + 3 * head
    adapted = dataclasses.replace(CONFIG, lora=LoraConfig(rank=1, targets=("mlp/up",)))
    adapter = 2 * 1 * (8 + 16)
    found = costs.train_step(adapted, TRAIN, 5, one_device).flops
    assert found == 3 * (forward + 2 * adapter * tokens) + 2 * head + 2 * adapter * tokens
    one_less = 4 * 5 * CONFIG.vocab_size - 1
    monkeypatch.setattr(costs, "KEPT_LOGITS", one_less)
    assert costs.train_step(CONFIG, kept, 5, one_device).flops == 3 * forward + 4 * head


def test_kernels_of_an_int8_base_are_read_and_gathered_as_bytes():
    adapted = dataclasses.replace(CONFIG, lora=LoraConfig(rank=1), dtype=jnp.bfloat16)
    rounded = dataclasses.replace(adapted, lora=LoraConfig(rank=1, base="int8"))
    floats, bytes_ = (costs.train_step(c, TRAIN, 5, EIGHT) for c in (adapted, rounded))
    assert floats.flops == bytes_.flops
    # Of 2 bytes, in three passes by four replicas; gathered twice by both halves of `data`.
    assert floats.bytes - bytes_.bytes == LAYERS * 3 * 4
    assert floats.collective_bytes - bytes_.collective_bytes == LAYERS * 2 * 2
    floats, bytes_ = (costs.scoring_step(c, 4, 6, 2, EIGHT) for c in (adapted, rounded))
    assert floats.bytes - bytes_.bytes == LAYERS * 4
    assert floats.collective_bytes - bytes_.collective_bytes == LAYERS * 2
    assert costs.cache_bytes(adapted, 4, 8) == costs.cache_bytes(rounded, 4, 8)


def test_prompts_have_no_head_and_each_token_has_one(one_device):
    # Four prompts of 6 tokens, attending in 2 layers of 2 heads of 4.
    prompts = 2 * LAYERS * 24 + 4 * 2 * 2 * 4 * 6 * 24
    # Four rows: the layers, the head, and attention to 6 + 3 slots.
    a_token = 4 * (2 * LAYERS + 2 * HEAD + 4 * 2 * 2 * 4 * 9)
    found = costs.generation_step(CONFIG, 4, 6, 3, 8, one_device)
    assert found.flops == prompts + 3 * a_token
    # 8 tokens of prompts a call: three calls read the layers, as three tokens do.
    fewer = costs.generation_step(CONFIG, 4, 6, 3, 24, one_device)
    assert found.bytes - fewer.bytes == 2 * LAYERS * 4


def test_model_flops_count_nothing_twice(one_device):
    tokens, attend = 24, 4 * 2 * 2 * 4 * 6 * 24
    forward, head = 2 * LAYERS * tokens + attend, 2 * HEAD * 4 * 5
    assert costs.model_flops(CONFIG, 4, 6, 5) == 3 * (forward + head)
    adapted = dataclasses.replace(CONFIG, lora=LoraConfig(rank=1, targets=("mlp/up",)))
    adapter = 2 * 2 * (8 + 16) * tokens  # as much for its activations' gradients, and its own
    found = costs.model_flops(adapted, 4, 6, 5)
    assert found == 2 * (forward + head) + 3 * adapter


def test_a_kernel_leaves_the_scores_on_the_chip(one_device):
    kernel = dataclasses.replace(CONFIG, kernel="splash")
    plain, less = (costs.scoring_step(c, 4, 6, 2, one_device) for c in (CONFIG, kernel))
    # 3 times 24 tokens x 2 layers x 2 heads x 6 slots in f32.
    assert plain.bytes - less.bytes == 3 * 24 * 2 * 2 * 6 * 4
    assert plain.flops == less.flops


def test_one_device_sends_nothing(one_device):
    assert costs.train_step(CONFIG, TRAIN, 5, one_device).collective_bytes == 0
    assert costs.scoring_step(CONFIG, 4, 6, 2, one_device).collective_bytes == 0
    assert costs.generation_step(CONFIG, 4, 6, 3, 8, one_device).collective_bytes == 0


def test_what_eight_devices_send():
    found = costs.train_step(CONFIG, TRAIN, 5, EIGHT).collective_bytes
    total = LAYERS + HEAD
    gathers = 2 * (2 * total * 4 + total * 4) * (2 - 1)  # for each replica: two gathers, a scatter
    replicas = 2 * total * 4 * (2 - 1)
    sums = 2 * 3 * (2 * 1 * 2 * 24 * 8 * 4)  # two a layer, in three passes, there and back
    assert found == gathers + replicas + sums


def test_the_cache():
    layers = init_cache(CONFIG, 3, 7, 1)
    assert costs.cache_bytes(CONFIG, 3, 7) == sum(a.nbytes for a in jax.tree.leaves(layers))


ONE = DecoderConfig(512, 64, 1, 4, 2, 16, 256)


def test_scoring_is_what_xla_counts(one_device):
    """With one layer and one chunk of the vocabulary, XLA counts the body of each scan right."""
    batch = empty(Shape(1, 8, 64, 8 * 8, 8))
    params = decoder.abstract(ONE, one_device)
    counted = score_batch.lower(ONE, params, batch).compile().cost_analysis()["flops"]
    assert costs.scoring_step(ONE, 8, 64, 8, one_device).flops == pytest.approx(counted, rel=0.1)


@pytest.mark.parametrize("policy", ["none", "full"])
def test_training_is_what_xla_counts(one_device, policy):
    config = dataclasses.replace(ONE, remat=policy)
    train = TrainConfig(batch_rows=8, row_tokens=64, remat=policy)
    rows = pack([TrainingSequence([1] * 32, [1] * 24, [1] * 8)] * 8, 64, 0)
    params = decoder.abstract(config, one_device)
    step = jax.jit(loss_and_gradients, static_argnums=(0, 1, 4))
    counted = step.lower(SFT(), config, params, jax.tree.map(jnp.asarray, rows), 1).compile()
    found = costs.train_step(config, train, rows.target.shape[1], one_device).flops
    assert found == pytest.approx(counted.cost_analysis()["flops"], rel=0.15)
