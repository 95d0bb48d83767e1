"""The reference run at its real size, compiled for TPUs that are not there: `make plans`."""

import dataclasses
import functools

import pytest

from bridge_jax.config import MeshConfig
from bridge_jax.models import decoder
from bridge_jax.parallel import chips
from bridge_jax.parallel.sharding import make_mesh
from bridge_jax.planning import memory, plan
from bridge_jax.selection.batches import Shape
from bridge_jax.training.objectives.sft import SFT
from configs import medical_7b

pytest.importorskip("libtpu")
pytestmark = pytest.mark.plans

CONFIG = medical_7b.get_config()
TRAIN = CONFIG.assistant_training
TARGETS = 1024
FULL = dataclasses.replace(
    CONFIG.assistant, lora=dataclasses.replace(CONFIG.assistant.lora, rank=0)
)
FREE = 0.9  # of a chip's memory may be planned


@functools.cache
def topology(name):
    devices, chip = chips.topology(name)
    return make_mesh(MeshConfig(), devices), chip


def model(config, mesh):
    return plan.decoder_config(config, mesh)


def gib(size):
    return size / chips.GIB


def test_full_fine_tuning_of_7b_on_16_chips():
    mesh, chip = topology("v5e:4x4")
    assistant = model(FULL, mesh)
    found = memory.train_step(assistant, TRAIN, SFT(), TARGETS, mesh)
    count = decoder.count_parameters(assistant)
    assert count == 7_615_616_512
    assert gib(found.parameters) == pytest.approx(gib(4 * count / 16), rel=0.001)
    assert gib(found.optimizer) == pytest.approx(gib(8 * count / 16), rel=0.001)
    # Gradients, and the activations of one row of 2,048 tokens.
    assert gib(4 * count / 16) < gib(found.temporary) < 7
    assert found.total < FREE * chip.memory


def test_an_adapter_of_7b_on_4_chips():
    mesh, chip = topology("v5e:2x2")
    train = dataclasses.replace(TRAIN, accumulate=4)
    assistant = model(CONFIG.assistant, mesh)
    found = memory.train_step(assistant, train, SFT(), TARGETS, mesh)
    adapter = 40_370_176
    # The base in bf16; of the adapter (f32) the side that is not cut is whole on every chip.
    base = 2 * (decoder.count_parameters(assistant) - adapter) / 4
    assert base < found.parameters < base + 4 * adapter
    assert found.optimizer < 8 * adapter
    assert found.total < FREE * chip.memory


@pytest.mark.parametrize("where", ["v5e:2x2", "v6e:2x2"])
def test_the_student_trains_in_full(where):
    mesh, chip = topology(where)
    train = dataclasses.replace(CONFIG.student_training, accumulate=4)
    student = model(CONFIG.student, mesh)
    found = memory.train_step(student, train, SFT(), TARGETS, mesh)
    assert gib(found.parameters) == pytest.approx(gib(4 * 494_032_768 / 4), rel=0.001)
    assert found.total < FREE * chip.memory


def test_the_student_writes_on_v5p():
    mesh, chip = topology("v5p:2x2x1")
    student = model(CONFIG.student, mesh)
    found = memory.generation_step(student, CONFIG.generation, 64, 512, mesh)
    assert gib(found.parameters) == pytest.approx(gib(2 * 494_032_768 / 4), rel=0.001)
    assert found.total < FREE * chip.memory


@pytest.mark.parametrize("role", ["assistant", "student"])
def test_scoring_and_generation_on_16_chips(role):
    mesh, chip = topology("v5e:4x4")
    config = model(getattr(CONFIG, role), mesh)
    scoring = memory.scoring_step(config, Shape(16, 4, 512, 64, 8), mesh)
    assert scoring.total < FREE * chip.memory
    writing = memory.generation_step(config, CONFIG.generation, 64, 512, mesh)
    # Keys and values of 4 rows of 768 slots, in bf16.
    heads = config.num_kv_heads * config.head_dim
    assert writing.cache == 2 * config.num_layers * 4 * 768 * heads * 2
    assert writing.temporary > 0
    assert writing.total < FREE * chip.memory
