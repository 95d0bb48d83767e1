"""Tokenizers of other families than the tiny model's."""

import json

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import Qwen2Converter, TikTokenConverter

from bridge_jax.errors import UserError
from bridge_jax.text import tokenizer

NASTY = [
    "",
    "   two  spaces  ",
    "Give 12.5 mg, 1048576 times; IT'S we'LL they've",
    "e\u0301 naïve café ﬁ ½ Ⅷ ²",
    "東京 🙂👩‍👩‍👧 \u200d\ufeff\u00a0x",
    "a\n\n\tb\r\n  \n",
    "!!!\n\n?? --x_1 (y)",
    "\x00\x07",
    "Ġ Ċ abcabc",
]
CORPUS = [
    "Give 12.5 mg, it's 1048576 times 2048.\n\n",
    "naïve café 東京 we'll  see;\n",
    "aabbcc",
] * 9
SPECIAL, SHOWN = ["<bos>", "<eos>", "<|im_start|>", "<|im_end|>"], ["<tool_call>"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>\n{% endfor %}"
)
CHAT = [{"role": "user", "content": "Give 12"}]


def rules(pre):
    """Returns (pre-tokenizer, normalizer, ignore_merges) of a family, by transformers' account."""
    if pre == "qwen2":
        qwen = Qwen2Converter(None).converted({"a": 0, "b": 1, "ab": 2}, [("a", "b")])
        return qwen.pre_tokenizer, qwen.normalizer, False
    cut = pre_tokenizers.Split(tokenizers.Regex(TikTokenConverter().pattern), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([cut, byte_level]), None, True


def byte_level_bpe(pre):
    """Trains a tokenizer; its word "abcabc" is no merge's."""
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer, normalizer, ignore_merges = rules(pre)
    if normalizer:
        bpe.normalizer = normalizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(CORPUS, trainer)
    trained = json.loads(bpe.to_str())["model"]
    vocabulary = {**trained["vocab"], "abcabc": len(trained["vocab"])}
    merges = [tuple(merge) for merge in trained["merges"]]
    bpe.model = models.BPE(vocabulary, merges, ignore_merges=ignore_merges)
    bpe.add_special_tokens(SPECIAL)
    bpe.add_tokens(SHOWN)
    return bpe


def write_gguf(path, bpe, pre, template=TEMPLATE):
    gguf = pytest.importorskip("gguf")
    ids = bpe.get_vocab()
    tokens = sorted(ids, key=lambda token: ids[token])
    kinds = gguf.TokenType
    types = [
        kinds.CONTROL if t in SPECIAL else kinds.USER_DEFINED if t in SHOWN else kinds.NORMAL
        for t in tokens
    ]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(m) for m in json.loads(bpe.to_str())["model"]["merges"]])
    writer.add_bos_token_id(ids["<bos>"])
    writer.add_eos_token_id(ids["<eos>"])
    if template:
        writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def hf(template, **named):
    """Our tokenizer over a Qwen-like one with this chat template."""
    named = {"bos_token": "<bos>", "eos_token": "<eos>"} | named
    fast = PreTrainedTokenizerFast(tokenizer_object=byte_level_bpe("qwen2"), **named)
    fast.chat_template = template
    return tokenizer.HFTokenizer(fast)


@pytest.mark.parametrize("pre", ["qwen2", "llama-bpe"])
def test_gguf_ids_are_those_of_the_family(tmp_path, pre):
    library = byte_level_bpe(pre)
    ours = tokenizer.load(write_gguf(tmp_path / "a.gguf", library, pre))
    for text in NASTY:
        assert ours.encode(text) == library.encode(text, add_special_tokens=False).ids
    marked = library.encode("café 12<|im_end|><tool_call>\n", add_special_tokens=False).ids
    assert ours.decode(marked) == "café 12<tool_call>\n"
    digits = [ours.decode([i]) for i in ours.encode("1048576")]
    assert all(len(d) <= (3 if pre == "llama-bpe" else 1) for d in digits)
    assert (len(ours.encode("abcabc")) == 1) == (pre == "llama-bpe")
    bos, start, end, newline = map(library.token_to_id, ("<bos>", *SPECIAL[2:], "Ċ"))
    # The template writes the bos of the file's header and ends a turn with another token than eos.
    assert ours.render_chat(CHAT) == [bos, start, *ours.encode("Give 12"), end, newline]
    assert (ours.end_id, ours.pad_id) == (end, end)


