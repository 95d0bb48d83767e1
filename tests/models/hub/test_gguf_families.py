"""GGUF files of the Llama and Qwen2 families, written here, against the folders they came from."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bridge_jax.config import ModelConfig
from bridge_jax.errors import UserError
from bridge_jax.models.attention import frequencies
from bridge_jax.models.config import Rope
from bridge_jax.models.hub import checkpoint
from tests import tiny
from tests.models.hub.tiny_gguf import write_changed, write_gguf

gguf = pytest.importorskip("gguf")


def as_qwen2(folder):
    """Makes a Qwen2 of the tiny Llama: its family's name, and biases."""
    config = json.loads((folder / "config.json").read_text())
    named = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config | named))
    tensors, rng = load_file(folder / "model.safetensors"), np.random.default_rng(7)
    for name in list(tensors):
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            bias = rng.normal(size=len(tensors[name])).astype(np.float32)
            tensors[name.replace(".weight", ".bias")] = bias
    save_file(tensors, folder / "model.safetensors")


def load(path):
    config, params = checkpoint.load(ModelConfig(str(path)))
    return config, params


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_file_is_the_folder_it_came_from(family, tied, tmp_path):
    folder = tiny.write_checkpoint(tmp_path / "folder", tied=tied, rope_theta=3e4, head_dim=12)
    if family == "qwen2":
        as_qwen2(folder)
    config, params = load(folder)
    there, again = load(write_gguf(folder, tmp_path / "model.gguf"))
    assert there.rope == Rope(3e4) and there.tied == tied
    assert there.qkv_bias == (family == "qwen2")
    assert there == config
    jax.tree.map(np.testing.assert_array_equal, again, params)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_what_a_gguf_file_does_not_say_is_as_in_llama_cpp(family, tmp_path):
    folder = tiny.write_checkpoint(tmp_path / "folder", kv_heads=4)
    if family == "qwen2":
        as_qwen2(folder)
    unsaid = ("attention.head_count_kv", "attention.key_length", "rope.freq_base")
    unsaid = {f"{family}.{key}": None for key in unsaid}
    config, params = load(write_changed(folder, tmp_path / "model.gguf", unsaid))
    assert (config.num_kv_heads, config.head_dim, config.rope) == (4, 8, Rope(10_000.0))
    jax.tree.map(np.testing.assert_array_equal, params, load(folder)[1])


def test_llama3_rope_is_recognised_by_its_factors(tmp_path):
    folder = tiny.write_checkpoint(tmp_path / "folder", rope_theta=500_000.0, head_dim=64)
    plain = frequencies(Rope(500_000.0), 64)
    for factor in (8.0, 32.0):
        stretched = Rope(500_000.0, factor, 8192)
        factors = plain / frequencies(stretched, 64)
        assert factors[0] == 1.0 and factors[-1] == pytest.approx(factor)
        config, _ = load(write_gguf(folder, tmp_path / f"{factor}.gguf", factors))
        assert config.rope == stretched
    with pytest.raises(UserError, match="not those of Llama 3"):
        load(write_gguf(folder, tmp_path / "other.gguf", np.full(32, 3.0)))


def test_rope_scaling_is_read_or_refused(tmp_path):
    folder = tiny.write_checkpoint(tmp_path / "folder")
    kinds = gguf.RopeScalingType
    config, _ = load(write_gguf(folder, tmp_path / "linear.gguf", scaling=kinds.LINEAR))
    assert config.rope == Rope(10_000.0, 4.0)
    with pytest.raises(UserError, match="rope scaling 'yarn' is not supported"):
        load(write_gguf(folder, tmp_path / "yarn.gguf", scaling=kinds.YARN))


def test_another_family_is_named(tmp_path):
    folder = tiny.write_checkpoint(tmp_path / "folder")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "gemma2"}))
    with pytest.raises(UserError, match=r"model_type='gemma2' is not supported in GGUF"):
        load(write_gguf(folder, tmp_path / "model.gguf"))
