import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.config import GenerationConfig
from bridge_jax.errors import UserError
from bridge_jax.generation import engine
from bridge_jax.models import decoder

RNG = np.random.default_rng(0)
PROMPTS = [RNG.integers(3, 500, n).tolist() for n in (5, 31, 12, 40, 1, 17)]
SETTINGS = GenerationConfig(max_new_tokens=10, batch_size=3)


def complete(model, prompts, mesh, settings=SETTINGS, end_ids=(-1,), seed=0, skip=0):
    made = engine.Engine(*model, end_ids, 2, settings, mesh, seed)
    return {i: c for batch in made.complete(prompts, skip) for i, c in batch}


def teacher_forced(model, ids):
    """Returns log p of every next token, f32[len(ids), V], without a cache."""
    config, params = model
    tokens = jnp.asarray([ids + [0] * (64 - len(ids))])
    at = jnp.arange(64)[None]
    hidden = _hidden(config, params, tokens, at, (at < len(ids)).astype(int))
    return np.asarray(jax.nn.log_softmax(decoder.output_head(config, params).logits(hidden[0])))


_hidden = jax.jit(decoder.hidden_states, static_argnums=0)


def test_cached_decoding_is_the_uncached_argmax_step_by_step(tiny_model, one_device):
    done = complete(tiny_model, PROMPTS, one_device)
    assert sorted(done) == list(range(len(PROMPTS)))
    for i, prompt in enumerate(PROMPTS):
        ids = list(prompt)
        for written, logprob in zip(done[i].ids, done[i].logprobs, strict=True):
            logprobs = teacher_forced(tiny_model, ids)[len(ids) - 1]
            assert written == logprobs.argmax()
            np.testing.assert_allclose(logprob, logprobs.max(), atol=1e-5)
            ids.append(written)
        assert len(done[i].ids) == 10 and not done[i].ended


def test_batch_and_padding_do_not_change_a_completion(tiny_model, one_device):
    together = complete(tiny_model, PROMPTS, one_device)
    for size, order in ((6, [3, 0, 5, 1, 4, 2]), (1, [1, 4, 0])):
        settings = dataclasses.replace(SETTINGS, batch_size=size)
        other = complete(tiny_model, [PROMPTS[i] for i in order], one_device, settings)
        for position, index in enumerate(order):
            assert other[position].ids == together[index].ids
            np.testing.assert_allclose(
                other[position].logprobs, together[index].logprobs, atol=1e-5
            )


def test_fewer_prompts_than_a_batch_are_no_larger_batch(tiny_model, one_device, monkeypatch):
    shard_batch, seen = engine.shard_batch, []

    def spied(batch, mesh):
        seen.append(batch[0].shape)
        return shard_batch(batch, mesh)

    monkeypatch.setattr(engine, "shard_batch", spied)
    assert len(complete(tiny_model, PROMPTS[:2], one_device)) == 2
    assert len(complete(tiny_model, PROMPTS[:4], one_device)) == 4
    assert seen == [(2, 32), (3, 32), (3, 48)]


def test_a_completion_ends_at_the_end_token(tiny_model, one_device):
    free = complete(tiny_model, PROMPTS, one_device)
    end_id = free[1].ids[4]
    ended = complete(tiny_model, PROMPTS, one_device, end_ids=(end_id,))
    for i, completion in free.items():
        if end_id in completion.ids:
            at = completion.ids.index(end_id)
            assert ended[i].ids == completion.ids[:at] and ended[i].ended
            # The end token's own probability is the last.
            np.testing.assert_allclose(ended[i].logprobs, completion.logprobs[: at + 1], atol=1e-5)
        else:
            assert ended[i].ids == completion.ids and not ended[i].ended


