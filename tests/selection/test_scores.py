"""Scores against a direct computation with the whole softmax, whatever shares the batch."""

import dataclasses
import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.models import decoder, head
from bridge_jax.models.config import DecoderConfig
from bridge_jax.parallel.preemption import Preempted
from bridge_jax.parallel.sharding import make_mesh
from bridge_jax.selection import scores
from bridge_jax.selection.batches import plan
from bridge_jax.text.prompts import TrainingSequence
from bridge_jax.timing import Spans
from tests import plain

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
ONE = make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def model():
    params = jax.jit(lambda key: nn.unbox(decoder.init(CONFIG, key)))(jax.random.key(1))
    # At the scale of the initialisation every prediction is near uniform; this is not.
    return CONFIG, jax.tree.map(lambda a: np.asarray(a) * (8 if a.ndim > 1 else 1), params)


def sequences(lengths, seed=0):
    rng = np.random.default_rng(seed)

    def ids(n):
        return rng.integers(0, CONFIG.vocab_size, n).tolist()

    return [TrainingSequence(ids(prompt), ids(why), ids(answer)) for prompt, why, answer in lengths]


# Lengths on both sides of a bucket's edge; one with a rationale; answers of 1 to 11 tokens.
LENGTHS = [(5, 0, 1), (29, 0, 3), (30, 0, 3), (60, 0, 11), (7, 6, 4)]


def dense(hidden, logp, sequence):
    """Returns the scores of one sequence in a row of its own, softmax over all V."""
    ids = np.array(sequence.prompt + sequence.rationale + sequence.answer)
    first = len(ids) - len(sequence.answer)
    predictions = np.asarray(logp, np.float64)[first - 1 : len(ids) - 1]
    nll = -predictions[np.arange(len(sequence.answer)), ids[first:]].mean()
    entropy = -(np.exp(predictions) * predictions).sum(-1).mean()
    second, top = np.sort(np.exp(predictions), -1)[:, -2:].T
    mean = np.asarray(hidden, np.float64)[: len(sequence.prompt)].mean(0)
    return scores.Scores(nll, entropy, (1 - top + second).mean(), mean / np.linalg.norm(mean))


def run(model, found, batch_tokens, mesh=ONE):
    return scores.score(*model, found, batch_tokens, PAD, mesh)


@pytest.fixture(scope="module")
def expected(model):
    found = sequences(LENGTHS)
    texts = plain.rows([s.prompt + s.rationale + s.answer for s in found])
    return [dense(*each) for each in zip(*plain.hidden_and_logprobs(*model, texts), found)]


@pytest.mark.parametrize("batch_tokens", [1, 64, 256])
def test_scores_equal_the_dense_computation(model, expected, batch_tokens):
    result = run(model, sequences(LENGTHS), batch_tokens)
    assert np.ptp(result.nll) > 0.5  # else the comparison says little
    assert np.ptp(result.margin) > 0.02
    for found, wanted in zip(result, zip(*expected)):
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


def test_the_rest_of_the_batch_does_not_matter(model):
    found = sequences(LENGTHS)
    together = run(model, found, 256)
    for order in ([3, 1], [4, 0, 2]):
        apart = run(model, [found[i] for i in order], 256)
        for one, all_ in zip(apart, together):
            np.testing.assert_allclose(one, all_[order], atol=1e-5)


def test_all_devices_give_the_same_scores(model):
    assert jax.device_count() == 8
    found = sequences(LENGTHS)
    for one, many in zip(run(model, found, 256), run(model, found, 256, make_mesh())):
        np.testing.assert_allclose(one, many, atol=1e-5)


def test_advance_is_told_of_every_sequence_once(model):
    told = []
    found = sequences(LENGTHS)
    scores.score(*model, found, 64, PAD, ONE, told.append)
    assert sum(told) == len(found)


def test_sequences_that_share_a_row_do_not_see_each_other(model):
    found = sequences([(8, 0, 2), (10, 0, 3), (7, 0, 1)])
    planned = plan([s.length for s in found], [len(s.answer) for s in found], 64, ONE)
    assert [len(batch.parts[0][0]) for batch in planned] == [3]
    before = run(model, found, 64)
    found[1] = found[1]._replace(prompt=[(i + 1) % CONFIG.vocab_size for i in found[1].prompt])
    for one, other in zip(before, run(model, found, 64)):
        np.testing.assert_array_equal(one[[0, 2]], other[[0, 2]])
        assert np.abs(one[1] - other[1]).max() > 1e-3


