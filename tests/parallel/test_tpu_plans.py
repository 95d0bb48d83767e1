"""The reference run at its real size, compiled for TPUs that are not there: `make plans`."""

import dataclasses

import pytest

from bridge_jax.models import decoder, layouts
from bridge_jax.models.hub.checkpoint import planned_config
from bridge_jax.parallel import chips
from bridge_jax.planning import memory
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


def opened(name, selected):
    """Returns the config of a model, its meshes on a topology, and the chip."""
    devices, chip = chips.topology(name)
    config = planned_config(selected, devices[0])
    settings = CONFIG.generation
    use = layouts.Use(settings.batch_size, CONFIG.max_prompt_tokens + settings.max_new_tokens)
    return config, layouts.choose(config, CONFIG.mesh, devices, use), chip


def gib(size):
    return size / chips.GIB


def test_full_fine_tuning_of_7b_on_16_chips():
    assistant, meshes, chip = opened("v5e:4x4", FULL)
    found = memory.train_step(assistant, TRAIN, SFT(), TARGETS, meshes.training)
    count = decoder.count_parameters(assistant)
    assert count == 7_615_616_512
    assert gib(found.parameters) == pytest.approx(gib(4 * count / 16), rel=0.001)
    assert gib(found.optimizer) == pytest.approx(gib(8 * count / 16), rel=0.001)
    # Gradients, and the activations of one row of 2,048 tokens.
    assert gib(4 * count / 16) < gib(found.temporary) < 7
    assert found.total < FREE * chip.memory


def test_an_adapter_of_7b_on_4_chips():
    assistant, meshes, chip = opened("v5e:2x2", CONFIG.assistant)
    train = dataclasses.replace(TRAIN, accumulate=4)
    found = memory.train_step(assistant, train, SFT(), TARGETS, meshes.training)
    adapter = 40_370_176
    # The base in bf16; of the adapter (f32) the side that is not cut is whole on every chip.
    base = 2 * (decoder.count_parameters(assistant) - adapter) / 4
    assert base < found.parameters < base + 4 * adapter
    assert found.optimizer < 8 * adapter
    assert found.total < FREE * chip.memory


@pytest.mark.parametrize("where", ["v5e:2x2", "v6e:2x2"])
def test_the_student_trains_in_full(where):
    student, meshes, chip = opened(where, CONFIG.student)
    train = dataclasses.replace(CONFIG.student_training, accumulate=4)
    found = memory.train_step(student, train, SFT(), TARGETS, meshes.training)
    assert gib(found.parameters) == pytest.approx(gib(4 * 494_032_768 / 4), rel=0.001)
    assert found.total < FREE * chip.memory


def test_the_student_writes_on_v5p():
    student, meshes, chip = opened("v5p:2x2x1", CONFIG.student)
    found = memory.generation_step(student, CONFIG.generation, 256, 512, meshes.generation)
    assert found.parameters == 2 * 494_032_768  # whole on each chip
    assert found.total < FREE * chip.memory


@pytest.mark.parametrize("role", ["assistant", "student"])
def test_scoring_and_generation_on_16_chips(role):
    config, meshes, chip = opened("v5e:4x4", getattr(CONFIG, role))
    scoring = memory.scoring_step(config, Shape(16, 4, 512, 64, 8), meshes.training)
    assert scoring.total < FREE * chip.memory
    writing = memory.generation_step(config, CONFIG.generation, 256, 512, meshes.generation)
    # Keys and values in bf16, of slots with 1,024 places for 768: of 32 rows on each pair of chips,
    # or of 16 on each.
    tensor = {"assistant": 2, "student": 1}[role]
    heads = config.num_kv_heads * config.head_dim
    assert writing.cache == 2 * config.num_layers * 16 * tensor * 1024 * heads * 2 // tensor
    biases_and_norms = 0.001
    parameters = decoder.count_parameters(dataclasses.replace(config, lora=None))
    assert writing.parameters == pytest.approx(2 * parameters / tensor, rel=biases_and_norms)
    assert writing.temporary > 0
    assert writing.total < FREE * chip.memory
