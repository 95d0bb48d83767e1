"""Many texts at once have the ids that each has alone, for every kind of tokenizer.

The tests that take `ours` run for SentencePiece too, below.
"""

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from bridge_jax.text import markers, tokenizer
from tests.text.test_markers import (  # noqa: F401 - `ours` is a fixture
    BACKENDS,
    HOSTILE,
    MARKERS,
    TEMPLATE,
    byte_level,
    llama,
    ours,
    unigram,
)
from tests.text.test_markers import hf as hf_with_greedy_markers
from tests.text.test_sentencepiece import KINDS, write

PIECES = [
    *MARKERS,
    *HOSTILE,
    *("<eos>", "<end_of_turn>", "<start_of_turn>", "[INST]", "<|IM_END|>", "<|im_", "end|>", "im"),
    *("\ud83d", "\ude42", "\ue000", "\ue001", "\uf8ff", "\U000f0000", "\x00", "\u2028"),
    *("", " ", "\n", "\n\n", "\t", "x", "mg", "Give 12.5 mg,  twice.", "東京 🙂", "▁", "|>", "<"),
]
text = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=5).map("".join)
# Few system messages, so that chats begin alike.
chats = st.tuples(st.lists(text, min_size=1, max_size=2), st.lists(text, max_size=5)).map(
    lambda drawn: [
        [{"role": "system", "content": system}, {"role": "user", "content": question}]
        for system in drawn[0]
        for question in drawn[1]
    ]
)
often = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

# As Llama 2, Gemma without a system message of its own, and one that trims.
TEMPLATES = {
    "chat": TEMPLATE,
    "merged": "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}"
    "{% endif %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}",
    "trimmed": "{% for m in messages %}{{ m.content | trim }}<|im_end|>{% endfor %}",
    "without markers": "{% for m in messages %}{{ m.content }}\n{% endfor %}",
}


def hf(backend, template=TEMPLATE, more=()):
    """Our tokenizer over this one, with markers before which texts may be cut."""
    backend.add_special_tokens([*MARKERS[:2], "<|im_start|>user", "<eos>", *more])
    backend.add_tokens([tokenizers.AddedToken("<|right|>", rstrip=True, normalized=False), "mg"])
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")
    fast.chat_template = template
    return tokenizer.HFTokenizer(fast)


def compare(ours, chats, texts):  # noqa: F811
    assert ours.render_all(chats) == [ours.render_chat(chat) for chat in chats]
    assert ours.encode_all(texts) == [ours.encode(text) for text in texts]


@given(chats=chats, texts=st.lists(text, max_size=4))
@often
def test_ids_of_many_are_those_of_each(ours, chats, texts):  # noqa: F811
    compare(ours, chats, texts)


@pytest.fixture(scope="module", params=[*BACKENDS, "crossed"])
def cut(request):
    if request.param == "crossed":
        return hf(byte_level("qwen2"), more=["\n<|im"])
    return hf(BACKENDS[request.param]())


@pytest.fixture(scope="module", params=TEMPLATES)
def templated(request):
    return hf(byte_level("qwen2"), TEMPLATES[request.param])


@given(chats=chats, texts=st.lists(text, max_size=4))
@often
def test_ids_of_many_where_texts_are_cut(cut, chats, texts):
    assert "<|im_start|>" in cut._cuts
    compare(cut, chats, texts)


@given(chats=chats)
@often
def test_ids_of_many_for_other_templates(templated, chats):
    compare(templated, chats, [])


@pytest.fixture(scope="module", params=KINDS)
def pieces(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pieces")
    added = {
        str(400 + n): {"content": m, "special": n < 2, "lstrip": n == 3, "rstrip": n == 4}
        for n, m in enumerate(MARKERS)
    }
    write(folder, KINDS[request.param], chat_template=TEMPLATE, added_tokens_decoder=added)
    return tokenizer.load(folder)


@given(chats=chats, texts=st.lists(text, max_size=4))
@often
def test_ids_of_many_of_sentencepiece(pieces, chats, texts):
    compare(pieces, chats, texts)


@pytest.mark.parametrize("make", [lambda: byte_level("qwen2"), unigram, llama])
def test_what_chats_share_is_read_once(make, monkeypatch):
    ours = hf(make())  # noqa: F811
    system = {"role": "system", "content": "Be brief."}
    chats = [[system, {"role": "user", "content": f"Give {n}"}] for n in range(50)]
    expected = [ours.render_chat(chat) for chat in chats]
    texts, read = [], ours._read_texts
    monkeypatch.setattr(ours, "_read_texts", lambda given: texts.extend(given) or read(given))
    assert ours.render_all(chats) == expected
    assert sum("Be brief." in text for text in texts) == 2  # To read it, and to compare.


def test_there_is_no_cut_where_a_token_looks_around():
    for flags in ({"lstrip": True}, {"single_word": True}):
        token = tokenizers.AddedToken("<x>", normalized=False, **flags)
        plain = tokenizers.AddedToken("<y>", normalized=False)
        assert markers.cuts([token, plain], lambda t: True) == ()
    assert hf_with_greedy_markers(byte_level("qwen2"))._cuts == ()


def test_there_is_no_cut_before_words_or_what_is_read_after_normalizing():
    tokens = [
        tokenizers.AddedToken(content, normalized=normalized)
        for content, normalized in (("<y>", False), ("word", False), (" <z>", False), ("<n>", True))
    ]
    assert markers.cuts(tokens, lambda t: True) == ("<y>",)
    assert markers.cuts(tokens, lambda t: t.content != "<y>") == ()


@pytest.mark.parametrize("token", ["\n<|im_", "\n<|im_start|>u", "\n<|im_start|>user\nG"])
def test_an_added_token_that_reaches_over_a_cut_changes_no_id(token):
    ours = hf(byte_level("qwen2"), more=[token])  # noqa: F811
    system = {"role": "system", "content": "Be brief."}
    asked = [{"role": "user", "content": text} for text in ("Give", "Go", "give", "12", "")]
    compare(ours, [[system, question] for question in asked], [])
    compare(ours, [[system, question] for question in reversed(asked)], [])


def test_a_reader_that_reads_a_rest_otherwise_is_not_cut():
    """The comparison that is made in case a version of the library should do so."""

    def read(texts):
        return [([len(text)], []) for text in texts]

    items = [(f"system<y>user {n}", [(13, 14 + n // 10)]) for n in range(20)]
    assert markers.read_all(items, read, ["<y>"]) == read([text for text, _ in items])
