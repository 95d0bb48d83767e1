"""Where each model lies: decided from sizes alone, and built without a device."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_jax.config import LoraConfig, MeshConfig, ModelConfig
from bridge_jax.models import decoder, layouts
from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.hub.checkpoint import planned_config
from bridge_jax.models.layouts import Use
from bridge_jax.parallel import chips
from bridge_jax.parallel.sharding import (
    abstract_mesh,
    axis_sizes,
    local_bytes,
    slice_count,
    spec_for,
)
from configs.models import PAIRS

# One layer of 12 heads, 6 of them of keys. In bf16 its matrices take 2 x (2 x 48 x 4 x 18 of the
# heads + 3 x 48 x 96) bytes, its norms 2 x 3 x 48, the table 2 x 100 x 48.
SMALL = DecoderConfig(100, 48, 1, 12, 6, 4, 96, dtype=jnp.bfloat16)
HEADS, KV, MLP, NORMS, TABLE = 2 * 2 * 48 * 48, 2 * 2 * 48 * 24, 2 * 3 * 48 * 96, 288, 9600
USE = Use(rows=8, slots=10)
CACHE = 2 * 2 * 8 * 10 * 24  # keys and values of 8 rows


def sizes(config):
    return config.data, config.fsdp, config.tensor


def chosen(memory, wanted=None, devices=8, slices=1, config=SMALL, use=USE):
    return layouts.layouts(config, wanted or MeshConfig(), devices, slices, memory, use)


def test_bytes_by_hand():
    whole = HEADS + KV + MLP + NORMS + TABLE
    one = abstract_mesh(MeshConfig(8, 1, 1))
    assert local_bytes(layouts.generation_weights(SMALL, one)) == whole
    assert layouts.cache_bytes(SMALL, one, 8, 10) == CACHE // 8
    # 4 do not divide 6: keys and values are whole on each chip. They divide the 100 tokens.
    four = abstract_mesh(MeshConfig(2, 1, 4))
    cut = (HEADS + MLP + TABLE) // 4 + KV + NORMS
    assert local_bytes(layouts.generation_weights(SMALL, four)) == cut
    assert layouts.cache_bytes(SMALL, four, 8, 10) == CACHE // 2
    # Three rows for every four devices are filled up.
    assert layouts.cache_bytes(SMALL, one, 6, 10) == CACHE // 8
    # f32 and two moments, cut by fsdp but for the norms.
    train = abstract_mesh(MeshConfig(1, 8, 1))
    assert layouts.state_bytes(SMALL, train) == 6 * ((whole - NORMS) // 8 + NORMS)


def test_generation_takes_the_smallest_tensor_that_fits():
    whole = HEADS + KV + MLP + NORMS + TABLE
    held = (whole - NORMS) // 8 + NORMS  # what lies there to be trained or scored with
    needs = held + whole + CACHE // 8
    assert sizes(chosen(needs / 0.8 + 1).generation) == (8, 1, 1)
    assert sizes(chosen(needs / 0.8 - 1).generation) == (4, 1, 2)
    two = held + (HEADS + KV + MLP + TABLE) // 2 + NORMS + CACHE // 8
    assert sizes(chosen(two / 0.8 + 1).generation) == (4, 1, 2)
    found = chosen(two / 0.8 - 1)
    assert sizes(found.generation) == (2, 1, 4)
    assert found.notes == (
        "tensor=4 does not divide the 6 KV heads, which are replicated on every chip",
    )
    assert sizes(found.training) == (1, 8, 1)
    # Neither fits: it is cut as for training.
    found = chosen(held)
    assert found.generation == found.training
    assert found.notes[1] == (
        "generation gathers weights at every token: they do not fit unless sharded"
    )
    copies = chosen(held, MeshConfig(data=-1, fsdp=1))
    assert sizes(copies.training) == (8, 1, 1) and sizes(copies.generation) == (2, 1, 4)
    # Moments lie there too while a training measures what the model writes.
    beside = layouts.state_bytes(SMALL, abstract_mesh(MeshConfig(1, 8, 1))) - held
    trained = USE._replace(in_training=True)
    assert sizes(chosen((needs + beside) / 0.8 + 1, use=trained).generation) == (8, 1, 1)
    assert sizes(chosen((needs + beside) / 0.8 - 1, use=trained).generation) == (4, 1, 2)


def test_generation_tensor_is_a_wish():
    wish = MeshConfig(generation_tensor=2)
    assert sizes(chosen(math.inf, wish).generation) == (4, 1, 2)
    found = chosen(math.inf, MeshConfig(generation_tensor=8))
    assert sizes(found.generation) == (2, 1, 4)
    assert found.notes[0].startswith("mesh.generation_tensor=8 reduced to 4, which divides ")
    found = chosen(1000, MeshConfig(generation_tensor=1))
    assert sizes(found.generation) == (8, 1, 1)
    assert found.notes == ("generation takes about 0.0 GiB of a chip's 0.0",)


@pytest.mark.parametrize(
    ("wanted", "devices", "slices", "expected"),
    [
        # 48 = 16 x 3: of 64 devices, 16 cut it and 4 hold copies.
        (MeshConfig(), 64, 1, (4, 16, 1)),
        (MeshConfig(data=2), 64, 1, (4, 16, 1)),
        # 12 heads: 4 of 8. What tensor leaves goes to fsdp if that takes what is left.
        (MeshConfig(tensor=8), 8, 1, (1, 2, 4)),
        (MeshConfig(fsdp=1, tensor=8), 8, 1, (2, 1, 4)),
        (MeshConfig(fsdp=1, tensor=-1), 8, 1, (2, 1, 4)),
        (MeshConfig(data=-1, fsdp=2, tensor=2), 8, 1, (2, 2, 2)),
        # Nothing but data crosses slices.
        (MeshConfig(), 8, 2, (2, 4, 1)),
        (MeshConfig(data=2), 8, 2, (2, 4, 1)),
        (MeshConfig(fsdp=2, tensor=4), 8, 4, (4, 1, 2)),
        (MeshConfig(data=3), 12, 2, (6, 2, 1)),
    ],
)
def test_what_a_model_cannot_use_holds_copies(wanted, devices, slices, expected):
    assert sizes(chosen(math.inf, wanted, devices, slices).training) == expected


def test_what_falls_back_is_said():
    model = planned_config(ModelConfig("Qwen/Qwen2.5-0.5B-Instruct"))
    found = chosen(math.inf, devices=256, config=model)
    assert found.notes == (
        "mesh.fsdp=256 reduced to 128, which divides the model width 896",
        "leftover devices hold replicas: mesh.data=2",
    )
    found = chosen(math.inf, MeshConfig(tensor=4), devices=16, slices=2, config=model)
    assert sizes(found.training) == (2, 4, 2)
    assert found.notes[0] == (
        "mesh.tensor=4 reduced to 2, which divides the 14 heads and the MLP width 4,864 and the "
        "8 chips of a slice"
    )
    assert chosen(math.inf, MeshConfig(tensor=2), devices=16, config=model).notes == ()
    odd = dataclasses.replace(SMALL, vocab_size=101)
    assert chosen(math.inf, MeshConfig(tensor=2), config=odd).notes == (
        "tensor=2 does not divide the vocabulary size 101; the embedding table is not sharded over "
        "tensor",
    )


# Two axes are stated, and the third one takes the devices that are left.
ASKED = [
    (MeshConfig(*sizes), devices)
    for devices in (4, 8, 24, 48)
    for sizes in itertools.product([-1, 1, 2, 3, 4, 8], repeat=3)
    if sizes.count(-1) == 1 and devices % -math.prod(sizes) == 0
]


@given(
    st.sampled_from(ASKED), st.sampled_from([1, 2, 4]), st.sampled_from([48, 896, 7]),
    st.sampled_from([1, 2, 12, 14]),
)  # fmt: skip
def test_any_model_lies_on_any_devices(asked, slices, width, cut):
    wanted, devices = asked
    found = axis_sizes(wanted, devices, slices, width, cut)
    assert found.data * found.fsdp * found.tensor == devices
    assert width % found.fsdp == 0 and cut % found.tensor == 0
    assert devices // slices % (found.fsdp * found.tensor) == 0
    asked = axis_sizes(wanted, devices)
    assert found.data % asked.data == 0 and asked.tensor % found.tensor == 0


def models():
    pairs = [model for pair in PAIRS.values() for model in pair]
    return list(dict.fromkeys(pairs))


@pytest.mark.parametrize("model", models(), ids=lambda model: model.checkpoint.split("/")[-1])
@pytest.mark.parametrize("where", ["v5e:2x2", "v5e:4x4", "v5e:16x16", "2*v5e:4x4"])
def test_every_shipped_model_has_its_place(model, where):
    """Builds what is trained, what generates, and the cache, on meshes without devices."""
    devices, slices = {"v5e:2x2": (4, 1), "v5e:4x4": (16, 1), "v5e:16x16": (256, 1)}.get(
        where, (32, 2)
    )
    memory = chips.CHIPS["v5e"].memory
    config = dataclasses.replace(planned_config(model), dtype=jnp.bfloat16)
    found = chosen(memory, devices=devices, slices=slices, config=config, use=Use(64, 768))
    train, write = abstract_mesh(found.training), abstract_mesh(found.generation)
    assert train.size == write.size == devices
    assert found.training.data % slices == found.generation.data % slices == 0
    assert found.generation.fsdp == 1
    params = decoder.abstract(layouts.training_config(config), train)
    everything = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    # All but norms, biases and one side of an adapter is cut.
    parts = found.training.fsdp * found.training.tensor
    assert everything / parts <= local_bytes(params) < everything / parts + 0.02 * everything
    weights, tensor = layouts.generation_weights(config, write), found.generation.tensor
    total = sum(leaf.size * 2 for leaf in jax.tree.leaves(weights))
    assert total / tensor <= local_bytes(weights) < 1.01 * total / tensor
    shape = config.num_layers, 64, config.num_kv_heads, 768, config.head_dim
    cache = spec_for(("layers", "batch", "kv_heads", None, "head_dim"), shape, write)
    assert cache[1] is not None or write.shape["data"] > 64
    assert local_bytes(weights) + layouts.cache_bytes(config, write, 64, 768) < 0.8 * memory
    # The two largest, with their caches, take four chips only where these train them too.
    large = {"Qwen2.5-7B-Instruct": 2, "Llama-3.1-8B-Instruct": 2, "gemma-2-9b-it": 2}
    name = model.checkpoint.split("/")[-1]
    whole = name in ("gemma-2-9b-it", "Llama-3.1-8B-Instruct") and devices == 4
    assert tensor == (4 if whole else large.get(name, 1))


def test_neighbours_on_both_meshes():
    """Finds the pairs of `tensor` next to each other in hardware, and slices inside of `data`."""
    pytest.importorskip("libtpu")
    assistant = PAIRS["qwen2.5-7b to qwen2.5-0.5b"].assistant
    for name in ("v5e:4x4", "2*v5e:4x4", "v5e:16x16"):
        devices, _ = chips.topology(name)
        config = planned_config(assistant, devices[0])
        training, generation, _ = layouts.choose(config, MeshConfig(), devices, Use(64, 768))
        assert list(training.devices.flat) == list(generation.devices.flat)
        assert generation.shape["tensor"] == 2
        for first, second in generation.devices.reshape(-1, 2):
            assert np.abs(np.subtract(first.coords, second.coords)).sum() == 1
            assert slice_count([first, second]) == 1
        for mesh in (training, generation):
            assert {slice_count(part.ravel()) for part in mesh.devices} == {1}  # of data


def test_an_adapter_is_merged_before_generation():
    config = dataclasses.replace(SMALL, lora=LoraConfig(rank=2))
    mesh = abstract_mesh(MeshConfig(8, 1, 1))
    assert layouts.generation_weights(config, mesh) == layouts.generation_weights(SMALL, mesh)
    base = HEADS + KV + MLP + NORMS + TABLE
    # Of query, key, value and out, gate, up and down.
    widths = (48 + 48) + 2 * (48 + 24) + (48 + 48) + 3 * (48 + 96)
    assert layouts.state_bytes(config, mesh) == base + 3 * 4 * 2 * widths


def test_an_int8_base_is_held_as_bytes_and_generates_in_floats():
    lora = LoraConfig(rank=2, base="int8")
    rounded = dataclasses.replace(SMALL, lora=lora)
    plain = dataclasses.replace(SMALL, lora=LoraConfig(rank=2))
    mesh = abstract_mesh(MeshConfig(1, 1, 1))
    weights = local_bytes(layouts.generation_weights(rounded, mesh))
    # As downloaded both are floats; a trained one has its kernels in int8, with scales in f32.
    assert layouts.held_bytes(rounded, mesh) == layouts.held_bytes(plain, mesh) == weights
    floats, bytes_ = (layouts.held_bytes(c, mesh, trained=True) for c in (plain, rounded))
    scales = 4 * (48 + 2 * 24 + 48 + 2 * 96 + 48)
    assert floats - bytes_ == (HEADS + KV + MLP) // 2 - scales
    assert layouts.held_bytes(SMALL, mesh, trained=True) == weights
    notes = [
        layouts.layouts(config, MeshConfig(), 8, 1, 1e9, USE).notes for config in (plain, rounded)
    ]
    said = "the int8 base is used only for training and scoring; generation uses bfloat16 weights "
    assert not any("int8" in note for note in notes[0])
    assert f"{said}with the adapter merged" in notes[1]
