import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.config import GenerationConfig
from bridge_jax.errors import UserError
from bridge_jax.generation.engine import Engine, Request, calls, slot_length, slots_of
from bridge_jax.models import costs, decoder
from bridge_jax.models.cache import init_cache
from bridge_jax.models.layouts import generation_config
from bridge_jax.timing import Spans

RNG = np.random.default_rng(0)
PROMPTS = [RNG.integers(3, 500, n).tolist() for n in (5, 31, 12, 40, 1, 17, 33, 65, 2)]
SETTINGS = GenerationConfig(max_new_tokens=10, batch_size=4)
SAMPLING = dataclasses.replace(SETTINGS, temperature=0.8, top_p=0.9)


def make(model, mesh, settings=SETTINGS, end_ids=(-1,), seed=0):
    return Engine(*model, end_ids, 2, settings, mesh, seed)


def complete(model, requests, mesh, settings=SETTINGS, end_ids=(-1,), seed=0, done=()):
    engine = make(model, mesh, settings, end_ids, seed)
    return dict(pair for ended in engine.complete(requests, done) for pair in ended)


@jax.jit
def _best(params, tokens, lengths):
    """Returns the most probable next token of each row and its log-probability."""
    at = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    segments = (at < lengths[:, None]).astype(int)
    hidden = decoder.hidden_states(_best.config, params, tokens, at, segments)
    hidden = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
    logprobs = jax.nn.log_softmax(decoder.output_head(_best.config, params).logits(hidden))
    return logprobs.argmax(-1), logprobs.max(-1)


def simply(model, prompts, new):
    """Returns greedy tokens and log-probabilities [N, new]: everything is read at each step."""
    _best.config, params = model
    lengths = np.array([len(prompt) for prompt in prompts])
    tokens = np.zeros((len(prompts), lengths.max() + new), np.int32)
    for row, prompt in zip(tokens, prompts):
        row[: len(prompt)] = prompt
    logprobs = []
    for _ in range(new):
        best, logprob = _best(params, tokens, lengths)
        tokens[np.arange(len(prompts)), lengths] = best
        logprobs.append(logprob)
        lengths += 1
    ids = [row[n - new : n].tolist() for row, n in zip(tokens, lengths)]
    return ids, np.stack(logprobs, 1)


@pytest.mark.slow
def test_greedy_tokens_of_ragged_prompts_are_the_simple_generators(tiny_model, one_device):
    task = RNG.integers(3, 500, 37).tolist()  # An instruction that half of them begin with.
    lengths = RNG.integers(1, 40, 150)
    prompts = [
        task[: 37 * (i % 2)] + RNG.integers(3, 500, n).tolist() for i, n in enumerate(lengths)
    ]
    limits = RNG.integers(1, 9, 150).tolist()
    settings = GenerationConfig(max_new_tokens=8, batch_size=64)
    requests = [Request(p, limit=n) for p, n in zip(prompts, limits)]
    done = complete(tiny_model, requests, one_device, settings)
    ids, logprobs = simply(tiny_model, prompts, 8)
    for i, limit in enumerate(limits):
        assert done[i].ids == ids[i][:limit] and not done[i].ended
        np.testing.assert_allclose(done[i].logprobs, logprobs[i, :limit], atol=1e-5)


@pytest.mark.parametrize("settings", [SETTINGS, SAMPLING], ids=["greedy", "sampled"])
def test_a_completion_depends_on_its_request_alone_to_the_bit(tiny_model, one_device, settings):
    """Not on order, slot, refill, or what was written before."""
    engine = make(tiny_model, one_device, settings)
    requests = [Request(p, limit=3 + i, stream=i) for i, p in enumerate(PROMPTS)]
    first = dict(pair for ended in engine.complete(requests) for pair in ended)
    assert len({tuple(c.ids) for c in first.values()}) > 5
    for order in (RNG.permutation(len(PROMPTS)), range(len(PROMPTS) - 1, -1, -1)):
        again = engine.complete([requests[i] for i in order])
        assert {order[at]: c for ended in again for at, c in ended} == first


@pytest.mark.slow
def test_the_number_of_slots_changes_roundings_alone(tiny_model, one_device):
    few, many = (
        complete(tiny_model, PROMPTS, one_device, dataclasses.replace(SAMPLING, batch_size=n))
        for n in (1, 8)
    )
    for i, completion in few.items():
        assert completion.ids == many[i].ids
        np.testing.assert_allclose(completion.logprobs, many[i].logprobs, atol=1e-5)


def test_what_is_done_is_not_written_again_and_the_rest_is_the_same(tiny_model, one_device):
    whole = complete(tiny_model, PROMPTS, one_device, SAMPLING)
    rest = complete(tiny_model, PROMPTS, one_device, SAMPLING, done=[0, 5, 7])
    assert sorted(rest) == [1, 2, 3, 4, 6, 8]
    assert all(rest[i] == whole[i] for i in rest)
    assert complete(tiny_model, PROMPTS, one_device, done=range(9)) == {}


