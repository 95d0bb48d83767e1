"""Our decoder against transformers', live where torch is there, against kept values elsewhere."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.config import GenerationConfig, LoraConfig, ModelConfig
from bridge_jax.errors import UserError
from bridge_jax.generation.engine import Engine, Request
from bridge_jax.models import decoder, projection
from bridge_jax.models.hub import checkpoint, export, gguf_file
from bridge_jax.selection.scores import score
from bridge_jax.text import tokenizer
from bridge_jax.text.prompts import TrainingSequence

GOLDEN = Path(__file__).parent.parent / "golden" / "smollm2.json"
README = Path(__file__).parents[2] / "README.md"


USUAL = {"xla_backend_optimization_level": "3"}  # As a run has it (see `tests.xla`).
# XLA multiplies matrices on CPU with YNNPACK, which adds up each product in one chain: in f32 its
# logits, up to 45, are up to 1.6e-4 from f64. With Eigen (5% slower) they are within 1.0e-4,
# torch's within 0.7e-4, and those of `exactly_summed_logits` within 0.4e-4.
EIGEN = {"xla_cpu_experimental_ynn_fusion_type": ""}
TEXTS = {
    "prose": "The invoice was due within thirty days of delivery; after that, interest ran at "
    "four per cent a year on the whole amount.",
    "code": "def f(x):\n    return x + 1\n" * 10,
    "long": "A pharmacist gives 12 mg every 6 hours, and the patient weighs 60 kg. " * 12,
}


def _all_logits(config, params, tokens):
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden = decoder.hidden_states(config, params, tokens, positions, jnp.ones_like(tokens))
    return decoder.output_head(config, params).logits(hidden)


all_logits = jax.jit(_all_logits, static_argnums=0)
usual_logits = jax.jit(_all_logits, static_argnums=0, compiler_options=USUAL)
eigen_logits = jax.jit(_all_logits, static_argnums=0, compiler_options=USUAL | EIGEN)


@jax.jit(static_argnums=0, compiler_options=USUAL | EIGEN)
def exactly_summed_logits(config, params, tokens):
    """Returns the logits in f32, each matrix product summed in f64: no order of sums is left."""
    einsum = jnp.einsum
    with pytest.MonkeyPatch.context() as patch:

        def in_f64(equation, *operands, **_):
            exact = einsum(equation, *(x.astype(jnp.float64) for x in operands))
            return exact.astype(jnp.float32)

        patch.setattr(jnp, "einsum", in_f64)
        return _all_logits(config, params, tokens)


def greedy(config, params, prompts, count, mesh, end_ids=(-1,)):
    settings = GenerationConfig(max_new_tokens=count, batch_size=len(prompts))
    engine = Engine(config, params, end_ids, 0, settings, mesh)
    return [done.ids for done in engine.complete_all(prompts)]


def padded(ids):
    """Returns i32[1, S], filled up to a multiple of 128: few lengths are few programs."""
    tokens = np.zeros((1, -(-len(ids) // 128) * 128), np.int32)
    tokens[0, : len(ids)] = ids
    return tokens


def usual(smollm2, ids):
    """Returns the logits f32[S, V] of the tokens as a run computes them."""
    return np.asarray(usual_logits(*smollm2, padded(ids)))[0, : len(ids)]


def assert_same_logits(config, params, ids, theirs):
    """All are f32, and both sides round as their CPU has them do; the first as a run computes."""
    for compute, rms in ((usual_logits, 3e-5), (eigen_logits, 2e-5)):
        ours = np.asarray(compute(config, params, padded(ids)))[0, : len(ids)]
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-4)
        assert np.sqrt(np.mean((ours - theirs) ** 2)) < rms


@pytest.fixture(scope="module")
def smollm2():
    try:
        gguf_file.bundled_smollm2()
    except UserError as error:
        pytest.skip(str(error))
    return checkpoint.load(ModelConfig("smollm2-135m"))


def test_smollm2_has_the_kept_logits(smollm2):
    golden = json.loads(GOLDEN.read_text())
    logits = usual(smollm2, golden["tokens"])
    for row in golden["rows"]:
        ours = logits[row["position"]]
        top = np.argsort(-ours)[: len(row["ids"])]
        np.testing.assert_array_equal(top, row["ids"])
        np.testing.assert_allclose(ours[top], row["values"], rtol=0, atol=1e-3)
        np.testing.assert_allclose(ours.mean(), row["mean"], rtol=0, atol=1e-3)


@pytest.mark.slow
def test_smollm2_writes_the_kept_tokens(smollm2, one_device):
    golden = json.loads(GOLDEN.read_text())
    prompt = tokenizer.load(gguf_file.bundled_smollm2()).render_chat(golden["messages"])
    assert prompt == golden["tokens"]
    # Greedy decoding of transformers, made with the same weights by tests/golden/make.py.
    written = golden["greedy"]
    assert len(written) == 64
    after = usual(smollm2, prompt + written)[len(prompt) - 1 : -1]
    assert after.argmax(-1).tolist() == written
    settings = GenerationConfig(max_new_tokens=16, batch_size=2)
    engine = Engine(*smollm2, (-1,), 0, settings, one_device)
    requests = [Request(prompt), Request(prompt, temperature=1.0)]
    done = engine.complete_all(requests)
    assert done[0].ids == written[:16] != done[1].ids
    for completion in done:
        ids = completion.ids
        logprobs = jax.nn.log_softmax(usual(smollm2, prompt + ids)[len(prompt) - 1 : -1])
        expected = np.asarray(logprobs)[np.arange(16), ids]
        np.testing.assert_allclose(completion.logprobs, expected, rtol=0, atol=1e-4)
        scored = score(*smollm2, [TrainingSequence(prompt, [], ids)], 512, 0, one_device)
        np.testing.assert_allclose(scored.nll, [-expected.mean()], rtol=0, atol=1e-4)


def test_smollm2_has_the_kept_perplexity(smollm2):
    golden = json.loads(GOLDEN.read_text())
    ids = tokenizer.load(gguf_file.bundled_smollm2()).encode(golden["perplexity_text"])
    logprobs = jax.nn.log_softmax(usual(smollm2, ids)[:-1])
    nll = -np.take_along_axis(np.asarray(logprobs), np.asarray(ids)[1:, None], 1).mean()
    assert f"{np.exp(nll):.4g}" == f"{golden['perplexity']:.4g}"
    assert 5 < np.exp(nll) < 50


@pytest.mark.slow
def test_smollm2_keeps_its_perplexity_over_an_int8_base(smollm2, one_device):
    ids = tokenizer.load(gguf_file.bundled_smollm2()).encode(README.read_text())[:1536]
    config, params = smollm2
    rounded = dataclasses.replace(config, lora=LoraConfig(rank=1, base="int8"))
    adapter, kept = projection.split(decoder.abstract(rounded, one_device))
    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), adapter)
    over_int8 = rounded, projection.combine(projection.quantized_base(params, kept), nothing)

    def nll(model):
        total = 0.0
        for row in np.reshape(ids, (-1, 512)):
            logprobs = jax.nn.log_softmax(usual(model, row)[:-1])
            total -= float(np.take_along_axis(np.asarray(logprobs), row[1:, None], 1).mean())
        return total / (len(ids) // 512)

    assert 0 < abs(np.exp(nll(over_int8) - nll(smollm2)) - 1) < 0.01


@pytest.fixture(scope="module")
def exported(smollm2, tmp_path_factory):
    """SmolLM2 as a folder, and as transformers reads it from there.

    That the weights are those of the GGUF file is held by the kept logits, which transformers
    computed from the file itself.
    """
    pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("smollm2") / "out"
    with export.folder(folder) as out:
        export.write_model(out, *smollm2, checkpoint.cut_hf_config(ModelConfig("smollm2-135m")))
        tokenizer.load(gguf_file.bundled_smollm2()).save(out)
    return folder, AutoModelForCausalLM.from_pretrained(folder)


def logits_of(theirs, ids):
    import torch

    with torch.no_grad():
        return theirs(torch.tensor([ids])).logits[0].numpy()


@pytest.mark.slow
def test_smollm2_goes_out_and_loads_in_transformers(smollm2, exported):
    from transformers import AutoTokenizer

    golden, (folder, theirs) = json.loads(GOLDEN.read_text()), exported
    assert_same_logits(*smollm2, golden["tokens"], logits_of(theirs, golden["tokens"]))
    chat = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        golden["messages"], add_generation_prompt=True, return_dict=False
    )
    assert chat == golden["tokens"]
    # And back in again, without a change of a bit.
    _, again = checkpoint.load(ModelConfig(str(folder)))
    jax.tree.map(np.testing.assert_array_equal, again, smollm2[1])


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_smollm2_has_transformers_logits(smollm2, exported, text):
    ids = tokenizer.load(gguf_file.bundled_smollm2()).encode(text)
    expected = logits_of(exported[1], ids)
    assert_same_logits(*smollm2, ids, expected)
    with jax.enable_x64(True):
        ours = np.asarray(exactly_summed_logits(*smollm2, padded(ids)))[0, : len(ids)]
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)
