"""Dense layers: products in bf16, and adapters (LoRA)."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.config import LoraConfig, MeshConfig, ModelConfig, TrainConfig
from bridge_jax.models import decoder, projection
from bridge_jax.models.config import DecoderConfig, computing_on
from bridge_jax.models.head import Head, logprobs_at
from bridge_jax.models.hub import checkpoint, export
from bridge_jax.models.projection import matmul, project
from bridge_jax.parallel.sharding import make_mesh, shard_batch
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import TrainingSequence
from bridge_jax.training.objectives.sft import SFT
from bridge_jax.training.step import init_state, loss_and_gradients, make_optimizer, make_train_step
from tests.jaxprs import sizes
from tests.models.hub import families
from tests.models.test_model_parity import all_logits

LORA = LoraConfig(rank=4, alpha=8.0, targets=("attention/*", "mlp/down"))
ADAPTED = {("attention", name) for name in ("query", "key", "value", "out")} | {("mlp", "down")}
TOKENS = np.random.default_rng(0).integers(3, 120, (2, 20))
ROWS = pack([TrainingSequence([5, 6, 7, 8], [9, 10, 11], [12, 13])] * 4, 12, 0)


@pytest.fixture(scope="module")
def checkpoint_model(request):
    return ModelConfig(str(request.getfixturevalue("checkpoint")))


def adapted(model, mesh, lora_config=LORA, trained=True, key=0):
    """Returns (config, params) with an adapter; `trained` makes B differ from zero."""
    config, params = model
    config = dataclasses.replace(config, lora=lora_config)
    adapter = decoder.init_adapter(config, mesh, jax.random.key(key))
    if trained:
        adapter = jax.tree.map(
            lambda a: a + 0.05 * jnp.cos(jnp.arange(a.size)).reshape(a.shape), adapter
        )
    return config, projection.combine(params, adapter)


def test_a_fresh_adapter_is_on_the_chosen_projections_and_changes_nothing(tiny_model, one_device):
    config, params = adapted(tiny_model, one_device, trained=False)
    adapter, base = projection.split(params)
    found = {
        (part, name)
        for part, projections in adapter["layers"].items()
        for name, matrices in projections.items()
        if set(matrices) == {"lora_a", "lora_b"}
    }
    assert found == ADAPTED
    query = adapter["layers"]["attention"]["query"]
    assert query["lora_a"].shape == (3, 32, 4) and query["lora_b"].shape == (3, 4, 4, 8)
    # PEFT draws A uniformly within 1 / sqrt(inputs).
    assert 0.9 / math.sqrt(32) < np.abs(query["lora_a"]).max() <= 1 / math.sqrt(32)
    assert not np.any(query["lora_b"])
    assert jax.tree.structure(base) == jax.tree.structure(tiny_model[1])
    np.testing.assert_array_equal(
        all_logits(config, params, TOKENS), all_logits(*tiny_model, TOKENS)
    )


@pytest.mark.parametrize("rslora", [False, True])
def test_merged_logits_are_the_adapters(rslora, checkpoint_model, tmp_path, one_device):
    model = checkpoint.load(checkpoint_model)
    config, params = adapted(model, one_device, dataclasses.replace(LORA, rslora=rslora))
    with export.folder(tmp_path / "out") as out:
        export.write_model(out, config, params, checkpoint.cut_hf_config(checkpoint_model))
    plain, merged = checkpoint.load(ModelConfig(str(tmp_path / "out")))
    ours, base = all_logits(config, params, TOKENS), all_logits(*model, TOKENS)
    np.testing.assert_allclose(all_logits(plain, merged, TOKENS), ours, rtol=0, atol=1e-4)
    assert np.abs(ours - base).max() > 0.1
    # By hand for one projection: kernel + alpha / r (or sqrt r) * A B.
    down = jax.tree.map(np.asarray, params["layers"]["mlp"]["down"])
    scale = 8.0 / (2.0 if rslora else 4.0)
    expected = down["kernel"][1] + scale * down["lora_a"][1] @ down["lora_b"][1]
    np.testing.assert_allclose(merged["layers"]["mlp"]["down"]["kernel"][1], expected, atol=1e-5)


def test_a_bf16_kernel_is_rounded_once():
    kernel = jnp.full((2, 3), 1.0, jnp.bfloat16)
    a, b = jnp.full((2, 1), 2.0**-9), jnp.ones((1, 3))
    chosen = LoraConfig(rank=1, alpha=1.0)
    # Half a unit in the last place: to even. A little more, and it is the next number.
    assert np.all(np.asarray(projection.merge(chosen, kernel, a * 2, b), np.float32) == 1.0)
    assert np.all(
        np.asarray(projection.merge(chosen, kernel, a * 2.1, b), np.float32) == 1 + 2.0**-7
    )


def train(config, params, mesh, steps=3, seed=0):
    optimizer = make_optimizer(TrainConfig())
    adapter, base = projection.split(params)
    adapter = jax.tree.map(jnp.array, adapter)  # the step consumes it
    state = init_state(optimizer, adapter, mesh)
    shardings = jax.tree.map(lambda a: a.sharding, state)
    step = make_train_step(SFT(), config, optimizer, shardings=shardings, seed=seed)
    losses = []
    for _ in range(steps):
        state, metrics = step(state, base, ROWS, 1e-2)
        losses.append(float(metrics["loss"]))
    assert step._cache_size() == 1
    return state, losses


def test_only_the_adapter_is_trained_and_in_the_optimizer(tiny_model, one_device):
    config, params = adapted(tiny_model, one_device, trained=False)
    adapter, base = projection.split(params)
    state, losses = train(config, params, one_device)
    assert losses[-1] < losses[0]
    assert jax.tree.structure(state.params) == jax.tree.structure(adapter)
    numbers = sum(a.size for a in jax.tree.leaves(state.opt_state))
    assert numbers < 2.1 * sum(a.size for a in jax.tree.leaves(adapter)) + 10
    for before, after in zip(jax.tree.leaves(adapter), jax.tree.leaves(state.params)):
        assert np.any(np.asarray(before) != np.asarray(after))
    assert sum(a.size for a in jax.tree.leaves(base)) == decoder.count_parameters(tiny_model[0])


@pytest.mark.slow
def test_dropout_is_drawn_from_the_seed(tiny_model, one_device):
    config, params = adapted(tiny_model, one_device, dataclasses.replace(LORA, dropout=0.5))
    first, again, other = (train(config, params, one_device, seed=s)[1] for s in (0, 0, 1))
    assert first == again and first != other
    # Without a key, as in generation and scoring, nothing is dropped.
    undropped = dataclasses.replace(config, lora=LORA)
    np.testing.assert_array_equal(
        all_logits(config, params, TOKENS), all_logits(undropped, params, TOKENS)
    )


@pytest.mark.slow
def test_gradients_of_micro_batches_are_those_of_the_batch(tiny_model, one_device):
    config, params = adapted(tiny_model, one_device)
    adapter, base = projection.split(params)
    whole, parts = (
        jax.jit(loss_and_gradients, static_argnums=(0, 1, 4))(SFT(), config, adapter, ROWS, n, base)
        for n in (1, 2)
    )
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_eight_devices_train_the_same_adapter(one_device):
    config = DecoderConfig(64, 32, 2, 4, 2, 8, 64, lora=LORA)
    results = []
    for mesh in (one_device, make_mesh(MeshConfig(2, 2, 2))):
        base = projection.split(placed(config, mesh))[1]
        params = projection.combine(base, decoder.init_adapter(config, mesh, jax.random.key(1)))
        adapter = projection.split(params)[0]
        assert all(leaf.sharding.mesh == mesh for leaf in jax.tree.leaves(adapter))
        _, gradients = jax.jit(loss_and_gradients, static_argnums=(0, 1, 4))(
            SFT(), config, adapter, shard_batch(ROWS_OF_8, mesh), 1, base
        )
        results.append(jax.tree.map(np.asarray, gradients))
    for a, b in zip(*map(jax.tree.leaves, results)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


ROWS_OF_8 = pack([TrainingSequence([i, 6, 7, 8], [9, 10, 11], [12, 13]) for i in range(8)], 9, 0)


def placed(config, mesh):
    whole = jax.jit(lambda: nn.unbox(decoder.init(config, jax.random.key(0))))()
    shardings = jax.tree.map(lambda a: a.sharding, decoder.abstract(config, mesh))
    return jax.device_put(whole, shardings)


@pytest.mark.parametrize(
    ("shape", "rslora"),
    [
        ("llama", True),
        pytest.param("llama", False, marks=pytest.mark.slow),
        pytest.param("qwen2", True, marks=pytest.mark.slow),
        pytest.param("gemma3", False, marks=pytest.mark.slow),
    ],
)
def test_peft_loads_the_adapter_with_equal_logits(shape, rslora, tmp_path, one_device):
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    theirs = families.make(shape, tmp_path / "base")
    model = ModelConfig(str(tmp_path / "base"))
    chosen = dataclasses.replace(LORA, targets=("*",), rslora=rslora)
    config, params = adapted(checkpoint.load(model), one_device, chosen)
    with export.folder(tmp_path / "adapter") as out:
        hf = checkpoint.cut_hf_config(model)
        export.write_adapter(out, config, params, hf, model.checkpoint)
    loaded = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    with torch.no_grad():
        expected = loaded(torch.tensor(TOKENS)).logits.numpy()
    np.testing.assert_allclose(all_logits(config, params, TOKENS), expected, rtol=0, atol=1e-4)


INT8 = dataclasses.replace(LORA, base="int8")


def rounded(model, mesh):
    """Returns (config, params) of a model with an int8 base and the adapter of `adapted`."""
    config, params = adapted(model, mesh)
    config = dataclasses.replace(config, lora=INT8)
    adapter, kept = projection.split(decoder.abstract(config, mesh))
    own, base = projection.split(params)
    assert jax.tree.structure(own) == jax.tree.structure(adapter)
    return config, projection.combine(projection.quantized_base(base, kept), own)


def test_an_int8_base_is_rounded_for_each_output(tiny_model, one_device):
    config, params = rounded(tiny_model, one_device)
    expected = decoder.abstract(config, one_device)
    jax.tree.map(lambda a, b: np.testing.assert_equal((a.shape, a.dtype), (b.shape, b.dtype)),
                 params, expected)  # fmt: skip
    kernel = np.asarray(tiny_model[1]["layers"]["attention"]["out"]["kernel"])  # L N H D
    scale = np.abs(kernel).max((1, 2)) / 127
    kept = params["layers"]["attention"]["out"]
    np.testing.assert_allclose(kept[projection.SCALE], scale, rtol=1e-6)
    error = np.abs(np.asarray(kept["kernel"], np.float32) * scale[:, None, None] - kernel)
    assert kept["kernel"].dtype == np.int8 and np.all(error <= scale[:, None, None] * 0.501)
    plain = adapted(tiny_model, one_device)
    ours, exact = all_logits(config, params, TOKENS), all_logits(*plain, TOKENS)
    change = np.abs(ours - exact).max()
    assert 0 < change < 0.05 * np.abs(exact - all_logits(*tiny_model, TOKENS)).max()


def test_an_int8_base_is_merged_as_it_computes(checkpoint_model, tmp_path, one_device):
    config, params = rounded(checkpoint.load(checkpoint_model), one_device)
    ours = all_logits(config, params, TOKENS)
    plain = dataclasses.replace(config, lora=None)
    merged = projection.merged(INT8, params)
    np.testing.assert_allclose(all_logits(plain, merged, TOKENS), ours, rtol=0, atol=1e-4)
    with export.folder(tmp_path / "out") as out:
        export.write_model(out, config, params, checkpoint.cut_hf_config(checkpoint_model))
    written = checkpoint.load(ModelConfig(str(tmp_path / "out")))
    np.testing.assert_allclose(all_logits(*written, TOKENS), ours, rtol=0, atol=1e-4)


def test_an_adapter_is_trained_over_an_int8_base(tiny_model, one_device):
    config, params = rounded(tiny_model, one_device)
    losses = train(config, params, one_device)[1]
    expected = train(*adapted(tiny_model, one_device), one_device)[1]
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(losses, expected, rtol=0.02)


RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 8)).astype(np.float32)
W = RNG.standard_normal((8, 2, 4)).astype(np.float32)


def in_bf16(a):
    """Returns f32 numbers that bf16 has."""
    return np.asarray(jnp.asarray(a).astype(jnp.bfloat16).astype(jnp.float32))


def test_only_what_is_multiplied_is_rounded():
    found = matmul("BSX,XNH->BSNH", jnp.asarray(X), jnp.asarray(W), jnp.bfloat16)
    wanted = np.einsum("BSX,XNH->BSNH", in_bf16(X), in_bf16(W))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
    assert np.abs(found - np.einsum("BSX,XNH->BSNH", X, W)).max() > 1e-3


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_gradients_of_a_projection(dtype):
    y = RNG.standard_normal((2, 3, 2, 4)).astype(np.float32)
    found, back = jax.vjp(lambda x, w: project(x, w, dtype), jnp.asarray(X), jnp.asarray(W))
    by_x, by_w = back(jnp.asarray(y))
    to = in_bf16 if dtype == jnp.bfloat16 else np.asarray
    x, w, y = to(X), to(W), to(y)
    near = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(found, np.einsum("BSX,XNH->BSNH", x, w), **near)
    np.testing.assert_allclose(by_x, np.einsum("BSNH,XNH->BSX", y, w), **near)
    np.testing.assert_allclose(by_w, np.einsum("BSX,BSNH->XNH", x, y), **near)
    assert by_w.dtype == by_x.dtype == jnp.float32


def test_a_head_rounds_what_it_multiplies():
    hidden, table = jnp.asarray(X.reshape(6, 8)), jnp.asarray(W.reshape(8, 8))
    ids = jnp.arange(6)[:, None] % 8
    found = logprobs_at(hidden, Head(table, dtype=jnp.bfloat16), ids)
    logits = in_bf16(hidden) @ in_bf16(table).T
    wanted = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), np.asarray(ids), axis=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_all_products_of_a_training_step_but_attentions_are_of_bf16(tiny_model, remat):
    config, params = tiny_model
    config = dataclasses.replace(config, matmul=jnp.bfloat16, remat=remat)

    def step(params):
        return loss_and_gradients(SFT(), config, params, ROWS)[1]

    products = [
        equation
        for _, equation in sizes(jax.make_jaxpr(step)(params).jaxpr)
        if equation.primitive.name == "dot_general"
    ]
    assert {equation.outvars[0].aval.dtype for equation in products} == {jnp.dtype("float32")}
    # Attention's, which have batch axes, stay in f32; projections and the head have none.
    wide = [e for e in products if e.invars[0].aval.dtype == jnp.float32]
    assert wide and all(e.params["dimension_numbers"][1][0] for e in wide)
    assert len(products) - len(wide) >= 3 * (7 + 1)
    gradients = step(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}
    kernel = np.asarray(gradients["layers"]["mlp"]["up"]["kernel"])
    assert np.any(kernel != in_bf16(kernel))

    plain = loss_and_gradients(SFT(), dataclasses.replace(config, matmul=None), params, ROWS)[1]
    wanted = np.asarray(plain["layers"]["mlp"]["up"]["kernel"])
    error = np.linalg.norm(kernel - wanted) / np.linalg.norm(wanted)
    assert 1e-5 < error < 2e-2


def test_what_a_run_computes_in(checkpoint):
    plain, narrow = ModelConfig(str(checkpoint)), ModelConfig(str(checkpoint), matmul="bfloat16")
    mesh = make_mesh(devices=jax.devices()[:1])
    model = RoleModel(plain, mesh, 0).load()
    assert (model.config.dtype, model.config.matmul_dtype) == (jnp.float32, jnp.float32)

    role = RoleModel(narrow, mesh, 0)
    model = role.load()
    assert (model.config.dtype, model.config.matmul_dtype) == (jnp.float32, jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype("bfloat16")}
    trained = role.trainable()
    assert {leaf.dtype for leaf in jax.tree.leaves(trained.params)} == {jnp.dtype("float32")}
    assert trained.config.matmul_dtype == jnp.bfloat16


def test_a_chip_computes_in_bf16():
    class Chip:
        platform = "tpu"

    config = computing_on(DecoderConfig(100, 48, 1, 12, 6, 4, 96), ModelConfig(), Chip())
    assert config.dtype == config.matmul_dtype == jnp.bfloat16
