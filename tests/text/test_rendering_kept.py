"""What was rendered is kept, in memory and on disk, and is used only if it is what it should be."""

import dataclasses

import numpy as np
import pytest

from bridge_jax.errors import UserError
from tests.text.test_rendering import EXAMPLES, many, one_by_one, rendering


class Counting:
    """A tokenizer that counts the texts and chats it is given."""

    def __init__(self, inner):
        self.inner, self.alone, self.many = inner, 0, 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def encode(self, text):
        self.alone += 1
        return self.inner.encode(text)

    def render_chat(self, messages):
        self.alone += 1
        return self.inner.render_chat(messages)

    def encode_all(self, texts):
        self.many += len(texts)
        return self.inner.encode_all(texts)

    def render_all(self, chats):
        self.many += len(chats)
        return self.inner.render_all(chats)


def test_a_second_start_renders_nothing(tiny_tokenizer, tmp_path):
    examples = many(40)
    first = rendering(Counting(tiny_tokenizer), folder=tmp_path)
    expected = list(first.prompts(examples, "d", "reason")), list(first.labelled(examples, "d"))
    counting = Counting(tiny_tokenizer)
    second = rendering(counting, folder=tmp_path)
    assert list(second.prompts(examples, "d", "reason")) == expected[0]
    assert list(second.labelled(examples, "d")) == expected[1]
    assert counting.many == 0
    assert 0 < counting.alone <= 4 * 4  # A few are compared; an answer is encoded in two parts.
    assert isinstance(second.prompts(examples, "d", "reason").tokens, np.memmap)


def test_in_one_process_nothing_is_rendered_or_read_twice(tiny_tokenizer):
    counting = Counting(tiny_tokenizer)
    made = rendering(counting, folder=None)
    found = made.prompts(EXAMPLES, "d", "reason")
    assert counting.many == len(EXAMPLES)
    assert made.prompts(EXAMPLES, "d", "reason") is found
    assert [made.prompt(e, "reason") for e in EXAMPLES] == list(found)
    assert (counting.many, counting.alone) == (len(EXAMPLES), 0)
    # Another mode, another digest and another example are others.
    assert list(made.prompts(EXAMPLES, "d", "answer")) != list(found)
    assert list(made.prompts(EXAMPLES[:2], "e", "reason")) == list(found)[:2]
    other = dataclasses.replace(EXAMPLES[0], question="Why?")
    assert made.prompt(other, "reason") != found[0]
    assert counting.many == 2 * len(EXAMPLES) + 2


@pytest.mark.parametrize(
    "change",
    [
        {"key": "l"},
        {"max_prompt_tokens": 999},
        {"table_rows": 999},
        {"on_long_prompt": "cut_beginning"},
    ],
)
def test_other_settings_are_rendered_again(tiny_tokenizer, tmp_path, change):
    rendering(tiny_tokenizer, folder=tmp_path).prompts(EXAMPLES, "d", "reason")
    counting = Counting(tiny_tokenizer)
    rendering(counting, folder=tmp_path, **change).prompts(EXAMPLES, "d", "reason")
    assert counting.many == len(EXAMPLES)


def test_how_many_were_cut_is_kept(tiny_tokenizer, tmp_path):
    examples = [dataclasses.replace(EXAMPLES[0], question="So it is. " * 99), *EXAMPLES[1:]]
    for _ in range(2):
        how = {"max_prompt_tokens": 300, "on_long_prompt": "cut_end", "folder": tmp_path}
        found = rendering(tiny_tokenizer, **how).prompts(examples, "d", "reason")
        assert (found.cut, found.lengths.max()) == (1, 300)


def test_ids_that_are_not_those_of_the_examples_are_made_again(tiny_tokenizer, tmp_path):
    rendering(tiny_tokenizer, folder=tmp_path).prompts(EXAMPLES, "d", "reason")
    changed = [dataclasses.replace(EXAMPLES[0], question="Why?"), *EXAMPLES[1:]]
    for examples in (changed, EXAMPLES[:3]):
        found = rendering(tiny_tokenizer, folder=tmp_path).prompts(examples, "d", "reason")
        assert list(found) == one_by_one(tiny_tokenizer, examples, "reason")


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "no facts", "half of the facts"])
@pytest.mark.parametrize("part", ["tokens", "offsets"])
def test_a_damaged_entry_is_made_again(tiny_tokenizer, tmp_path, part, damage):
    first = list(rendering(tiny_tokenizer, folder=tmp_path).prompts(EXAMPLES, "d", "reason"))
    (array,), (facts,) = tmp_path.glob(f"*.{part}.npy"), tmp_path.glob("*.json")
    before = array.read_bytes()
    match damage:
        case "cut":
            array.write_bytes(before[:-8])
        case "changed":
            array.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        case "gone":
            array.unlink()
        case "no facts":
            facts.unlink()
        case "half of the facts":
            facts.write_text(facts.read_text()[:60])
    for again in (len(EXAMPLES), 0):
        counting = Counting(tiny_tokenizer)
        found = rendering(counting, folder=tmp_path).prompts(EXAMPLES, "d", "reason")
        assert list(found) == first
        assert counting.many == again
    assert array.read_bytes() == before
    assert sorted(p.name.split(".", 1)[1] for p in tmp_path.iterdir()) == [
        *("json", "offsets.npy", "tokens.npy")
    ]


def test_only_the_first_process_writes(tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("bridge_jax.parallel.hosts.is_first", lambda: False)
    made = rendering(tiny_tokenizer, folder=tmp_path / "cache")
    assert list(made.prompts(EXAMPLES, "d", "reason"))
    assert not (tmp_path / "cache").exists()


def test_without_key_digest_or_folder_nothing_is_written(tiny_tokenizer, tmp_path):
    folder = tmp_path / "cache"
    rendering(tiny_tokenizer, folder=folder, key="").prompts(EXAMPLES, "d", "reason")
    rendering(tiny_tokenizer, folder=folder).prompts(EXAMPLES, "", "reason")
    rendering(tiny_tokenizer).prompts(EXAMPLES, "d", "reason")
    assert not folder.exists()


def test_an_error_leaves_nothing(tiny_tokenizer, tmp_path):
    with pytest.raises(UserError, match="max_prompt_tokens is 3"):
        rendering(tiny_tokenizer, folder=tmp_path, max_prompt_tokens=3).prompts(
            EXAMPLES, "d", "reason"
        )
    assert list(tmp_path.iterdir()) == []
