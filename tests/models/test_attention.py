"""One attention, several ways to compute it: the results agree."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu import splash_attention

from bridge_jax.config import MeshConfig
from bridge_jax.models import attention as module
from bridge_jax.models.attention import SlidingWindow, attention, supports_cudnn, supports_splash
from bridge_jax.models.config import best_kernel
from bridge_jax.parallel.sharding import make_mesh


@pytest.fixture
def interpreted(monkeypatch):
    """Lets the kernel for TPUs run here, its grid point by point."""
    make = functools.partial(splash_attention.make_splash_mha, interpret=True)
    monkeypatch.setattr(splash_attention, "make_splash_mha", make)


B, S, N, K, H = 4, 256, 4, 2, 32


def inputs(batch=B, steps=S):
    rng = np.random.default_rng(0)
    shapes = (batch, steps, N, H), (batch, steps, K, H), (batch, steps, K, H)
    query, key, value = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)
    # Three texts of uneven lengths and padding in every row.
    ends = np.sort(rng.integers(1, steps, (batch, 3)), axis=1)
    at = np.arange(steps)
    segments = 1 + (at >= ends[:, :1]) + (at >= ends[:, 1:2])
    segments = jnp.asarray(np.where(at < ends[:, 2:], segments, 0), jnp.int32)
    return query, key, value, segments


CASES = {
    "plain": {},
    "softcap": {"softcap": 3.0},
    "window": {"window": SlidingWindow(37, jnp.asarray(True))},
    "window of another layer": {"window": SlidingWindow(37, jnp.asarray(False))},
    "window and softcap": {"softcap": 3.0, "window": SlidingWindow(37, jnp.asarray(True))},
}
on_cases = pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] * ("and" not in case)) for case in CASES],
)


def value_and_gradients(kernel, case):
    """Returns what comes out where there is no padding, and the gradients of its square."""
    query, key, value, segments = inputs()
    real = (segments > 0)[:, :, None, None]

    def loss(query, key, value):
        mixed = attention(query, key, value, segments, H**-0.5, kernel=kernel, **CASES[case]) * real
        return (mixed**2).sum(), mixed

    grad = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
    gradients, mixed = grad(query, key, value)
    return mixed, *gradients


@on_cases
def test_splash_attention_gives_the_plain_result(case, interpreted):
    assert supports_splash(inputs()[0])
    expected = value_and_gradients("plain", case)
    assert np.abs(expected[0]).max() > 1
    found = value_and_gradients("splash", case)
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kernel", ["splash", "plain"])
def test_rows_that_are_no_whole_blocks_or_chunks(kernel, interpreted, monkeypatch):
    given = inputs(steps=200)
    expected = jax.jit(lambda *args: attention(*args, 0.2))(*given)
    monkeypatch.setattr(module, "LONG", 64)
    monkeypatch.setattr(module, "CHUNK_QUERIES", 64)
    found = jax.jit(lambda *args: attention(*args, 0.2, kernel=kernel))(*given)
    real = np.asarray(given[3]) > 0
    found, expected = np.asarray(found), np.asarray(expected)
    np.testing.assert_allclose(found[real], expected[real], rtol=0, atol=2e-5)


@pytest.mark.parametrize("tensor", [2, 4])  # there are 2 KV heads
def test_splash_attention_on_a_mesh(tensor, interpreted):
    expected = value_and_gradients("plain", "window")
    with jax.set_mesh(make_mesh(MeshConfig(2, -1, tensor))):
        found = value_and_gradients("splash", "window")
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)


@on_cases
def test_chunks_of_queries_give_the_whole_result(case, monkeypatch):
    expected = value_and_gradients("plain", case)
    monkeypatch.setattr(module, "LONG", 64)
    monkeypatch.setattr(module, "CHUNK_QUERIES", 64)
    found = value_and_gradients("plain", case)
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)


def test_chunks_hold_fewer_scores(monkeypatch):
    args = inputs(1, 4096)

    def peak():
        def loss(query, key, value):
            return (attention(query, key, value, args[3], 1.0) ** 2).sum()

        compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*args[:3]).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    in_chunks = peak()
    monkeypatch.setattr(module, "CHUNK_QUERIES", 4096)
    assert in_chunks < peak() / 2


def test_what_the_kernels_take():
    query = inputs()[0]
    assert supports_splash(query)
    assert not supports_splash(query[:, :100])  # less than a block
    narrow = query.astype(jnp.bfloat16)
    assert supports_cudnn(narrow, None)
    assert not supports_cudnn(query, None)  # f32
    assert not supports_cudnn(narrow, 30.0)
    assert not supports_cudnn(narrow[:, :201], None)  # an odd number of rows
    assert not supports_cudnn(jnp.concatenate([narrow] * 5, -1), None)  # 160 wide


def test_cudnn_forward_and_backward_are_what_a_gpu_gets(monkeypatch):
    # There is no GPU here: the program is lowered for one, as far as that goes without its library.
    from jax._src.cudnn import fused_attention_stablehlo

    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91002)
    query, key, value, segments = inputs()
    narrow = [x.astype(jnp.bfloat16) for x in (query, key, value)]

    def loss(query, key, value):
        window = SlidingWindow(37, jnp.asarray(True))
        mixed = attention(query, key, value, segments, 0.1, window=window, kernel="cudnn")
        return (mixed.astype(jnp.float32) ** 2).sum()

    traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(*narrow)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmhaScaleBiasSoftmax(" in text
    assert "__cudnn$fmhaScaleBiasSoftmaxBackward(" in text


@pytest.mark.parametrize(
    ("platform", "capability", "kernel"),
    [
        ("cpu", None, "plain"),
        ("tpu", None, "splash"),
        ("gpu", "9.0", "cudnn"),
        ("gpu", "12.0", "cudnn"),
        ("gpu", "7.5", "plain"),  # T4
        ("gpu", "gfx942", "plain"),  # ROCm
    ],
)
def test_each_chip_gets_the_kernel_that_it_can_run(platform, capability, kernel):
    device = types.SimpleNamespace(platform=platform, compute_capability=capability)
    assert best_kernel(device) == kernel