def test_a_completion_ends_at_the_first_of_several_end_tokens(tiny_model, one_device):
    free = complete(tiny_model, PROMPTS, one_device)
    ends = (free[1].ids[6], free[3].ids[2], free[1].ids[4])
    ended = complete(tiny_model, PROMPTS, one_device, end_ids=ends)
    assert complete(tiny_model, PROMPTS, one_device, end_ids=ends[::-1]) == ended
    seen = set()
    for i, completion in free.items():
        at = next((n for n, t in enumerate(completion.ids) if t in ends), None)
        if at is None:
            assert ended[i] == completion
            continue
        seen.add(completion.ids[at])
        assert (ended[i].ids, ended[i].end) == (completion.ids[:at], completion.ids[at])
        np.testing.assert_allclose(ended[i].logprobs, completion.logprobs[: at + 1], atol=1e-5)
    assert len(seen) > 1


def test_a_prompt_beyond_the_embedding_table(tiny_model, one_device):
    with pytest.raises(UserError, match=r"the token 512, and .* table has 512 rows"):
        complete(tiny_model, [PROMPTS[0], [511, 512, 7]], one_device)


def test_the_loop_stops_when_all_rows_have_ended(tiny_model):
    config, params = tiny_model
    prompt = jnp.asarray([PROMPTS[1] + [7]])
    length, key = jnp.asarray([32]), jax.random.key(0)
    args = (config, params, prompt, length, key)
    first = int(engine.generate_batch(*args, SETTINGS, -1)[0][0, 0])
    tokens, logprobs = engine.generate_batch(*args, SETTINGS, first)
    assert (tokens == first).all()
    assert logprobs[0, 0] < 0 and not logprobs[0, 1:].any()


def test_sampling_follows_the_seed_and_reports_the_models_logprobs(tiny_model, one_device):
    settings = dataclasses.replace(SETTINGS, temperature=0.8, top_p=0.9)
    runs = [complete(tiny_model, PROMPTS, one_device, settings, seed=s) for s in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert [c.ids for c in runs[0].values()] != [c.ids for c in runs[2].values()]
    ids = PROMPTS[0] + runs[0][0].ids
    logprobs = teacher_forced(tiny_model, ids)
    at = np.arange(len(PROMPTS[0]) - 1, len(ids) - 1)
    np.testing.assert_allclose(
        runs[0][0].logprobs, logprobs[at, np.asarray(ids)[at + 1]], atol=1e-5
    )


def test_skipped_batches_leave_the_others_as_they_were(tiny_model, one_device):
    settings = dataclasses.replace(SETTINGS, temperature=1.0)
    whole = complete(tiny_model, PROMPTS, one_device, settings)
    rest = complete(tiny_model, PROMPTS, one_device, settings, skip=1)
    assert sorted(rest) == [1, 3, 5]  # the three longest
    assert all(rest[i] == whole[i] for i in rest)


@pytest.mark.parametrize(
    ("length", "width"),
    [(1, 16), (16, 16), (17, 32), (49, 64), (128, 128), (129, 160), (257, 320), (1025, 1280)],
)
def test_how_wide_a_batch_is(length, width):
    assert engine.padded_width(length) == width


def test_few_widths_and_little_padding():
    widths = {length: engine.padded_width(length) for length in range(1, 2049)}
    assert len(set(widths.values())) == 8 + 4 * 4
    assert all(length <= width < 1.25 * length for length, width in widths.items() if length > 64)


def test_three_widths_compile_three_times(tiny_model, one_device):
    lengths = [3, 9, 10, 16, 17, 20, 31, 32, 33, 40, 45, 48]
    prompts = [RNG.integers(3, 500, n).tolist() for n in lengths]
    settings = GenerationConfig(max_new_tokens=3, batch_size=2)
    before = engine.generate_batch._cache_size()
    complete(tiny_model, prompts, one_device, settings)
    assert engine.generate_batch._cache_size() - before == 3
    complete(tiny_model, prompts[::-1], one_device, settings, seed=5)
    assert engine.generate_batch._cache_size() - before == 3


def test_prompts_beyond_the_context(tiny_model, one_device):
    settings = GenerationConfig(max_new_tokens=508, batch_size=1)
    with pytest.raises(
        UserError, match=r"a prompt of 5 tokens and generation.max_new_tokens=508.*of 512"
    ):
        complete(tiny_model, PROMPTS[:1], one_device, settings)
