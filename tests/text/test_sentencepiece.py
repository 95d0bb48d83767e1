import io
import json
import sys

import pytest

from bridge_jax.errors import UserError
from bridge_jax.text import tokenizer
from tests.text.test_markers import (  # noqa: F401 - they run here with the fixture `ours` below
    MARKERS,
    marks,
    test_a_question_opens_no_turn,
    test_half_a_surrogate_pair_is_a_replacement_character,
    test_no_marker_comes_of_a_content,
    test_ordinary_text_beside_a_marker_has_the_ids_that_it_has_alone,
)
from tests.text.test_markers import TEMPLATE as CHATML

NASTY = [
    "",
    " ",
    "\n",
    "  two  spaces ",
    "Give 12.5 mg, 1048576 times",
    "naïve café 東京",
    "e\u0301 ﬁ ½ Ⅷ",
    "🙂👩‍👩‍👧 \u200d\ufeff",
    "a\n\n\tb\r\n",
    "\x00\x07",
    "▁ ⁇ <0x41> <s",
    "x" * 2000,
]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
    "{{ message['content'] }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
CORPUS = [
    "Give 12.5 mg, twice a day. The nurse counts 7 boxes of 12 pens.",
    "naïve café 東京, and more words about medicine and law",
    "Answer the user's question with a number between 0 and 99.",
] * 20
# As Gemma, as Llama 2 and as the trainer's defaults.
GEMMA = {
    "model_type": "unigram",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "normalization_rule_name": "identity",
}
LLAMA = GEMMA | {"model_type": "bpe", "add_dummy_prefix": True}
KINDS = {"gemma": GEMMA, "llama": LLAMA, "default": {"model_type": "unigram"}}


def write(folder, settings, **config):
    """Trains a model into `folder`; returns the sentencepiece library's reader of it."""
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("tensorflow_text")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=360,
        hard_vocab_limit=False,
        byte_fallback=True,
        split_digits=True,
        user_defined_symbols=["<start_of_turn>", "<end_of_turn>", "\n"],
        control_symbols=["[INST]"],
        minloglevel=2,
        **settings,
    )
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    config = {"chat_template": TEMPLATE} | config
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """(ours, the sentencepiece library) by kind."""
    root = tmp_path_factory.mktemp("sentencepiece")
    library = {kind: write(root / kind, settings) for kind, settings in KINDS.items()}
    return {kind: (tokenizer.load(root / kind), library[kind]) for kind in KINDS}


@pytest.fixture(scope="module", params=KINDS)
def ours(request, tmp_path_factory):
    """A tokenizer with markers in the model, and more that Hugging Face's config adds."""
    folder = tmp_path_factory.mktemp("markers")
    added = {
        str(400 + n): {"content": m, "special": n < 2, "lstrip": m == "<|left|>"}
        for n, m in enumerate(MARKERS)
    }
    write(folder, KINDS[request.param], chat_template=CHATML, added_tokens_decoder=added)
    return tokenizer.load(folder)


def test_a_full_width_marker_is_normalized_and_read_as_text(tmp_path):
    write(tmp_path, KINDS["default"])
    ours = tokenizer.load(tmp_path)
    ids = ours.encode("x ＜end_of_turn＞ y")
    assert marks(ours, ids) == []
    assert ours.decode(ids) == "x <end_of_turn> y"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", NASTY)
def test_ids_are_those_of_sentencepiece(kinds, kind, text):
    ours, library = kinds[kind]
    ids = ours.encode(text)
    assert ids == library.encode(text)
    assert ours.decode(ids) == library.decode(ids)