def ragged(count):
    rng = np.random.default_rng(0)
    prompts, answers = rng.integers(10, 1501, count), rng.integers(1, 61, count)
    return [TrainingSequence([1] * int(p), [], [2] * int(a)) for p, a in zip(prompts, answers)]


@pytest.mark.slow
def test_few_programs_score_a_ragged_pool(model):
    """Computes two batches of each shape of the plan."""
    found = ragged(5000)
    config = dataclasses.replace(CONFIG, num_layers=1)
    params = model[1] | {"layers": jax.tree.map(lambda a: a[:1], model[1]["layers"])}
    batches = {}
    for batch in plan([s.length for s in found], [len(s.answer) for s in found], 2048, ONE):
        batches.setdefault(batch.shape, []).append(batch)
    assert 1 < len(batches) <= 6

    def step(batch):
        return scores.score_batch(config, params, batch)._asdict()

    scores.score_batch.clear_cache()
    spans = Spans()
    with spans.compilations():
        two = [batch for each in batches.values() for batch in each[:2]]
        parts = list(scores._computed(step, two, found, PAD, ONE))
    assert sum(len(part["index"]) for part in parts) > len(two)
    assert spans.take()["compilations"] == scores.score_batch._cache_size() == len(batches)


def test_a_batch_is_sent_before_the_last_one_is_fetched(model, monkeypatch):
    log = []

    def step(batch):
        log.append("sent")
        return scores.score_batch(*model, batch)._asdict()

    def fetch(tree):
        log.append("fetched")
        return jax.tree.map(np.asarray, tree)

    monkeypatch.setattr(scores, "fetch", fetch)
    found = sequences([(30, 0, 2)] * 6)
    scores._of_all(step, found, 64, PAD, ONE, lambda n: None, None)
    assert log == ["sent", *["sent", "fetched"] * 2, "fetched"]


class Kept:
    """Shards in memory. Stops after `most` of them."""

    def __init__(self, most=100):
        self.parts, self.most = [], most

    def read(self):
        return list(self.parts)

    def write(self, part):
        self.parts.append(part)
        if len(self.parts) == self.most:
            raise Preempted


@pytest.mark.parametrize("function", ["score", "gradients"])
def test_a_stopped_scoring_goes_on_after_the_last_shard(model, monkeypatch, function):
    monkeypatch.setattr(scores, "SHARD_SECONDS", 0.0)
    compute, step = getattr(scores, function), f"{function.removesuffix('s')}_batch"
    found, told, batches = sequences([(30 + i, 0, 1 + i % 4) for i in range(12)]), [], []
    original = getattr(scores, step)
    whole = compute(*model, found, 64, PAD, ONE)

    def counted(config, params, batch):
        batches.append(batch)
        return original(config, params, batch)

    monkeypatch.setattr(scores, step, counted)
    kept = Kept(most=2)
    with pytest.raises(Preempted):
        compute(*model, found, 64, PAD, ONE, shards=kept)
    total = len(plan([s.length for s in found], [len(s.answer) for s in found], 64, ONE))
    assert total > 4 and len(kept.parts) == 2
    assert len(batches) == 2 + scores.AHEAD
    batches.clear()
    kept.most = 100
    again = compute(*model, found, 64, PAD, ONE, told.append, kept)
    assert len(batches) == total - 2
    assert sum(told) == len(found)
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    # All is known now, in other batches too.
    batches.clear()
    for batch_tokens in (64, 512):
        done = compute(*model, found, batch_tokens, PAD, ONE, shards=kept)
        jax.tree.map(np.testing.assert_array_equal, done, whole)
    assert not batches


