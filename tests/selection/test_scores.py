"""Scores against a direct computation with the whole softmax, whatever shares the batch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.models import decoder
from bridge_jax.models.config import DecoderConfig
from bridge_jax.parallel.sharding import make_mesh
from bridge_jax.selection import scores
from bridge_jax.text.prompts import Sequence

CONFIG = DecoderConfig(
    vocab_size=61,
    model_dim=16,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    mlp_dim=24,
    tied=False,
)
PAD = 3


@pytest.fixture(scope="module")
def model():
    params = nn.unbox(decoder.init(CONFIG, jax.random.key(1)))
    # At the scale of the initialisation every prediction is near uniform; this is not.
    return CONFIG, jax.tree.map(lambda a: a * 8 if a.ndim > 1 else a, params)


def sequences(lengths, seed=0):
    rng = np.random.default_rng(seed)

    def ids(n):
        return rng.integers(0, CONFIG.vocab_size, n).tolist()

    return [Sequence(ids(prompt), ids(why), ids(answer)) for prompt, why, answer in lengths]


# Lengths on both sides of a bucket's edge; one with a rationale; answers of 1 to 11 tokens.
LENGTHS = [(5, 0, 1), (29, 0, 3), (30, 0, 3), (60, 0, 11), (7, 6, 4)]


def dense(config, params, sequence):
    """Returns (nll, entropy, embedding) of one sequence alone, unpadded, softmax over all V."""
    ids = np.array(sequence.prompt + sequence.rationale + sequence.answer)
    one = jnp.ones((1, len(ids)), jnp.int32)
    hidden = decoder.hidden_states(config, params, ids[None], jnp.arange(len(ids))[None], one)[0]
    logp = jax.nn.log_softmax(hidden @ params["head"].T, axis=-1)
    first = len(ids) - len(sequence.answer)
    predictions = np.asarray(logp, np.float64)[first - 1 : -1]
    nll = -predictions[np.arange(len(sequence.answer)), ids[first:]].mean()
    entropy = -(np.exp(predictions) * predictions).sum(-1).mean()
    mean = np.asarray(hidden, np.float64)[:first].mean(0)
    return nll, entropy, mean / np.linalg.norm(mean)


def run(model, found, batch_tokens, mesh=None):
    mesh = mesh or make_mesh(devices=jax.devices()[:1])
    return scores.score(*model, found, batch_tokens, PAD, mesh)


@pytest.fixture(scope="module")
def expected(model):
    return [dense(*model, s) for s in sequences(LENGTHS)]


@pytest.mark.parametrize("batch_tokens", [1, 64, 256])
def test_scores_equal_the_dense_computation(model, expected, batch_tokens):
    result = run(model, sequences(LENGTHS), batch_tokens)
    assert np.ptp(result.nll) > 0.5  # else the comparison says little
    np.testing.assert_allclose(result.nll, [e[0] for e in expected], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(result.entropy, [e[1] for e in expected], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(result.embeddings, [e[2] for e in expected], atol=2e-5)


def test_the_rest_of_the_batch_does_not_matter(model):
    found = sequences(LENGTHS)
    together = run(model, found, 256)
    for order in ([3, 1], [4, 0, 2]):
        apart = run(model, [found[i] for i in order], 256)
        for one, all_ in zip(apart, together):
            np.testing.assert_allclose(one, all_[order], atol=1e-5)


def test_all_devices_give_the_same_scores(model):
    if jax.device_count() == 1:
        pytest.skip("one device")
    found = sequences(LENGTHS)
    for one, many in zip(run(model, found, 256), run(model, found, 256, make_mesh())):
        np.testing.assert_allclose(one, many, atol=1e-5)


def test_advance_is_told_of_every_sequence_once(model):
    told = []
    found = sequences(LENGTHS)
    scores.score(*model, found, 64, PAD, make_mesh(devices=jax.devices()[:1]), told.append)
    assert sum(told) == len(found)


def test_few_shapes_are_compiled(model):
    scores.score_batch.clear_cache()
    lengths = np.random.default_rng(0).integers(2, 60, 40)
    run(model, sequences([(int(n), 0, 1 + i % 8) for i, n in enumerate(lengths)]), 128)
    buckets = 3  # 32, 64 and 96 tokens hold 2 + 1 to 59 + 8
    assert scores.score_batch._cache_size() <= buckets
