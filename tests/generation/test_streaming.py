import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.config import GenerationConfig
from bridge_jax.errors import UserError
from bridge_jax.generation import conversation, engine

RNG = np.random.default_rng(1)
LENGTHS = (1, 31, 32, 33, 70)
PROMPTS = {n: RNG.integers(3, 500, n).tolist() for n in LENGTHS}
SETTINGS = GenerationConfig(max_new_tokens=12, batch_size=1)
KEY = jax.random.key(3)


def write(model, prompt, settings=SETTINGS, key=KEY, end_ids=(-1,)):
    return list(conversation.stream(*model, prompt, key, settings, end_ids, 2))


def windowed(model):
    config, params = model
    local = (True, False, True)
    return dataclasses.replace(config, window=5, local=local), params


@pytest.mark.parametrize("kind", ["full", "window"])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_greedy_stream_is_the_engines_completion(tiny_model, one_device, length, kind):
    model = tiny_model if kind == "full" else windowed(tiny_model)
    prompt = PROMPTS[length]
    [[(_, free)]] = engine.Engine(*model, [-1], 2, SETTINGS, one_device).complete([prompt])
    assert write(model, prompt) == free.ids
    assert len(free.ids) == 12
    end_id = free.ids[7]
    [[(_, ended)]] = engine.Engine(*model, [end_id], 2, SETTINGS, one_device).complete([prompt])
    assert write(model, prompt, end_ids=(end_id,)) == ended.ids
    assert len(ended.ids) <= 7


def test_a_stream_ends_at_the_first_of_several_end_tokens(tiny_model, one_device):
    prompt = PROMPTS[33]
    free = write(tiny_model, prompt)
    ends = [free[9], free[4]]
    [[(_, ended)]] = engine.Engine(*tiny_model, ends, 2, SETTINGS, one_device).complete([prompt])
    at = min(free.index(end) for end in ends)
    assert write(tiny_model, prompt, end_ids=ends) == ended.ids == free[:at]
    assert ended.end == free[at]


def test_a_prompt_beyond_the_embedding_table(tiny_model):
    with pytest.raises(UserError, match=r"the token 600, and .* table has 512 rows"):
        write(tiny_model, [7, 600])


def test_the_window_matters(tiny_model):
    assert write(tiny_model, PROMPTS[70]) != write(windowed(tiny_model), PROMPTS[70])


def test_a_sampled_stream_follows_its_key_and_is_the_engines(tiny_model):
    settings = dataclasses.replace(SETTINGS, temperature=0.9, top_p=0.9)
    prompt = PROMPTS[32]
    first = write(tiny_model, prompt, settings)
    assert write(tiny_model, prompt, settings) == first
    assert write(tiny_model, prompt, settings, jax.random.key(4)) != first
    together, _ = engine.generate_batch(
        *tiny_model, jnp.asarray([prompt]), jnp.asarray([32]), KEY, settings, -1
    )
    assert together[0].tolist() == first


def test_it_compiles_once_per_bucket_and_the_step_once_per_cache(tiny_model):
    # Not on a mesh: there, one program may have two entries, for two names of the same placement.
    config, params = tiny_model
    model = config, jax.device_put(params, jax.devices()[0])
    settings = GenerationConfig(max_new_tokens=20, batch_size=1)
    before = conversation._prefill._cache_size(), conversation._step._cache_size()
    for length in (3, 20, 32, 33, 64, 65, 100, 128, 5, 90):  # 32, 64 and 128
        write(model, RNG.integers(3, 500, length).tolist(), settings)
    assert conversation._prefill._cache_size() - before[0] == 3
    assert conversation._step._cache_size() - before[1] == 1
    write(model, RNG.integers(3, 500, 480).tolist(), settings)  # 532 slots
    assert conversation._prefill._cache_size() - before[0] == 4
    assert conversation._step._cache_size() - before[1] == 2


@pytest.mark.parametrize("length, width", [(1, 32), (32, 32), (33, 64), (96, 128), (128, 128)])
def test_buckets_double(length, width):
    assert conversation.bucket(length) == width


def test_the_cache_is_given_to_the_next_step(tiny_model):
    config, params = tiny_model
    args = jnp.asarray([PROMPTS[32]]), jnp.asarray([32]), KEY, 64, SETTINGS
    cache, last = conversation._prefill(config, params, *args)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a donated buffer that cannot be used
        conversation._step(config, params, cache, last, SETTINGS)
    assert cache.keys.is_deleted()
    assert cache.values.is_deleted()


def test_tokens_come_one_by_one(tiny_model):
    """A long limit costs nothing if nobody reads on."""
    tokens = conversation.stream(
        *tiny_model, PROMPTS[1], KEY, GenerationConfig(max_new_tokens=400), [-1], 2
    )
    assert next(tokens) == write(tiny_model, PROMPTS[1])[0]
    tokens.close()


def test_prompts_beyond_the_context(tiny_model):
    settings = GenerationConfig(max_new_tokens=482)
    with pytest.raises(UserError, match=r"a prompt of 31 tokens .*=482 exceed .* of 512"):
        write(tiny_model, PROMPTS[31], settings)


TEXT = "Ünïcode: 5 €, 😀 und 日本 – done"


def test_half_characters_are_held_back(tiny_tokenizer):
    ids = tiny_tokenizer.encode(TEXT)
    assert len(ids) > len(TEXT)  # the emoji alone is four tokens
    words = conversation.Detokenizer(tiny_tokenizer)
    pieces = [words.add(token) for token in ids]
    assert "".join(pieces) == TEXT
    assert all("\ufffd" not in piece for piece in pieces)
    assert "😀" in pieces
    assert words.finish() == ""


def test_bytes_that_never_become_a_character_are_told_at_last(tiny_tokenizer):
    half = tiny_tokenizer.encode("a😀")[:-1]
    words = conversation.Detokenizer(tiny_tokenizer)
    assert "".join(words.add(token) for token in half) == "a"
    assert set(words.finish()) == {"\ufffd"}
    words = conversation.Detokenizer(tiny_tokenizer)
    told = "".join(words.add(token) for token in half + tiny_tokenizer.encode("b"))
    assert told == tiny_tokenizer.decode(half + tiny_tokenizer.encode("b"))
    assert told.startswith("a\ufffd") and told.endswith("b")
