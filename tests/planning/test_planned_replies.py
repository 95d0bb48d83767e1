"""Trainings on a model's own replies: three programs that take turns, and what each one needs."""

import dataclasses

import pytest

from bridge_jax.config import MeshConfig, TrainConfig
from bridge_jax.config.io import override
from bridge_jax.methods.checks import meshes_of
from bridge_jax.parallel import chips
from bridge_jax.parallel.sharding import make_mesh
from bridge_jax.planning import memory, plan
from bridge_jax.planning.workload import GenerationWork, ReadingWork, list_work, name_of, opened
from bridge_jax.training.objectives.distillation import ReverseKL
from bridge_jax.training.objectives.policy import Policy
from configs import bard_8b, medical_7b

REINFORCED = "budgets/reinforced"


@pytest.fixture(scope="module")
def bard():
    """The config, its stages and lengths, and the work of its reinforcement learning."""
    config = override(bard_8b.get_config(), ["method=bard"])
    stages, lengths = opened(config, make_mesh(MeshConfig(2, 4, 1)).devices.ravel())
    return config, stages, lengths, list_work(stages, lengths, {REINFORCED})


def test_replies_are_written_read_and_learned_from(bard):
    *_, (replies, reading, training) = bard
    assert [name_of(work) for work in bard[-1]] == [
        "budgets/reinforced: replies",
        "budgets/reinforced: reading",
        REINFORCED,
    ]
    # 8 replies to each of 8 questions, of a quarter above the largest budget, what closes the
    # thinking, and the answer.
    assert (replies.rows, replies.width, replies.steps) == (64, 1024, 100)
    assert replies.settings.max_new_tokens == 8000 + 2000 + 32 + 512
    # Each fills a row; its targets are a multiple of 128.
    assert (reading.rows, reading.width, reading.targets, reading.steps) == (
        64,
        11_776,
        10_624,
        100,
    )
    assert (training.train.batch_rows, training.targets, training.steps) == (64, 10_624, 100)
    assert isinstance(training.objective, Policy)


def test_without_a_kl_nothing_is_read(bard):
    config = override(bard[0], ["reinforcement.kl=0"])
    stages, lengths = opened(config, bard[2].inputs.devices)
    names = [name_of(work) for work in list_work(stages, lengths, {REINFORCED})]
    assert names == ["budgets/reinforced: replies", REINFORCED]


def test_short_replies_share_rows(bard):
    settings = ["thinking.levels=100,400", "thinking.answer_tokens=32", "max_prompt_tokens=256"]
    config = override(bard[0], [*settings, "reinforcement.train.row_tokens=2048"])
    stages, lengths = opened(config, bard[2].inputs.devices)
    *_, training = list_work(stages, lengths, {REINFORCED})
    # 256 and 400 + 100 + 32 + 32 tokens: two replies a row, 32 rows, filled up to a batch of 64.
    assert (training.train.batch_rows, training.targets) == (64, 2 * 564 + 24)


def test_each_program_has_beside_it_what_the_others_keep(bard):
    config, stages, lengths, works = bard

    def measure(work, *_):
        match work:
            case GenerationWork():
                return memory.Memory(10, 0, 5, 1, 1)
            case ReadingWork():
                return memory.Memory(20, 0, 0, 2, 1)
        return memory.Memory(30, 60, 0, 3, 1)

    meshes = meshes_of(stages, lengths.inputs)
    planned = plan.plan_stages(config, works, meshes, chips.CHIPS["v5p"], measure=measure)
    held = {stage.name: stage.memory.held for stage in planned}
    assert held == {
        "budgets/reinforced: replies": 20 + 30 + 60,
        "budgets/reinforced: reading": 10 + 5 + 30 + 60,
        REINFORCED: 10 + 5 + 20,
    }


def test_on_policy_distillation_is_planned_with_the_assistants_reading():
    config = override(
        medical_7b.get_config(),
        ["method=on_policy", "on_policy.train.row_tokens=1024", "on_policy.train.batch_rows=8"],
    )
    stages, lengths = opened(config, make_mesh(MeshConfig(2, 4, 1)).devices.ravel())
    replies, reading, training = list_work(stages, lengths, {"tutoring/on_policy"})
    assert (replies.role, reading.role, training.role) == ("student", "assistant", "student")
    assert (replies.rows, replies.settings.max_new_tokens) == (16, 256)
    # 16 replies, one in each row, of which the assistant reads 8 at a time.
    assert (reading.rows, reading.soft, reading.steps) == (8, 32, 200)
    assert (training.train.batch_rows, training.soft) == (16, 32)


@pytest.mark.slow
def test_the_steps_compile(tiny_model, one_device):
    model = dataclasses.replace(tiny_model[0], lora=None)
    train = TrainConfig(batch_rows=2, row_tokens=32, remat="none")
    policy = memory.train_step(model, train, Policy(kl=0.1), 8, one_device)
    distilled = memory.train_step(model, train, ReverseKL(), 8, one_device, soft=4)
    read = memory.reading_step(model, 2, 32, 8, 0, one_device)
    # Parameters and two moments in f32, and a few counters.
    assert policy.kept == distilled.kept
    assert 3 * read.parameters < policy.kept < 3 * read.parameters + 100
    assert read.kept == read.parameters and read.temporary > 0