def test_an_engine_that_was_left_in_the_middle_starts_afresh(tiny_model, one_device):
    engine = make(tiny_model, one_device)
    whole = dict(pair for ended in engine.complete(PROMPTS) for pair in ended)
    next(engine.complete(PROMPTS[::-1], steps=1))
    assert dict(enumerate(engine.complete_all(PROMPTS))) == whole


@pytest.mark.slow
def test_after_a_release_the_slots_are_those_of_a_fresh_engine(tiny_model, one_device):
    """So roundings are too, which the number of slots can change."""
    engine = make(tiny_model, one_device)
    for _ in engine.complete(PROMPTS):
        pass
    engine.release()
    again = dict(pair for ended in engine.complete(PROMPTS[:2]) for pair in ended)
    assert again == complete(tiny_model, PROMPTS[:2], one_device)
    assert engine._size[:3] == (2, slot_length(41, one_device), 10)


def test_an_interruption_in_a_call_loses_the_slots_and_no_more(tiny_model, one_device):
    engine = make(tiny_model, one_device)
    whole = list(engine.stream(PROMPTS[3]))
    interrupted = engine.stream(PROMPTS[3])
    next(interrupted)
    # As Ctrl-C leaves it while a call has taken the state and not returned it.
    jax.tree.map(lambda a: a.delete(), jax.block_until_ready(engine._state))
    interrupted.close()
    assert list(engine.stream(PROMPTS[3])) == whole


def test_samples_follow_the_seed_and_report_both_logprobs(tiny_model, one_device):
    requests = [Request(PROMPTS[3], temperature=t) for t in (0.5, 1.0, 1.0, 0.0)]
    runs = [complete(tiny_model, requests, one_device, seed=s) for s in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0][1].ids != runs[2][1].ids and runs[0][1].ids != runs[0][2].ids
    assert runs[0][3].ids == runs[2][3].ids and set(runs[0][3].sampled_logprobs) == {0.0}
    config, params = tiny_model
    for at, temperature in ((0, 0.5), (1, 1.0)):
        written = runs[0][at]
        ids = jnp.asarray([PROMPTS[3] + written.ids])
        places = jnp.arange(ids.shape[1])[None]
        hidden = decoder.hidden_states(config, params, ids, places, jnp.ones_like(ids))
        logits = decoder.output_head(config, params).logits(hidden[0, len(PROMPTS[3]) - 1 : -1])
        for scale, found in ((1, written.logprobs), (temperature, written.sampled_logprobs)):
            logprobs = jax.nn.log_softmax(logits / scale)
            expected = logprobs[np.arange(10), np.asarray(written.ids)]
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_completion_ends_at_the_first_of_several_end_tokens(tiny_model, one_device):
    free = complete(tiny_model, PROMPTS, one_device)
    ends = (free[1].ids[6], free[3].ids[2], free[1].ids[4])
    ended = complete(tiny_model, PROMPTS, one_device, end_ids=ends)
    seen = set()
    for i, completion in free.items():
        at = next((n for n, t in enumerate(completion.ids) if t in ends), None)
        if at is None:
            assert ended[i] == completion and not ended[i].ended
            continue
        seen.add(completion.ids[at])
        assert (ended[i].ids, ended[i].end) == (completion.ids[:at], completion.ids[at])
        # The end token's own probability is the last.
        assert ended[i].logprobs == completion.logprobs[: at + 1]
    assert len(seen) > 1


def test_forced_tokens_are_written_unless_others_were(tiny_model, one_device):
    prompt, how = PROMPTS[0], {"temperature": 1.0, "stream": 3}
    free = complete(tiny_model, [Request(prompt, **how)], one_device)[0].ids
    assert len(set(free)) == 10
    how |= {"forced": [7, 8, 9], "force_at": 4}
    requests = [
        Request(prompt, **how),
        Request(prompt, unless=free[3:4], **how),
        Request(prompt, unless=free[4:5], **how),  # It comes too late.
        Request([*prompt, *free[:4], 7, 8, 9], 3, 1.0, stream=3),
        Request(prompt, unless=free[:4], **how),
        Request(prompt, unless=free[1:3], **how),
        Request(prompt, unless=[free[1], free[3]], **how),  # Not one after the other.
        Request(prompt, unless=free[2:5], **how),  # The last of them comes too late.
    ]
    done = complete(tiny_model, requests, one_device)
    assert done[0].ids == [*free[:4], 7, 8, 9, *done[3].ids]
    assert done[1].ids == free
    assert done[2].ids == done[0].ids
    assert [done[n].ids for n in range(4, 8)] == [free, free, done[0].ids, done[0].ids]
    ended = complete(tiny_model, requests[:1], one_device, end_ids=(8,))[0]
    assert ended.ids == [*free[:4], 7] and ended.end == 8


