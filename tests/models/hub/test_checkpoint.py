import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.flax import save_file as save_jax
from safetensors.numpy import load_file, save_file

from bridge_jax.config import ModelConfig
from bridge_jax.errors import UserError
from bridge_jax.models.hub import checkpoint as checkpoints
from bridge_jax.models.hub import files, gguf_file
from tests import tiny


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(checkpoint, tmp_path / "copy")


def load(folder, *keep):
    return checkpoints.load(ModelConfig(str(folder), keep_layers=keep))


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_tensors_land_where_they_belong(checkpoint):
    theirs = load_file(checkpoint / "model.safetensors")
    _, params = load(checkpoint)
    np.testing.assert_array_equal(params["embedding"], theirs["model.embed_tokens.weight"])
    # Head 2 of the queries of layer 1: rows 16 to 23 of (N H) x D.
    np.testing.assert_array_equal(
        params["layers"]["attention"]["query"]["kernel"][1][:, 2],
        theirs["model.layers.1.self_attn.q_proj.weight"][16:24].T,
    )
    np.testing.assert_array_equal(
        params["layers"]["attention"]["out"]["kernel"][0][3],
        theirs["model.layers.0.self_attn.o_proj.weight"][:, 24:32].T,
    )
    np.testing.assert_array_equal(
        params["layers"]["mlp"]["down"]["kernel"][2],
        theirs["model.layers.2.mlp.down_proj.weight"].T,
    )


def test_keep_layers_keeps_exactly_these_in_this_order(checkpoint):
    _, whole = load(checkpoint)
    config, params = load(checkpoint, 2, 0)
    assert config.num_layers == 2
    assert checkpoints.read_config(ModelConfig(str(checkpoint), keep_layers=(2, 0))) == config
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_array_equal(ours, np.asarray(theirs)[[2, 0]]),
        params["layers"],
        whole["layers"],
    )
    np.testing.assert_array_equal(params["embedding"], whole["embedding"])


def test_layer_that_is_not_there(checkpoint):
    with pytest.raises(UserError, match=r"keep_layers=\[3\].*layers 0 to 2"):
        load(checkpoint, 0, 3)


def test_missing_tensors_are_all_named(folder):
    lost = ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"]
    rewrite(folder, lambda tensors: [tensors.pop(name) for name in lost])
    with pytest.raises(UserError, match="missing") as caught:
        load(folder)
    assert all(name in str(caught.value) for name in lost)


def test_extra_tensors_are_all_named(folder):
    # A bias that were ignored would change every number without a word.
    extra = "model.layers.0.self_attn.q_proj.bias"
    rewrite(folder, lambda tensors: tensors.update({extra: np.zeros(32, np.float32)}))
    with pytest.raises(UserError, match=extra):
        load(folder)


def test_extra_tensors_that_say_nothing_new_are_fine(folder):
    def change(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]  # tied
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)

    rewrite(folder, change)
    _, params = load(folder)
    assert "head" not in params


def test_tensor_of_another_shape(folder):
    name = "model.layers.1.mlp.up_proj.weight"
    rewrite(folder, lambda tensors: tensors.update({name: tensors[name][:-1].copy()}))
    with pytest.raises(UserError, match=name):
        load(folder)


def test_truncated_safetensors(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors: truncated"):
        load(folder)


def test_bf16_is_read_as_f32(folder):
    tensors = load_file(folder / "model.safetensors")
    narrow = {name: jnp.asarray(value, jnp.bfloat16) for name, value in tensors.items()}
    save_jax(narrow, folder / "model.safetensors")
    _, params = load(folder)
    assert params["embedding"].dtype == np.float32
    np.testing.assert_array_equal(
        params["embedding"], np.asarray(narrow["model.embed_tokens.weight"], np.float32)
    )


def test_tensors_in_several_files(folder):
    tensors = load_file(folder / "model.safetensors")
    _, whole = load(folder)
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    save_file({n: tensors[n] for n in names[::2]}, folder / "model-00001-of-00002.safetensors")
    save_file({n: tensors[n] for n in names[1::2]}, folder / "model-00002-of-00002.safetensors")
    _, params = load(folder)
    np.testing.assert_array_equal(
        params["layers"]["mlp"]["gate"]["kernel"], whole["layers"]["mlp"]["gate"]["kernel"]
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_type": "gpt2"}, "model_type='gpt2' is not supported"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 8.0}}, "rope_type='yarn'"),
        ({"attention_bias": True}, "llama with attention_bias is not supported"),
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
    ],
)
def test_unsupported_config(folder, change, message):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=message):
        load(folder)


def test_missing_files(tmp_path, checkpoint):
    with pytest.raises(UserError, match="no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no config\.json"):
        load(tmp_path)
    shutil.copy(checkpoint / "config.json", tmp_path)
    with pytest.raises(UserError, match=r"no \*\.safetensors"):
        load(tmp_path)


@pytest.mark.parametrize("size", [2, 100, 100_000, 3_000_000, 50_000_000])
def test_truncated_gguf(size, tmp_path):
    try:
        whole = gguf_file.bundled_smollm2()
    except UserError as error:
        pytest.skip(str(error))
    cut = tmp_path / "cut.gguf"
    with whole.open("rb") as file:
        cut.write_bytes(file.read(size))
    with pytest.raises(UserError, match=r"cut\.gguf: not a valid GGUF file"):
        load(cut)


def test_other_seeds_are_other_weights(tmp_path):
    config = {
        "hidden_size": 8, "intermediate_size": 8, "vocab_size": 16, "num_attention_heads": 1,
        "num_key_value_heads": 1, "head_dim": 8, "num_hidden_layers": 1,
        "tie_word_embeddings": True,
    }  # fmt: skip
    first, second = tiny.tensors(config, 0), tiny.tensors(config, 1)
    assert not np.array_equal(first["model.norm.weight"], second["model.norm.weight"])


def test_a_workdir_is_no_model(tmp_path):
    (tmp_path / "config.json").write_text('{"assistant": {}, "student": {}}')
    with pytest.raises(UserError, match=r"is the workdir of a run, not a model; .*launch\.export"):
        files.open_source(tmp_path)
