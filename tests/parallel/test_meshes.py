"""Every step on eight devices, in every shape of mesh, against its one-device result."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from bridge_jax.config import GenerationConfig, LoraConfig, MeshConfig, SelectionConfig
from bridge_jax.generation.engine import Engine
from bridge_jax.models import decoder, layouts, projection
from bridge_jax.models.config import DecoderConfig, Rope
from bridge_jax.parallel.sharding import make_mesh, shard_batch
from bridge_jax.selection.scores import score
from bridge_jax.selection.strategies import select
from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import TrainingSequence
from bridge_jax.training.objectives.sft import SFT
from bridge_jax.training.step import loss_and_gradients

VOCAB, PAD = 256, 0
PLAIN = DecoderConfig(VOCAB, 64, 3, 8, 4, 8, 96, remat="full")
MODELS = {
    "plain": PLAIN,
    "windowed": dataclasses.replace(
        PLAIN,
        window=6,
        local=(True, False, True),
        local_rope=Rope(theta=500.0),
        qk_norm=True,
        qkv_bias=True,
        post_norms=True,
        norm_offset=1.0,
        attention_softcap=20.0,
        final_softcap=10.0,
        tied=False,
    ),
    "adapter": dataclasses.replace(PLAIN, lora=LoraConfig(rank=4)),
    # 2 KV heads, and 258 rows of the table: 4 devices of `tensor` divide neither.
    "grouped": dataclasses.replace(PLAIN, num_kv_heads=2, qkv_bias=True, vocab_size=258),
    "adapted": dataclasses.replace(PLAIN, num_kv_heads=2, lora=LoraConfig(rank=4)),
}
MESHES = {
    "1x8x1": MeshConfig(1, 8, 1),
    "2x2x2": MeshConfig(2, 2, 2),
    "1x2x4": MeshConfig(1, 2, 4),
}


def on_meshes(*names):
    """Returns cases: all names on the mesh 2x2x2, and the last on the other meshes (slow)."""
    others = [mesh for mesh in MESHES if mesh != "2x2x2"]
    return [
        *((name, "2x2x2") for name in names),
        *(pytest.param(names[-1], mesh, marks=pytest.mark.slow) for mesh in others),
    ]


@dataclasses.dataclass(frozen=True)
class InSlice:
    """A device of this machine in a slice that the machine does not have."""

    real: Any
    slice_index: int
    platform: str = "cpu"
    device_kind: str = "cpu"


def on_slices(config):
    """Returns a mesh over two slices; every second device is in the same."""
    devices: Any = [InSlice(device, i % 2) for i, device in enumerate(jax.devices())]
    mesh = make_mesh(config, devices)
    for slice_index, part in enumerate(np.split(mesh.devices, 2)):
        assert {device.slice_index for device in part.flat} == {slice_index}
    return Mesh(np.vectorize(lambda device: device.real)(mesh.devices), mesh.axis_names)


def sequences(count, seed=0):
    rng = np.random.default_rng(seed)

    def ids(most):
        return rng.integers(3, VOCAB, rng.integers(1, most)).tolist()

    return [TrainingSequence(ids(9), ids(8), ids(5)) for _ in range(count)]


def placed(config, mesh):
    """Returns random parameters, the same on every mesh; adapters are not zero."""
    like = decoder.abstract(config, mesh)
    leaves, tree = jax.tree.flatten(like)
    rng = np.random.default_rng(1)
    drawn = [rng.normal(0, 0.15, leaf.shape).astype(leaf.dtype) for leaf in leaves]
    return jax.tree.map(lambda a, s: jax.device_put(a, s.sharding), tree.unflatten(drawn), like)


@functools.cache
def gradients(config, mesh):
    rows = pack(sequences(48), 32, PAD)
    rows = jax.tree.map(lambda a: a[:14], rows)  # 8 devices do not divide it: it is filled up
    assert len(rows.tokens) == 14
    params = placed(config, mesh)
    trained, frozen = projection.split(params) if config.lora else (params, {})
    step = jax.jit(loss_and_gradients, static_argnums=(0, 1, 4))
    with jax.set_mesh(mesh):
        found = step(SFT(0.4), config, trained, shard_batch(rows, mesh, 2), 2, frozen)
    return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize(
    ("model", "mesh"),
    [
        *on_meshes("windowed"),
        pytest.param("plain", "2x2x2", marks=pytest.mark.slow),
        pytest.param("adapter", "2x2x2", marks=pytest.mark.slow),  # On 1x2x4 as "adapted" below.
    ],
)
def test_losses_and_gradients(model, mesh, one_device):
    expected = gradients(MODELS[model], one_device)
    assert expected[0]["grad_norm"] > 0.1
    found = gradients(MODELS[model], make_mesh(MESHES[mesh]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), found, expected)


@pytest.mark.parametrize("model", ["grouped", pytest.param("adapted", marks=pytest.mark.slow)])
def test_fewer_kv_heads_than_devices(model, one_device):
    expected = gradients(MODELS[model], one_device)
    found = gradients(MODELS[model], make_mesh(MeshConfig(1, 2, 4)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), found, expected)


@pytest.mark.slow
def test_losses_and_gradients_on_two_slices(one_device):
    expected = gradients(MODELS["grouped"], one_device)
    found = gradients(MODELS["grouped"], on_slices(MeshConfig(fsdp=2, tensor=-1)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), found, expected)


def test_what_is_trained_moves_to_where_it_generates(one_device):
    """One jitted function reads from the one mesh and writes to the other."""
    config = dataclasses.replace(MODELS["grouped"], dtype=jnp.bfloat16, param_dtype=jnp.float32)
    wanted = MeshConfig(fsdp=4, tensor=2, generation_tensor=4)
    training, generation, _ = layouts.choose(config, wanted)
    assert dict(generation.shape) == {"data": 2, "fsdp": 1, "tensor": 4}
    places = jax.tree.map(lambda a: a.sharding, layouts.generation_weights(config, generation))
    moved = jax.jit(
        lambda params: jax.tree.map(lambda a: a.astype(config.dtype), params), out_shardings=places
    )(placed(config, training))
    for leaf, place, one in zip(*map(jax.tree.leaves, (moved, places, placed(config, one_device)))):
        assert leaf.sharding.is_equivalent_to(place, leaf.ndim) and leaf.dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(one).astype(jnp.bfloat16))


@functools.cache
def written(config, mesh, temperature):
    config = dataclasses.replace(config, remat="none")
    rng = np.random.default_rng(2)
    prompts = [rng.integers(3, VOCAB, n).tolist() for n in (3, 9, 20, 31, 5, 6, 7, 8, 30, 23)]
    settings = GenerationConfig(max_new_tokens=12, batch_size=6, temperature=temperature)
    engine = Engine(config, placed(config, mesh), [2], PAD, settings, mesh)
    return dict(enumerate(engine.complete_all(prompts)))


@pytest.mark.parametrize(("temperature", "mesh"), on_meshes(0.0, 0.7))
def test_generation(mesh, temperature, one_device):
    expected = written(MODELS["windowed"], one_device, temperature)
    found = written(MODELS["windowed"], make_mesh(MESHES[mesh]), temperature)
    assert {i: done.ids for i, done in found.items()} == {
        i: done.ids for i, done in expected.items()
    }
    for i, done in expected.items():
        np.testing.assert_allclose(found[i].logprobs, done.logprobs, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_generation_on_its_own_mesh(one_device):
    expected = written(MODELS["grouped"], one_device, 0.0)
    found = written(MODELS["grouped"], make_mesh(MeshConfig(2, 1, 4)), 0.0)
    assert {i: done.ids for i, done in found.items()} == {
        i: done.ids for i, done in expected.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("kv_heads", [2, 6])
def test_generation_with_key_heads_that_chips_share(kv_heads, one_device):
    """Of 12 query heads each of 4 chips has 3: half of a key head's six, or a pair and a half."""
    config = DecoderConfig(VOCAB, 48, 1, 12, kv_heads, 4, 96)
    expected = written(config, one_device, 0.7)
    found = written(config, make_mesh(MeshConfig(2, 1, 4)), 0.7)
    assert {i: done.ids for i, done in found.items()} == {
        i: done.ids for i, done in expected.items()
    }


@functools.cache
def scored(config, mesh):
    config = dataclasses.replace(config, remat="none")
    found = [TrainingSequence(s.prompt, [], s.answer) for s in sequences(50, seed=3)]
    return score(config, placed(config, mesh), found, 512, PAD, mesh)


@pytest.mark.slow
def test_scores_with_fewer_kv_heads_than_devices(one_device):
    expected = scored(MODELS["grouped"], one_device)
    for mesh in (make_mesh(MeshConfig(1, 2, 4)), on_slices(MeshConfig(fsdp=1, tensor=4, data=-1))):
        for a, b in zip(scored(MODELS["grouped"], mesh), expected):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("model", "mesh"), on_meshes("windowed"))
def test_scores_and_selection(model, mesh, one_device):
    expected = scored(MODELS[model], one_device)
    found = scored(MODELS[model], make_mesh(MESHES[mesh]))
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    how = SelectionConfig(strategy="diversity")
    chosen = (select(s.nll, s.embeddings, 10, how, seed=0) for s in (found, expected))
    first, second = chosen
    assert first.chosen == second.chosen
