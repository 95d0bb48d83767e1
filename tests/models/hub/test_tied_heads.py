"""The head is the embedding if the files say so, not only if config.json does."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bridge_jax.config import ModelConfig
from bridge_jax.errors import UserError
from bridge_jax.models.hub import checkpoint as checkpoints
from bridge_jax.models.hub import export, files
from tests.models.test_model_parity import all_logits

TOKENS = np.random.default_rng(0).integers(0, 512, (2, 20))
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A copy of the tiny tied Llama."""
    return shutil.copytree(checkpoint, tmp_path / "in")


def add_head(folder, change=lambda head: head):
    tensors = load_file(folder / "model.safetensors")
    tensors[HEAD] = np.ascontiguousarray(change(tensors[EMBEDDING].copy()))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def other(head):
    return head[::-1]


def last_row(head):
    head[-1, -1] += 1e-3
    return head


def say(folder, **changes):
    """Changes config.json; None takes a key out."""
    config = json.loads((folder / "config.json").read_text()) | changes
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


def load(folder):
    return checkpoints.load(ModelConfig(str(folder)))


@pytest.mark.parametrize("change", [other, last_row])
def test_another_head_than_the_embedding_is_used(folder, change, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_COMPARED_AT_ONCE", 32 * 100)  # 6 pieces, the last of 12
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    tied_config, tied = load(folder)
    add_head(folder, change)
    config, params = load(folder)
    assert tied_config.tied and not config.tied
    np.testing.assert_array_equal(params["head"], change(np.array(params["embedding"])))

    # Everyone who asks for the config is told the same.
    model = ModelConfig(str(folder))
    assert checkpoints.read_config(model) == config
    assert not checkpoints.planned_config(model).tied
    with export.folder(tmp_path / "out") as out:
        export.write_model(out, config, params, checkpoints.cut_hf_config(model))
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert written["tie_word_embeddings"] is False
    assert HEAD in load_file(tmp_path / "out/model.safetensors")

    ours = np.asarray(all_logits(config, params, TOKENS))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        expected = theirs(torch.tensor(TOKENS)).logits.numpy()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)
    difference = np.abs(ours - np.asarray(all_logits(tied_config, tied, TOKENS))).max()
    assert difference > (0.1 if change is other else 1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_copy_of_the_embedding_is_no_head(folder, dtype, monkeypatch):
    monkeypatch.setattr(files, "_COMPARED_AT_ONCE", 32 * 100)

    def round_both(tensors):
        tensors[EMBEDDING] = tensors[EMBEDDING].astype(np.float16).astype(np.float32)

    tensors = load_file(folder / "model.safetensors")
    round_both(tensors)
    tensors[EMBEDDING][3, 5] = np.nan  # which is equal to itself here
    save_file(tensors | {HEAD: tensors[EMBEDDING].astype(dtype)}, folder / "model.safetensors")
    config, params = load(folder)
    assert config.tied and "head" not in params


def test_the_head_is_compared_once(folder, monkeypatch):
    add_head(folder)
    read = []
    rows = files.StoredTensors.rows
    monkeypatch.setattr(
        files.StoredTensors, "rows", lambda *given: read.append(given[1]) or rows(*given)
    )
    for _ in range(3):
        load(folder)
        checkpoints.read_config(ModelConfig(str(folder)))
    assert read.count(HEAD) == 1  # and it is not loaded
    add_head(folder, other)  # Other files are compared anew.
    assert not checkpoints.read_config(ModelConfig(str(folder))).tied


def test_without_a_flag_the_class_and_then_the_files_decide(folder, tmp_path):
    say(folder, tie_word_embeddings=None)  # Of a Llama: not tied.
    with pytest.raises(UserError, match=r'lm_head.weight; .* "tie_word_embeddings": true in'):
        load(folder)
    add_head(folder)
    config, params = load(folder)
    assert not config.tied and "head" in params


@pytest.mark.parametrize("has_head", [True, False])
def test_a_gemma_is_tied_unless_its_files_have_another_head(has_head, tmp_path):
    pytest.importorskip("torch")
    from tests.models.hub import families

    theirs = families.make("gemma2", tmp_path)
    say(tmp_path, tie_word_embeddings=None)
    if has_head:
        head = theirs.get_input_embeddings().weight.detach().numpy()[::-1]
        name = "model-00099-of-00099.safetensors"
        save_file({HEAD: np.ascontiguousarray(head)}, tmp_path / name, metadata={"format": "pt"})
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        index["weight_map"][HEAD] = name
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load(tmp_path)[0].tied == (not has_head)


def test_said_to_be_separate_without_a_head_is_an_error(folder):
    say(folder, tie_word_embeddings=False)
    for read in (load, lambda path: checkpoints.read_config(ModelConfig(str(path)))):
        with pytest.raises(UserError, match="if the head of this model is tied to its embedding"):
            read(folder)


def test_a_head_of_another_shape(folder):
    add_head(folder, lambda head: head[:-1])
    with pytest.raises(UserError, match=r"lm_head.weight is \(511, 32\), expected \(512, 32\)"):
        load(folder)
