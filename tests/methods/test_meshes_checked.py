"""What a run says of its meshes, and refuses, before anything is trained or paid."""

import dataclasses

import pytest

from bridge_jax.config import LoraConfig, MeshConfig
from bridge_jax.errors import UserError
from bridge_jax.methods import checks, input_checks
from bridge_jax.parallel import chips
from bridge_jax.planning import workload
from configs import medical_7b

ALL_DEVICES = True  # See conftest.py.


def opened(**changes):
    """Returns the 7B config with changes, its stages and its inputs, on eight devices."""
    config = dataclasses.replace(medical_7b.get_config(), **changes)
    stages, lengths = workload.opened(config)
    return config, stages, lengths.inputs


def test_a_state_that_does_not_fit_is_refused(monkeypatch):
    config, stages, inputs = opened()
    monkeypatch.setattr(chips, "memory", lambda device: 5 * chips.GIB)
    # On CPUs everything is f32: the base of 7,615,616,512 numbers is cut into 8, and an adapter of
    # 40,370,176 lies whole on its side that is not.
    input_checks.check_meshes(config, stages, inputs)
    monkeypatch.setattr(chips, "memory", lambda device: 3.5 * chips.GIB)
    with pytest.raises(UserError) as found:
        input_checks.check_meshes(config, stages, inputs)
    assert str(found.value) == (
        "assistant: its parameters and moments take 3.9 GiB per device on the mesh data=1 "
        "fsdp=8 tensor=1, but a device has 3.5; shard over more devices (mesh.fsdp, mesh.tensor), "
        "add devices"
    )
    whole = dataclasses.replace(config.assistant, lora=LoraConfig())
    config, stages, inputs = opened(assistant=whole, mesh=MeshConfig(data=2))
    monkeypatch.setattr(chips, "memory", lambda device: 21 * chips.GIB)
    with pytest.raises(UserError) as found:
        input_checks.check_meshes(config, stages, inputs)  # 12 bytes a number, on 4 devices
    assert "take 21.3 GiB per device on the mesh data=2 fsdp=4 tensor=1" in str(found.value)
    assert "or train an adapter (assistant.lora.rank)" in str(found.value)


def test_what_a_role_cannot_use_is_one_line(monkeypatch):
    monkeypatch.setattr(chips, "memory", lambda device: 64 * chips.GIB)
    config, stages, inputs = opened(mesh=MeshConfig(fsdp=1, tensor=8))
    said = list(input_checks.notes_on(config, stages, checks.meshes_of(stages, inputs)))
    assert said[:2] == [
        "assistant: mesh.tensor=8 reduced to 4, which divides the 28 heads and the MLP width "
        "18,944; leftover devices hold replicas: mesh.data=2",
        "student: mesh.tensor=8 reduced to 2, which divides the 14 heads and the MLP width "
        "4,864; leftover devices hold replicas: mesh.data=4",
    ]


def test_batches_with_empty_rows_are_named_by_their_meshes(monkeypatch):
    monkeypatch.setattr(chips, "memory", lambda device: 64 * chips.GIB)
    config, stages, inputs = opened(mesh=MeshConfig(fsdp=1, tensor=8))
    config = dataclasses.replace(
        config, generation=dataclasses.replace(config.generation, batch_size=10)
    )
    (*_, said) = input_checks.notes_on(config, stages, checks.meshes_of(stages, inputs))
    assert "generation.batch_size=10 to a multiple of 8" in said
    assert "batch_rows" not in said  # 2 and 4 divide 16


def test_sizes_that_do_not_match_the_devices_are_refused_first():
    with pytest.raises(UserError, match="data=1 fsdp=-1 tensor=3 requires a multiple of 3 devices"):
        opened(mesh=MeshConfig(tensor=3))
