import dataclasses
import json
import shutil

import pytest

from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.models.hub import gguf_file
from bridge_jax.text import prompts, tokenizer

EXAMPLE = Example("e1", "How many pens are in 7 boxes of 12?", "84", "numeric")


@pytest.fixture(scope="module")
def smollm2():
    try:
        return tokenizer.load(gguf_file.bundled_smollm2())
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    "text", ["Give 12.5 mg, twice.\n\tThen stop", "naïve café 東京 🙂", " a  b "]
)
def test_round_trip(smollm2, tiny_tokenizer, text):
    assert smollm2.decode(smollm2.encode(text)) == text
    assert tiny_tokenizer.decode(tiny_tokenizer.encode(text)) == text


def test_digits_are_single_tokens(smollm2):
    assert smollm2.encode("1234") == [33, 34, 35, 36]
    assert [smollm2.decode([i]) for i in smollm2.encode("2051")] == ["2", "0", "5", "1"]


def test_special_tokens_are_not_shown(smollm2):
    assert (smollm2.end_id, smollm2.pad_id) == (2, 2)
    assert smollm2.decode([1, *smollm2.encode("a"), 2]) == "a"


def test_chat_of_the_gguf_template(smollm2):
    chat = smollm2.render_chat(prompts.messages(EXAMPLE, "answer"))
    newline = smollm2.encode("\n")
    parts = ["system\nWrite only the answer.", "user\nHow many pens are in 7 boxes of 12?"]
    expected = [i for part in parts for i in [1, *smollm2.encode(part), 2, *newline]]
    assert chat == [*expected, 1, *smollm2.encode("assistant\n")]


def test_vocabulary_and_merges_without_a_tokenizer_json(checkpoint, tiny_tokenizer, tmp_path):
    model = json.loads((checkpoint / "tokenizer.json").read_text())["model"]
    settings = json.loads((checkpoint / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "Qwen2Tokenizer"
    for name, text in {
        "vocab.json": json.dumps(model["vocab"]),
        "merges.txt": "\n".join(" ".join(pair) for pair in model["merges"]),
        "tokenizer_config.json": json.dumps(settings),
        "config.json": json.dumps({"model_type": "qwen2"}),
        "chat_template.jinja": (checkpoint / "chat_template.jinja").read_text(),
    }.items():
        (tmp_path / name).write_text(text)
    found = tokenizer.load(tmp_path)
    assert found.encode("Hello 12 there") == tiny_tokenizer.encode("Hello 12 there")
    assert (found.end_id, found.pad_id) == (tiny_tokenizer.end_id, tiny_tokenizer.pad_id)


def test_a_tokenizer_without_template(checkpoint, tmp_path):
    from transformers import AutoTokenizer

    fast = AutoTokenizer.from_pretrained(checkpoint)
    fast.chat_template = None
    fast.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no chat template"):
        tokenizer.load(tmp_path)


def test_training_sequence_keeps_the_parts_apart(tiny_tokenizer):
    tok = tiny_tokenizer
    sequence = prompts.training_sequence(tok, [7, 8], "7 boxes of 12 are 84.", "84")
    assert sequence.prompt == [7, 8]
    assert "7 boxes of 12 are 84." in tok.decode(sequence.rationale)
    assert "84" in tok.decode(sequence.answer) and sequence.answer[-1] == tok.end_id
    assert sequence.length == 2 + len(sequence.rationale) + len(sequence.answer)
    direct = prompts.training_sequence(tok, [7, 8], None, "84")
    assert direct.rationale == []
    assert tok.decode(direct.answer) == tok.decode(sequence.answer).lstrip()


def test_long_prompt_is_an_error_that_names_the_way_out(tiny_tokenizer):
    with pytest.raises(UserError, match=r"'e1'.*max_prompt_tokens is 60.*on_long_prompt"):
        prompts.render_prompt(tiny_tokenizer, EXAMPLE, "reason", 60, "error")
    # Cutting the question is no way out where there is no room for any of it.
    with pytest.raises(UserError, match=r"51 tokens besides .* max_prompt_tokens is 20; raise it$"):
        prompts.render_prompt(tiny_tokenizer, EXAMPLE, "reason", 20, "error")


def test_truncation_cuts_the_beginning_of_the_question(tiny_tokenizer):
    long = dataclasses.replace(EXAMPLE, question="Lorem ipsum. " * 40 + EXAMPLE.question)
    ids = prompts.render_prompt(tiny_tokenizer, long, "reason", 100, "cut_beginning")
    assert 80 < len(ids) <= 100
    text = tiny_tokenizer.decode(ids)
    assert EXAMPLE.question in text and prompts.INSTRUCTIONS["reason"] in text
    empty = dataclasses.replace(long, question="")
    rest = len(tiny_tokenizer.render_chat(prompts.messages(empty, "reason")))
    assert rest > 10
    with pytest.raises(UserError, match=f"needs {rest} tokens besides the question"):
        prompts.render_prompt(tiny_tokenizer, long, "reason", 10, "cut_beginning")


@pytest.mark.parametrize("how", ["cut_end", "cut_beginning", "cut_middle"])
def test_each_way_of_cutting_keeps_the_rest_of_the_question(tiny_tokenizer, how):
    first, last = "Begin at the gate. ", " End at the mill."
    middle = "Ünder 你好 👋 skies. " * 60  # A cut may go through a character of several tokens.
    long = dataclasses.replace(EXAMPLE, question=first + middle + last)
    empty = dataclasses.replace(long, question="")
    rest = len(tiny_tokenizer.render_chat(prompts.messages(empty, "reason")))
    for most in range(rest + 70, rest + 90):
        ids = prompts.render_prompt(tiny_tokenizer, long, "reason", most, how)
        assert most - 20 < len(ids) <= most
        text = tiny_tokenizer.decode(ids)
        assert (first in text) == (how != "cut_beginning")
        assert (last in text) == (how != "cut_end")
        assert (" … " in text) == (how == "cut_middle") and "\ufffd" not in text
        assert prompts.INSTRUCTIONS["reason"] in text


def test_a_prompt_that_fits_is_left_alone(tiny_tokenizer):
    ids = prompts.render_prompt(tiny_tokenizer, EXAMPLE, "reason", 200, "error")
    assert ids == tiny_tokenizer.render_chat(prompts.messages(EXAMPLE, "reason"))


def test_a_prompt_does_not_depend_on_the_day(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "copy")
    dated = "{% if not date_string %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    file = folder / "chat_template.jinja"
    file.write_text(dated + "{{ date_string }} " + file.read_text())
    tok = tokenizer.load(folder)
    text = tok.decode(tok.render_chat([{"role": "user", "content": "Hello"}]))
    assert text.startswith("26 Jul 2024")


def test_a_folder_without_a_tokenizer_is_an_error(checkpoint, tmp_path):
    shutil.copy(checkpoint / "config.json", tmp_path)
    with pytest.raises(UserError, match=r"has no readable tokenizer"):
        tokenizer.load(tmp_path)