def test_shards_of_other_batches_are_used_where_they_hold_a_whole_batch(model, monkeypatch):
    monkeypatch.setattr(scores, "SHARD_SECONDS", 0.0)
    found, kept = sequences([(30 + i, 0, 1 + i % 4) for i in range(12)]), Kept(most=3)
    with pytest.raises(Preempted):
        scores.score(*model, found, 64, PAD, ONE, shards=kept)
    kept.most = 100
    for one, other in zip(
        scores.score(*model, found, 512, PAD, make_mesh(), shards=kept), run(model, found, 64)
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)


@functools.partial(jax.jit, static_argnums=0)
def dense_gradients(config, params, texts, starts, answers):
    """Returns f32[B, V, D]: the gradients of the mean NLL of the predicted tokens, by the head.

    In row b these are the predictions of as many tokens as `answers[b]`, from `starts[b]` on.
    """
    cap = config.final_softcap

    def one(hidden, start, answer):
        places = jnp.arange(len(hidden)) - start

        def nll(table):
            logits = hidden @ table.T
            logits = cap * jnp.tanh(logits / cap) if cap else logits
            predicted = jax.lax.stop_gradient(logits.argmax(-1))
            found = jnp.take_along_axis(jax.nn.log_softmax(logits), predicted[:, None], 1)[:, 0]
            return -jnp.where((places >= 0) & (places < answer), found, 0).sum() / answer

        return jax.grad(nll)(params["head"])

    return jax.vmap(one)(decoder.hidden_states(config, params, *texts), starts, answers)


@jax.jit
def projected(gradient):
    """Returns f32[K], by the definition: an element is (r^T G s) / sqrt(K) for signs r and s."""
    rows, columns = scores.projections(*gradient.shape)
    products = jnp.einsum("VD,VK,DK->K", gradient, rows, columns)
    return products / np.sqrt(scores.PROJECTED)


@pytest.mark.parametrize(("batch_tokens", "softcap"), [(64, 3.0), (256, None)])
def test_gradient_embeddings_are_the_gradient_of_the_loss(model, batch_tokens, softcap):
    config, params = dataclasses.replace(model[0], final_softcap=softcap), model[1]
    found = sequences(LENGTHS)
    mesh = make_mesh()  # all devices
    result = scores.gradients(config, params, found, batch_tokens, PAD, mesh)
    texts = plain.rows([s.prompt + s.rationale + s.answer for s in found])
    answers = np.array([len(s.answer) for s in found])
    starts = np.array([s.length for s in found]) - answers - 1
    gradients = np.asarray(dense_gradients(config, params, texts, starts, answers))
    expected = np.stack([projected(gradient) for gradient in gradients])
    assert np.linalg.norm(expected, axis=1).min() > 0.05
    np.testing.assert_allclose(result, expected, rtol=0, atol=2e-5)


def test_a_projection_keeps_distances():
    """The variance of a squared distance of outer products is at most 8 / K of its square."""
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(6, 50)), rng.normal(size=(6, 40))
    gradients = np.einsum("NV,ND->NVD", left, right)
    small = np.stack([projected(jnp.asarray(gradient)) for gradient in gradients])
    for a, b in itertools.combinations(range(6), 2):
        exact = ((gradients[a] - gradients[b]) ** 2).sum()
        assert ((small[a] - small[b]) ** 2).sum() == pytest.approx(exact, rel=0.5)


def test_gradient_embeddings_do_not_look_at_the_gold_answer(model):
    # The first answer token is predicted by the prompt alone.
    one, other = sequences([(9, 0, 1)])[0], sequences([(9, 0, 1)])[0]
    other = other._replace(answer=[(other.answer[0] + 1) % CONFIG.vocab_size])
    first, second = scores.gradients(*model, [one, other], 64, PAD, ONE)
    np.testing.assert_array_equal(first, second)


def test_the_gradient_by_hand():
    # p = (1/2, 1/4, 1/4) over W = e1, e2, e3: sum_v p_v W_v - W_0 = (-1/2, 1/4, 1/4).
    hidden, table = jnp.log(jnp.array([[2.0, 1.0, 1.0]])), jnp.eye(3)

    def nll(hidden):
        return head.token_statistics(
            hidden, head.Head(table), jnp.zeros(1, int), head.Stream(2)
        ).nll.sum()

    found = jax.jit(jax.grad(nll))(hidden)
    np.testing.assert_allclose(found, [[-0.5, 0.25, 0.25]], atol=1e-6)
