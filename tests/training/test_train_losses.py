import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import TrainingSequence
from bridge_jax.training.objectives import coefficients
from bridge_jax.training.objectives.sft import SFT
from bridge_jax.training.step import loss_and_gradients
from tests import plain

SEQUENCES = [
    TrainingSequence([5, 6, 7], [8, 9, 10, 11], [12, 1]),
    TrainingSequence([20, 21], [22, 23], [24, 25, 1]),
    TrainingSequence([30, 31, 32, 33], [], [34, 1]),
    TrainingSequence([40], [41, 42, 43, 44, 45, 46], [1]),
    TrainingSequence([50, 51, 52, 53, 54, 55], [56], [57, 58, 1]),
]

gradients_of = jax.jit(loss_and_gradients, static_argnums=(0, 1, 4))


def compute(config, params, rows, share, accumulate):
    return gradients_of(SFT(share), config, params, rows, accumulate)


def close(a, b, atol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=atol), a, b)


def pad_rows(rows, count):
    return jax.tree.map(
        lambda a: np.concatenate([a, np.zeros((count - len(a), *a.shape[1:]), a.dtype)]), rows
    )


def test_packed_equals_unpacked(tiny_model):
    config, params = tiny_model
    packed = pack(SEQUENCES, 24, 2)
    apart = pack(SEQUENCES, 24, 2, packed=False)
    assert len(packed.tokens) < len(apart.tokens)
    ours, theirs = (compute(config, params, rows, 0.3, 1) for rows in (packed, apart))
    close(ours, theirs)
    assert ours[0]["grad_norm"] > 1e-2


def test_empty_rows_do_not_move_the_loss(tiny_model):
    config, params = tiny_model
    rows = pack(SEQUENCES, 24, 2)
    close(*(compute(config, params, r, 0.3, 1) for r in (rows, pad_rows(rows, 6))))


def test_accumulation_equals_one_batch(tiny_model):
    config, params = tiny_model
    rows = pad_rows(pack(SEQUENCES, 24, 2, packed=False), 8)  # some micro-batches have few tokens
    close(*(compute(config, params, rows, 0.3, n) for n in (1, 4)))


@pytest.mark.parametrize(
    "policy",
    [
        "full",
        pytest.param("attention", marks=pytest.mark.slow),
        pytest.param("dots", marks=pytest.mark.slow),
    ],
)
def test_recomputation_changes_nothing(tiny_model, policy):
    config, params = tiny_model
    rows = pack(SEQUENCES, 24, 2)
    found = compute(dataclasses.replace(config, remat=policy), params, rows, 0.5, 1)
    close(compute(config, params, rows, 0.5, 1), found)


def test_each_part_is_the_mean_over_its_own_tokens(tiny_model):
    config, params = tiny_model
    rationale, answer = [], []
    for s, nll in zip(SEQUENCES, plain.nll(config, params, SEQUENCES)):
        rationale += nll[: len(s.rationale)].tolist()
        answer += nll[len(s.rationale) :].tolist()
    metrics, _ = compute(config, params, pack(SEQUENCES, 24, 2), 0.3, 1)
    np.testing.assert_allclose(metrics["rationale_loss"], np.mean(rationale), rtol=1e-5)
    np.testing.assert_allclose(metrics["answer_loss"], np.mean(answer), rtol=1e-5)
    expected = 0.3 * np.mean(rationale) + 0.7 * np.mean(answer)
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    assert metrics["tokens"] == sum(s.length for s in SEQUENCES)


def test_a_batch_of_answers_only_is_trained_on_answers_alone(tiny_model):
    config, params = tiny_model
    answers = [TrainingSequence(s.prompt, [], s.answer) for s in SEQUENCES]
    metrics, _ = compute(config, params, pack(answers, 24, 2), 0.9, 1)
    assert metrics["rationale_loss"] == 0
    np.testing.assert_allclose(metrics["loss"], metrics["answer_loss"], rtol=1e-6)


@pytest.mark.parametrize(
    "rationale, answer, expected",
    [(4, 2, (0.25 / 4, 0.75 / 2)), (0, 2, (0, 1 / 2)), (4, 0, (1 / 4, 0))],
)
def test_part_coefficients(rationale, answer, expected):
    weights = {"rationale": jnp.float32(rationale), "answer": jnp.float32(answer)}
    found = coefficients(SFT(0.25), weights)
    np.testing.assert_allclose((found["rationale"], found["answer"]), expected)


def test_gradient_against_finite_differences(tiny_model):
    config, params = tiny_model
    rows = pack(SEQUENCES, 24, 2)
    _, gradients = compute(config, params, rows, 0.3, 1)
    # Along the gradient's own direction, where the slope is its norm.
    norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(gradients)))
    step = 1e-2 / norm

    def moved(sign):
        there = jax.tree.map(lambda p, g: p + sign * step * g, params, gradients)
        return float(compute(config, there, rows, 0.3, 1)[0]["loss"])

    np.testing.assert_allclose((moved(1) - moved(-1)) / (2 * step), norm**2, rtol=1e-2)