def test_what_prompts_share_is_read_once(tiny_model, one_device):
    block = calls(one_device)[1]
    task = RNG.integers(3, 500, 3 * block).tolist()
    engine = make(tiny_model, one_device, dataclasses.replace(SAMPLING, batch_size=8))
    samples = dict(pair for ended in engine.complete([task] * 8) for pair in ended)
    assert engine.blocks == 3  # all of the prompt but its last token
    alone = complete(tiny_model, [Request(task, stream=5)], one_device, SAMPLING)[0]
    assert samples[5].ids == alone.ids
    engine = make(tiny_model, one_device, dataclasses.replace(SETTINGS, batch_size=8))
    prompts = [task + [i] * (2 + i) for i in range(3, 23)]
    list(engine.complete(prompts))
    # Those of one prompt are not shared: all but its last token, in blocks.
    assert engine.blocks == 3 + sum(-(-(len(p) - len(task) - 1) // block) for p in prompts)


def test_three_programs_whatever_is_asked(tiny_model, one_device):
    settings = GenerationConfig(max_new_tokens=41, batch_size=4)
    engine, spans = make(tiny_model, one_device, settings), Spans()
    with spans.compilations():
        for lengths in ((150,) * 20, (3, 200), (90, 91, 92)):
            requests = [
                Request(RNG.integers(3, 500, n).tolist(), 1 + n % 40, 0.1 * i, 1 - 0.01 * i)
                for i, n in enumerate(lengths)
            ]
            list(engine.complete([*requests, requests[0]]))
            list(engine.stream(requests[0]))
    assert 0 < spans.take()["compilations"] <= 4  # with that of the empty slots


def test_slots_are_refilled(tiny_model, one_device):
    limits = RNG.integers(2, 60, 150).tolist()
    settings = GenerationConfig(max_new_tokens=60, batch_size=16)
    engine = make(tiny_model, one_device, settings)
    requests = [Request(PROMPTS[i % 9], limit=n) for i, n in enumerate(limits)]
    assert sum(len(ended) for ended in engine.complete(requests)) == 150
    assert engine.new_tokens == sum(limits)
    batches = sum(16 * max(limits[i : i + 16]) for i in range(0, 150, 16))
    assert engine.busy > 0.85 and 16 * engine.steps < 0.7 * batches


@pytest.mark.parametrize(
    "cache, atol", [pytest.param("bf16", 0.02, marks=pytest.mark.slow), ("int8", 0.05)]
)
def test_a_smaller_cache_is_less_exact(tiny_model, one_device, cache, atol):
    exact = complete(tiny_model, PROMPTS, one_device)
    settings = dataclasses.replace(SETTINGS, cache=cache)
    found = complete(tiny_model, PROMPTS, one_device, settings)
    errors = []
    for i, completion in exact.items():
        pairs = list(zip(completion.ids, found[i].ids))
        same = next((n for n, (a, b) in enumerate(pairs) if a != b), len(pairs))
        errors += [abs(a - b) for a, b in zip(completion.logprobs[:same], found[i].logprobs)]
    assert len(errors) > 60 and 1e-5 < max(errors) < atol
    made = generation_config(tiny_model[0], cache)
    kept = init_cache(made, 2, 8, 1)[0]
    wide = made.head_dim
    assert kept.keys.dtype == {"bf16": jnp.bfloat16, "int8": jnp.int8}[cache]
    size = sum(a.nbytes for a in jax.tree.leaves(kept))
    assert size == 2 * made.num_kv_heads * 2 * 8 * {"bf16": 2 * wide, "int8": wide + 4}[cache]
    layers = jax.tree.leaves(init_cache(made, 2, 8, 1))
    assert costs.cache_bytes(made, 2, 8) == sum(a.nbytes for a in layers)


def test_few_requests_take_few_slots(one_device):
    sizes = [slots_of(SETTINGS, count, one_device) for count in (1, 2, 3, 4, 5, 100)]
    assert sizes == [1, 2, 4, 4, 4, 4]
    gpu: Any = SimpleNamespace(
        shape=one_device.shape, devices=np.array([SimpleNamespace(platform="gpu")])
    )
    assert [slots_of(SETTINGS, count, gpu) for count in (1, 2, 3, 100)] == [2, 2, 4, 4]
    lengths = 1, 128, 129, 256, 257, 512, 513, 1025
    on_cpu = [slot_length(n, one_device) for n in lengths]
    assert on_cpu == [128, 128, 256, 256, 512, 512, 1024, 1536]
    assert [slot_length(n, gpu) for n in lengths] == [256, 256, *on_cpu[2:]]


def test_a_prompt_beyond_the_embedding_table(tiny_model, one_device):
    with pytest.raises(UserError, match=r"token id 512, but .* table has 512 rows"):
        complete(tiny_model, [PROMPTS[0], [511, 512, 7]], one_device)


def test_prompts_beyond_the_context(tiny_model, one_device):
    with pytest.raises(
        UserError, match=r"a prompt of 5 tokens and generation.max_new_tokens=508.*of 512"
    ):
        complete(tiny_model, [Request(PROMPTS[0], 508)], one_device)


def test_a_run_that_was_left_suspended_is_over_when_another_begins(tiny_model, one_device):
    engine = make(tiny_model, one_device)
    whole = dict(pair for ended in engine.complete(PROMPTS) for pair in ended)
    suspended = engine.complete(PROMPTS[::-1])
    next(suspended)
    assert dict(pair for ended in engine.complete(PROMPTS) for pair in ended) == whole
    with pytest.raises(RuntimeError, match="this iterator is stale"):
        next(suspended)