def test_gguf_of_an_unknown_kind(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", byte_level_bpe("qwen2"), "falcon")
    with pytest.raises(UserError, match=r"tokenizer \('gpt2', 'falcon'\) is not supported"):
        tokenizer.load(path)


def test_gguf_without_template(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", byte_level_bpe("qwen2"), "qwen2", template=None)
    with pytest.raises(UserError, match="no chat template"):
        tokenizer.load(path)


@pytest.mark.parametrize(
    "after, token",
    [
        ("<|im_end|>\n<eos>", "<|im_end|>"),
        (" <eos>", "<eos>"),
        ("</tool_call> \n<tool_call>", "<tool_call>"),  # not marked as special, yet a marker
        ("\n", "<eos>"),
        ("{{ raise_exception('never an answer') }}", "<eos>"),
    ],
)
def test_end_of_turn(after, token):
    answer = (
        "{% if m['role'] == 'assistant' %}<|im_start|>{{ m['content'] }}" + after + "{% endif %}"
    )
    ours = hf("{% for m in messages %}" + answer + "{% endfor %}")
    assert ours.name(ours.end_id) == token
    assert ours.decode([*ours.encode("Give"), ours.end_id]) == "Give"


def test_no_token_ends_a_turn():
    with pytest.raises(UserError, match="no token that ends a turn"):
        hf("{{ messages[-1]['content'] }}", eos_token=None)


def test_a_system_message_heads_the_users_where_the_template_refuses_it():
    strict = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}" + TEMPLATE
    )
    system = {"role": "system", "content": "Be brief."}
    merged = {"role": "user", "content": "Be brief.\n\nGive 12"}
    assert hf(strict).render_chat([system, *CHAT]) == hf(TEMPLATE).render_chat([merged])
    with pytest.raises(UserError, match="rejects the messages: System role not supported"):
        hf(strict).render_chat([system])


# transformers reads a qwen2 model's tokenizer with Qwen's rules, whatever its tokenizer.json says.
@pytest.mark.parametrize(
    "pre, model_type",
    [("qwen2", None), ("qwen2", "qwen2"), ("llama-bpe", None), ("llama-bpe", "llama")],
)
def test_saved_gguf_tokenizer_loads_with_transformers(tmp_path, pre, model_type):
    ours = tokenizer.load(write_gguf(tmp_path / "a.gguf", byte_level_bpe(pre), pre))
    check_saved(ours, tmp_path / "saved", model_type)


def test_saved_tokenizer_loads_with_transformers(tmp_path, tiny_tokenizer):
    check_saved(tiny_tokenizer, tmp_path / "saved", "llama")


def test_a_saved_tokenizer_has_the_keys_that_transformers_4_reads(tmp_path, tiny_tokenizer):
    """4.57 raises for a list under `extra_special_tokens`, which 5 writes; 5 reads both."""
    tiny_tokenizer.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert "extra_special_tokens" not in config
    assert config["additional_special_tokens"] == ["<|im_start|>"]
    saved = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert saved.convert_ids_to_tokens([0, 1, 2]) == ["<|im_start|>", "<|im_end|>", "<|pad|>"]
    assert {0, 1, 2} <= set(saved.all_special_ids)


def test_the_ends_of_the_config_end_as_well(tmp_path):
    fast = PreTrainedTokenizerFast(tokenizer_object=byte_level_bpe("qwen2"), eos_token="<eos>")
    fast.chat_template = TEMPLATE
    ids = {token: i for i, token in fast.added_tokens_decoder.items() for token in [token.content]}
    ours = tokenizer.HFTokenizer(fast, None, [ids["<tool_call>"], ids["<eos>"]])
    assert ours.end_id == ids["<|im_end|>"]
    assert ours.end_ids == (ids["<|im_end|>"], *sorted((ids["<eos>"], ids["<tool_call>"])))
    assert ours.decode([*ours.encode("Give"), *ours.end_ids]) == "Give"


def test_a_word_that_ends_texts_never_comes_of_one():
    backend = byte_level_bpe("qwen2")
    backend.add_tokens(["END"])
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")
    fast.chat_template = TEMPLATE
    end = fast.convert_tokens_to_ids("END")
    assert end in tokenizer.HFTokenizer(fast).encode("THE END")
    assert end not in tokenizer.HFTokenizer(fast, None, [end]).encode("THE END")


def test_ends_and_pad_have_a_row_in_the_table():
    name = "<{}>".format
    assert tokenizer.settle(3, [9, None, 1, 3, 8], 8, 9, name) == ((3, 1, 8), 8, [])
    assert tokenizer.settle(3, [], None, 9, name) == ((3,), 3, [])
    assert tokenizer.settle(3, [70], 80, None, name) == ((3, 70), 80, [])
    for pad in (9, -1):
        ends = tokenizer.settle(3, [], pad, 9, name)
        assert ends.pad_id == 3
        assert ends.notes == [
            f"the pad token '<{pad}>' has id {pad}, but the embedding table has 9 rows; "
            "'<3>' pads instead"
        ]
    with pytest.raises(UserError, match=r"'<9>', has id 9, but .* has 9 rows"):
        tokenizer.settle(9, [], 2, 9, name)


def check_saved(ours, folder, model_type):
    folder.mkdir()
    if model_type:  # as beside an exported model
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    ours.save(folder)
    saved, again = AutoTokenizer.from_pretrained(folder), tokenizer.load(folder)
    for text in NASTY:
        assert saved.encode(text, add_special_tokens=False) == ours.encode(text)
        assert again.encode(text) == ours.encode(text)
    text = saved.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False)
    assert saved.encode(text, add_special_tokens=False) == ours.render_chat(CHAT)
    assert (again.end_id, again.pad_id) == (ours.end_id, ours.pad_id)
