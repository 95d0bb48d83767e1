import dataclasses

import numpy as np
import pytest

from bridge_jax.config import GenerationConfig
from bridge_jax.errors import UserError
from bridge_jax.generation import conversation
from bridge_jax.generation.engine import Engine, Request

RNG = np.random.default_rng(1)
LENGTHS = (1, 32, 33, 70)
PROMPTS = {n: RNG.integers(3, 500, n).tolist() for n in LENGTHS}
SETTINGS = GenerationConfig(max_new_tokens=12, batch_size=1)


def make(model, mesh, end_ids=(-1,), **changes):
    return Engine(*model, end_ids, 2, dataclasses.replace(SETTINGS, **changes), mesh)


def windowed(model):
    config, params = model
    local = (True, False, True)
    return dataclasses.replace(config, window=5, local=local), params


@pytest.mark.parametrize("kind", [pytest.param("full", marks=pytest.mark.slow), "window"])
def test_a_stream_is_the_engines_completion(tiny_model, one_device, kind):
    model = tiny_model if kind == "full" else windowed(tiny_model)
    engine = make(model, one_device)
    for prompt in PROMPTS.values():
        [[(_, free)]] = engine.complete([prompt])
        assert list(engine.stream(prompt)) == free.ids and len(free.ids) == 12
    ends = [free.ids[9], free.ids[4]]
    engine = make(model, one_device, ends)
    [[(_, ended)]] = engine.complete([prompt])
    at = min(free.ids.index(end) for end in ends)
    assert list(engine.stream(prompt)) == ended.ids == free.ids[:at]
    assert ended.end == free.ids[at]


def test_the_window_matters(tiny_model, one_device):
    full, short = (make(m, one_device) for m in (tiny_model, windowed(tiny_model)))
    assert list(full.stream(PROMPTS[70])) != list(short.stream(PROMPTS[70]))


def test_a_prompt_beyond_the_embedding_table(tiny_model, one_device):
    with pytest.raises(UserError, match=r"token id 600, but .* table has 512 rows"):
        list(make(tiny_model, one_device).stream([7, 600]))


def test_a_sampled_stream_follows_its_number(tiny_model, one_device):
    engine = make(tiny_model, one_device, temperature=0.9, top_p=0.9)
    first, again, other = (
        list(engine.stream(Request(PROMPTS[32], stream=number))) for number in (3, 3, 4)
    )
    assert first == again != other
    [[(_, together)]] = engine.complete([Request(PROMPTS[32], stream=3)])
    assert together.ids == first


def test_the_next_turn_reads_what_is_new(tiny_model, one_device):
    engine = make(tiny_model, one_device)
    written = list(engine.stream(PROMPTS[70]))
    assert engine.blocks == 5  # Of 16 tokens, for all but the last of 70.
    turn = [*PROMPTS[70], *written, *PROMPTS[33]]
    again = list(engine.stream(turn))
    assert engine.blocks == 5 + 4  # Of 114 tokens, 64 are kept.
    assert again == list(make(tiny_model, one_device).stream(turn))


def test_tokens_come_one_by_one(tiny_model, one_device):
    """A long limit costs nothing if nobody reads on, and the next reply is as ever."""
    engine = make(tiny_model, one_device, max_new_tokens=150)
    tokens = engine.stream(PROMPTS[32])
    first = next(tokens)
    tokens.close()
    assert engine.steps < 5
    assert next(engine.stream(PROMPTS[32])) == first


def test_prompts_beyond_the_context(tiny_model, one_device):
    engine = make(tiny_model, one_device, max_new_tokens=482)
    with pytest.raises(UserError, match=r"a prompt of 32 tokens .*=482 exceed .* of 512"):
        list(engine.stream(PROMPTS[32]))


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
