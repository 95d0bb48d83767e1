"""GGUF files of each family, written here as llama.cpp's converter does, against their origin."""

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
from tests.models.hub import families
from tests.models.hub.tiny_gguf import write_changed, write_gguf
from tests.models.test_model_parity import all_logits

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


# Of transformers, changed to what a GGUF file can say of a small Gemma 3.
GEMMA3 = {"query_pre_attn_scalar": 16}


@pytest.mark.parametrize(
    "shape",
    [
        "qwen3",
        pytest.param("qwen3_untied", marks=pytest.mark.slow),
        "gemma3",
        pytest.param("gemma3_scaled", marks=pytest.mark.slow),
    ],
)
def test_logits_of_a_gguf_file_are_those_of_transformers(shape, tmp_path):
    torch = pytest.importorskip("torch")
    more = GEMMA3 if shape.startswith("gemma") else {}
    theirs = families.make(shape, tmp_path / "folder", **more)
    config, params = load(tmp_path / "folder")
    there, again = load(write_gguf(tmp_path / "folder", tmp_path / "model.gguf"))
    assert there == config
    # A Gemma's scale of a norm has lost digits in the sum with 1.
    tolerance = 1e-6 if more else 0
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance), again, params
    )
    tokens = np.random.default_rng(0).integers(0, families.VOCAB, (2, 40))
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens)).logits.numpy()
    assert expected.std() > 0.1  # or the comparison would say nothing
    found = np.asarray(all_logits(there, again, tokens))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_what_a_gemma_3_file_does_not_say_is_as_in_llama_cpp(tmp_path):
    families.make("gemma3", tmp_path / "folder", **GEMMA3)

    def config(**change):
        path = tmp_path / f"{'-'.join(change)}.gguf"
        change = {f"gemma3.{key}": value for key, value in change.items()}
        write_changed(tmp_path / "folder", path, change)
        return checkpoint.planned_config(ModelConfig(str(path)))

    old = config(**{"rope.freq_base_swa": None})
    assert (old.local_rope, old.rope) == (Rope(10_000.0), Rope(1e6))
    assert (old.window, old.local) == (7, (True,) * 5 + (False, True))
    assert old.query_scale == 16**-0.5 and old.final_softcap is None
    assert config(**{"attention.sliding_window": None}).local == ()
    # The 27B is known by its 62 layers: its scores are divided by the root of D / N.
    assert config(block_count=62).query_scale == 8**-0.5


def test_the_pattern_of_windows_is_a_period_or_a_list(tmp_path):
    families.make("gemma3", tmp_path / "folder", **GEMMA3)
    written = gguf.GGUFWriter.add_sliding_window

    def config(pattern):
        def add(writer, window):
            written(writer, window)
            writer.add_array("gemma3.attention.sliding_window_pattern", pattern)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gguf.GGUFWriter, "add_sliding_window", add)
            path = write_gguf(tmp_path / "folder", tmp_path / f"{len(pattern)}.gguf")
        return checkpoint.planned_config(ModelConfig(str(path)))

    local = [True, False, True, True, False, True, True]
    assert config(local).local == tuple(local)
    with pytest.raises(UserError, match="neither a period nor a list of 7 layers"):
        config(local[:3])


def test_a_window_of_another_family_is_refused(tmp_path):
    folder = tiny.write_checkpoint(tmp_path / "folder")
    written = gguf.GGUFWriter.add_head_count

    def add(writer, count):
        written(writer, count)
        writer.add_sliding_window(64)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf.GGUFWriter, "add_head_count", add)
        path = write_gguf(folder, tmp_path / "a.gguf")
    with pytest.raises(UserError, match="sliding window is not supported in GGUF of this family"):
        load(path)
