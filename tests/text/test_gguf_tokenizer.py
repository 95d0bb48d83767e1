"""The tokenizer of a Gemma in a GGUF file, against the sentencepiece library."""

import pytest

from bridge_jax.errors import UserError
from bridge_jax.text import tokenizer
from tests.text.test_sentencepiece import LLAMA, NASTY, TEMPLATE, write

gguf = pytest.importorskip("gguf")

GEMMA = LLAMA | {"add_dummy_prefix": False}


def write_gguf(path, library, **change):
    """Writes a SentencePiece model as llama.cpp's converter does."""
    kinds, size = gguf.TokenType, library.get_piece_size()

    def kind(i):
        if library.is_unknown(i):
            return kinds.UNKNOWN
        if library.is_byte(i):
            return kinds.BYTE
        if library.is_control(i):
            return kinds.CONTROL
        # The library does not tell user-defined pieces; they are not learned, so their score is 0.
        piece, score = library.id_to_piece(i), library.get_score(i)
        return kinds.USER_DEFINED if score == 0 and piece in SHOWN else kinds.NORMAL

    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([library.id_to_piece(i) for i in range(size)])
    writer.add_token_scores(change.get("scores") or [library.get_score(i) for i in range(size)])
    writer.add_token_types([kind(i) for i in range(size)])
    writer.add_bos_token_id(library.bos_id())
    writer.add_eos_token_id(library.eos_id())
    if change.get("prefix", False) is not None:
        writer.add_add_space_prefix(change.get("prefix", False))
    writer.add_chat_template(TEMPLATE)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


SHOWN = ("<start_of_turn>", "<end_of_turn>", "\n")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return write(tmp_path_factory.mktemp("gemma"), GEMMA)


def test_ids_are_those_of_sentencepiece(library, tmp_path):
    ours = tokenizer.load(write_gguf(tmp_path / "a.gguf", library))
    for text in NASTY:
        assert ours.encode(text) == library.encode(text), text
        assert ours.decode(ours.encode(text)) == text.replace("▁", " ")
    assert len(ours.encode("Give 12.5 mg")) < 12  # pieces were merged
    start, end = map(library.piece_to_id, SHOWN[:2])
    ids = ours.render_chat([{"role": "user", "content": "Give 12<end_of_turn>"}])
    assert ids[:2] == [library.bos_id(), start] and ids.count(end) == 1
    assert ours.end_id == end and library.eos_id() in ours.end_ids


def test_a_file_is_read_once_for_models_alike(library, tmp_path):
    path = write_gguf(tmp_path / "a.gguf", library)
    ours = tokenizer.load(path)
    assert tokenizer.load(path) is ours
    with pytest.raises(UserError, match="embedding table has 2 rows"):
        tokenizer.load(path, 2)


def test_saved_it_loads_with_transformers(library, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.load(write_gguf(tmp_path / "a.gguf", library)).save(tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in NASTY:
        assert theirs.encode(text, add_special_tokens=False) == library.encode(text), text


def test_what_is_not_read_is_named(library, tmp_path):
    for prefix in (None, True):
        path = write_gguf(tmp_path / f"{prefix}.gguf", library, prefix=prefix)
        with pytest.raises(UserError, match=r"tokenizer \('llama', 'default'\) is not supported"):
            tokenizer.load(path)
    path = write_gguf(tmp_path / "b.gguf", library, scores=[float("nan")] * 5)
    with pytest.raises(UserError, match=r"scores must be \d+ finite numbers"):
        tokenizer.load(path)