@pytest.mark.parametrize("kind", ["gemma", "llama"])
@pytest.mark.parametrize("text", [t for t in NASTY if "▁" not in t])
def test_round_trip(kinds, kind, text):
    ours, _ = kinds[kind]
    assert ours.decode(ours.encode(text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_control_symbols_of_a_template_are_single_ids_and_are_not_shown(kinds, kind, tmp_path):
    _, library = kinds[kind]
    inst, bos, eos = map(library.piece_to_id, ("[INST]", "<s>", "</s>"))
    template = (
        "<s>[INST] {{ messages[0].content }}</s>{% for m in messages[1:] %}{{ m.content }}"
        "</s>{% endfor %}"
    )
    write(tmp_path, KINDS[kind], chat_template=template)
    ours = tokenizer.load(tmp_path)
    chat = [{"role": "system", "content": "Give 12"}, {"role": "user", "content": "mg"}]
    expected = [bos, inst, *library.encode(" Give 12"), eos, *library.encode("mg"), eos]
    assert ours.render_chat(chat) == expected
    assert ours.decode([bos, inst, *library.encode("mg"), eos, 10**6]) == "mg"


def test_a_chat(kinds):
    ours, library = kinds["gemma"]
    start, end, newline = map(library.piece_to_id, ("<start_of_turn>", "<end_of_turn>", "\n"))
    assert ours.render_chat([{"role": "user", "content": "Give 12 mg"}]) == [
        *(library.bos_id(), start, *library.encode("user"), newline),
        *(*library.encode("Give 12 mg"), end, newline),
        *(start, *library.encode("model"), newline),
    ]
    assert (ours.end_id, ours.pad_id) == (end, end)  # not </s>, which the template never writes


def test_tokens_of_the_config(tmp_path):
    added = {
        "400": {"content": "<|end|>", "special": True, "rstrip": True},
        "401": {"content": "<tool>", "special": False},
        "402": {"content": "<pad!>", "special": True},
    }
    template = (
        "{% for m in messages %}{{ m['content'] }}\n"
        "<|end|> \n12<tool> mg{{ eos_token }}{% endfor %}"
    )
    library = write(
        tmp_path,
        GEMMA,
        chat_template=[
            {"name": "other", "template": ""},
            {"name": "default", "template": template},
        ],
        added_tokens_decoder=added,
        pad_token={"content": "<pad!>"},
    )
    ours = tokenizer.load(tmp_path)
    # A newline is a user-defined symbol of the model, but not what ends a turn.
    assert (ours.end_id, ours.pad_id) == (400, 402)
    ids = ours.render_chat([{"role": "user", "content": "Give"}])
    give, twelve, mg = map(library.encode, ("Give\n", "12", " mg"))
    assert ids == [*give, 400, *twelve, 401, *mg, library.eos_id()]
    assert ours.decode(ids) == "Give\n12<tool> mg"


def test_end_is_eos_where_the_template_writes_no_marker(tmp_path):
    library = write(tmp_path, LLAMA, chat_template="{{ messages[-1]['content'] }}\n")
    assert tokenizer.load(tmp_path).end_id == library.eos_id() == 2
    write(tmp_path, LLAMA, chat_template="{{ messages[-1]['content'] }}", eos_token="[INST]")
    assert tokenizer.load(tmp_path).end_id == library.piece_to_id("[INST]")


def test_template_file_is_preferred_and_saved(tmp_path):
    from google.protobuf.runtime_version import VersionError
    from transformers import AutoTokenizer
    from transformers.convert_slow_tokenizer import import_protobuf

    write(tmp_path / "a", LLAMA, tokenizer_class="LlamaTokenizer", legacy=True)
    (tmp_path / "a" / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0].content }}")
    first = tokenizer.load(tmp_path / "a")
    first.save(tmp_path / "b" / "c")
    second = tokenizer.load(tmp_path / "b" / "c")
    chat = [{"role": "user", "content": "Give 12"}]
    assert first.render_chat(chat) == second.render_chat(chat) == [1, *first.encode("Give 12")]
    try:
        import_protobuf()
    except VersionError as error:
        pytest.skip(f"transformers cannot read SentencePiece here: {error}")
    saved = AutoTokenizer.from_pretrained(tmp_path / "b" / "c")
    for text in ("Give 12.5 mg, naïve 東京 🙂", "a  b</s>c[INST]d\n"):
        assert saved.encode(text, add_special_tokens=False) == first.encode(text)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.97])
def test_a_file_that_is_not_whole(tmp_path, share):
    write(tmp_path, GEMMA)
    path = tmp_path / "tokenizer.model"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=r"tokenizer\.model: truncated or not a SentencePiece file"):
        tokenizer.load(tmp_path)


def test_a_file_of_another_kind(tmp_path):
    write(tmp_path, GEMMA)
    (tmp_path / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")  # tiktoken's, as Llama 3 has
    with pytest.raises(UserError, match="truncated or not a SentencePiece file"):
        tokenizer.load(tmp_path)


def test_a_model_without_template(tmp_path):
    write(tmp_path, GEMMA, chat_template=None)
    with pytest.raises(UserError, match="no chat template"):
        tokenizer.load(tmp_path)


def test_without_the_library_the_error_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "tokenizer.model").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    with pytest.raises(UserError, match=r"pip install 'bridge-jax\[tf-text\]'"):
        tokenizer.load(tmp_path)
