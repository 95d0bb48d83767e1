"""Every family against transformers: logits, greedy tokens, and the way back."""

import copy
import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.config import ModelConfig
from bridge_jax.models import decoder
from bridge_jax.models.hub import checkpoint, export
from bridge_jax.models.hub.hf_config import from_hf
from tests.models.hub import families
from tests.models.test_model_parity import all_logits, greedy

torch = pytest.importorskip("torch")

TOKENS = np.random.default_rng(0).integers(0, families.VOCAB, (2, 40))


def logits_of(theirs, tokens=TOKENS):
    with torch.no_grad():
        return theirs(torch.tensor(tokens)).logits.float().numpy()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Returns what gives (the folder, transformers' model) of a shape in a dtype. Read only."""

    @functools.cache
    def of(shape, dtype="float32"):
        folder = tmp_path_factory.mktemp(shape)
        return folder, families.make(shape, folder, dtype)

    return of


# A shape for each way to attend from a cache: these write the tokens with the engine too.
WRITING = ("llama", "mistral_window", "qwen2_window", "qwen3", "gemma2", "gemma3")


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(shape, marks=() if shape == "llama" else pytest.mark.slow)
        for shape in families.SHAPES
    ],
)
def test_f32_logits_and_greedy_tokens_are_those_of_transformers(shape, made, one_device):
    folder, theirs = made(shape)
    config, params = checkpoint.load(ModelConfig(str(folder)))
    assert decoder.count_parameters(config) == theirs.num_parameters()
    prompt = torch.tensor(TOKENS[:1, :9])
    with torch.no_grad():
        written = theirs.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=64,
            do_sample=False, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
    drawn = np.random.default_rng(1).integers(0, families.VOCAB, written.shape)
    tokens = np.concatenate([drawn, written])
    expected = logits_of(theirs, tokens)
    assert expected.std() > 0.1  # or the comparison would say nothing
    found = np.asarray(all_logits(config, params, tokens))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(found[1, 8:-1].argmax(-1), written[0, 9:])
    if shape in WRITING:
        tokens = greedy(config, params, [prompt[0].tolist()], 64, one_device)
        assert tokens == [written[0, 9:].tolist()]


# That a shape is understood is held in f32; here each operation is rounded once.
@pytest.mark.parametrize("shape", (*WRITING, "llama3_rope"))
@pytest.mark.slow
def test_bf16_logits_are_those_of_transformers(shape, made):
    folder, theirs = made(shape, "bfloat16")
    config, params = checkpoint.load(ModelConfig(str(folder)), dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    expected = logits_of(theirs)
    ours = all_logits(dataclasses.replace(config, dtype=jnp.bfloat16), params, TOKENS)
    truth = logits_of(copy.deepcopy(theirs).float())
    # Units in the last place of bf16 at the largest logit. Rounding differs between any two
    # orders of summation, so it is the typical error that is compared, with f32 as the judge.
    ulp = 2.0**-8 * np.abs(truth).max()
    assert rms(ours - expected) < 2 * ulp
    assert rms(ours - truth) < 1.2 * rms(expected - truth)


def rms(a):
    return float(np.sqrt(np.mean(np.square(a))))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", families.SHAPES)
def test_export_gives_every_tensor_back(shape, dtype, made, tmp_path, monkeypatch):
    from safetensors import safe_open

    folder, theirs = made(shape, dtype)
    model = ModelConfig(str(folder))
    config, params = checkpoint.load(model)
    monkeypatch.setattr(export, "SHARD_BYTES", 20_000)
    with export.folder(tmp_path / "out") as out:
        export.write_model(out, config, params, checkpoint.cut_hf_config(model))

    def tensors(folder):
        found = {}
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, "pt") as handle:
                found |= {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        return found

    before, after = tensors(folder), tensors(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype == getattr(torch, dtype)
        assert torch.equal(tensor, after[name]), name
    # transformers 4 reads some of these keys, transformers 5 the others.
    written = json.loads((tmp_path / "out/config.json").read_text())
    old = {"rope_theta", "rope_scaling", "rope_local_base_freq"}
    for unread in (old, {"rope_parameters"}):
        kept = {key: value for key, value in written.items() if key not in unread}
        assert dataclasses.replace(from_hf(kept), param_dtype=config.param_dtype) == config
    again = families.load(tmp_path / "out")
    assert again.dtype == getattr(torch, dtype)
    np.testing.assert_array_equal(logits_of(again), logits_of(theirs))


def test_what_a_gemma_2_does_not_say_is_what_its_class_says(tmp_path):
    families.make("gemma2", tmp_path / "in")
    file = tmp_path / "in/config.json"
    hf = json.loads(file.read_text())
    for key in ("attn_logit_softcapping", "final_logit_softcapping", "layer_types"):
        del hf[key]
    file.write_text(json.dumps(hf | {"torch_dtype": "torch.bfloat16", "dtype": None}))
    model = ModelConfig(str(tmp_path / "in"))
    config, params = checkpoint.load(model)
    assert (config.attention_softcap, config.final_softcap) == (50.0, 30.0)
    with export.folder(tmp_path / "out") as out:
        export.write_model(out, config, params, checkpoint.cut_hf_config(model))
    theirs = families.load(tmp_path / "out")
    assert theirs.dtype == torch.bfloat16
    file.write_text(json.dumps(hf | {"dtype": "float32"}))
    expected = logits_of(families.load(tmp_path / "in"))
    ours = np.asarray(all_logits(config, params, TOKENS))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)
    uncapped = dataclasses.replace(config, attention_softcap=None, final_softcap=None)
    assert np.abs(np.asarray(all_logits(uncapped, params, TOKENS)) - expected).max() > 1e-3


@pytest.mark.parametrize("shape", ["llama", "qwen2_window", "gemma2", "gemma3"])
def test_a_cut_model_is_the_same_model_in_transformers(shape, made, tmp_path):
    last = families.SHAPES[shape][1].get("num_hidden_layers", 3) - 1
    model = ModelConfig(str(made(shape)[0]), keep_layers=(0, last, 1))
    config, params = checkpoint.load(model)
    with export.folder(tmp_path / "out") as out:
        export.write_model(out, config, params, checkpoint.cut_hf_config(model))
    theirs = families.load(tmp_path / "out")
    ours = all_logits(config, params, TOKENS)
    np.testing.assert_allclose(ours, logits_of(theirs), rtol=0, atol=1e-4)
