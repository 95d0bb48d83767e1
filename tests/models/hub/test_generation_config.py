"""Where texts end, as a checkpoint's configs say it."""

import json

import pytest

from bridge_jax.errors import UserError
from bridge_jax.models.hub.export import write_generation_config
from bridge_jax.models.hub.files import read_end_ids
from tests.text.test_tokenizer_kinds import byte_level_bpe


def written(folder, config, generation=None):
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | config))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


@pytest.mark.parametrize(
    "config, generation, expected",
    [
        ({}, None, []),
        ({"eos_token_id": 5}, None, [5]),
        ({"eos_token_id": None}, {"eos_token_id": [7, 5]}, [7, 5]),
        ({"eos_token_id": 5}, {"eos_token_id": [7, 5]}, [5, 7]),
        ({"eos_token_id": [5, 7]}, {"max_length": 4}, [5, 7]),
        ({"eos_token_id": [99, 0]}, {"eos_token_id": 0}, [99, 0]),
    ],
)
def test_every_end_token_once(tmp_path, config, generation, expected):
    assert read_end_ids(written(tmp_path, config, generation), 100) == expected


@pytest.mark.parametrize("bad", [100, -1, "5", 5.0, True, [5, [7]], {"a": 1}, [5, 151_645]])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_what_is_no_token_is_an_error_that_names_file_and_value(tmp_path, bad, name):
    folder = written(tmp_path, {}, {})
    (folder / name).write_text(json.dumps({"model_type": "llama", "eos_token_id": bad}))
    # The config.json is checked as a whole when it is read.
    message = r"is not a token of the model, .* 100 rows|must be a token id, or a list of them"
    with pytest.raises(UserError, match=message) as error:
        read_end_ids(folder, 100)
    assert f"{folder / name}: eos_token_id=" in str(error.value)


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', "[" * 100_000])
def test_a_broken_file(tmp_path, text):
    folder = written(tmp_path, {})
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(UserError, match=r"generation_config.json: (not JSON|expected a JSON)"):
        read_end_ids(folder, 100)


def test_a_gguf_file_ends_turns_and_texts(tmp_path):
    gguf = pytest.importorskip("gguf")
    tokens = byte_level_bpe("qwen2").get_vocab()
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_token_list(sorted(tokens, key=lambda token: tokens[token]))
    writer.add_eos_token_id(3)
    writer.add_eot_token_id(9)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_end_ids(tmp_path / "a.gguf", 100) == [3, 9]
    with pytest.raises(UserError, match="eot_token_id=9: 9 is not a token"):
        read_end_ids(tmp_path / "a.gguf", 9)


def test_all_end_tokens_are_written_back(tmp_path):
    write_generation_config(tmp_path, {"bos_token_id": 1, "eos_token_id": 5}, (7, 5, 9), 0)
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {
        "bos_token_id": 1,
        "eos_token_id": [7, 5, 9],
        "pad_token_id": 0,
        "do_sample": False,
    }
    written(tmp_path, {"eos_token_id": 5})
    assert read_end_ids(tmp_path, 100) == [5, 7, 9]
