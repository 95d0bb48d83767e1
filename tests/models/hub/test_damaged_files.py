"""Damaged and hostile checkpoints load, or are errors that name the file; nothing else."""

import json
import random
import shutil
import struct
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bridge_jax.config import ModelConfig
from bridge_jax.errors import UserError
from bridge_jax.models.hub import checkpoint as checkpoints
from bridge_jax.models.hub import export
from bridge_jax.models.hub.families import FAMILIES
from bridge_jax.models.hub.gguf_file import GGUFFile, parse_header
from bridge_jax.models.hub.hf_config import KINDS
from bridge_jax.text import tokenizer
from tests import tiny
from tests.models.hub.tiny_gguf import write_changed, write_gguf

gguf = pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model as small as one can be, as a folder."""
    folder = tmp_path_factory.mktemp("base") / "folder"
    return tiny.write_checkpoint(folder, layers=2, dim=8, heads=2, kv_heads=1, head_dim=4, mlp=8)


@pytest.fixture(scope="module")
def whole(base):
    """The same model as the bytes of a GGUF file."""
    return write_gguf(base, base.parent / "whole.gguf").read_bytes()


def load_all(path):
    """Returns whether a checkpoint loads with its tokenizer; any error but a UserError is raised.

    Raises:
      AssertionError: the error does not name the file.
    """
    try:
        checkpoints.load(ModelConfig(str(path)))
        tokenizer.load(path)
        return True
    except UserError as error:
        assert path.name in str(error)
        return False


def test_the_undamaged_file_loads(whole, base, tmp_path):
    (tmp_path / "whole.gguf").write_bytes(whole)
    assert load_all(tmp_path / "whole.gguf") and load_all(base)
    again, first = tokenizer.load(tmp_path / "whole.gguf"), tokenizer.load(base)
    assert again.encode("12 mg every 6 hours") == first.encode("12 mg every 6 hours")


def test_the_header_is_what_the_gguf_package_reads(whole, tmp_path):
    (tmp_path / "whole.gguf").write_bytes(whole)
    theirs = gguf.GGUFReader(tmp_path / "whole.gguf")
    ours = GGUFFile(tmp_path / "whole.gguf")
    fields = {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    assert ours.metadata == fields and len(fields) > 15
    shapes = {t.name: tuple(t.shape[::-1]) for t in theirs.tensors}
    assert ours.shapes() == shapes
    for tensor in theirs.tensors:
        np.testing.assert_array_equal(ours.rows(tensor.name, 0, 1 << 30), tensor.data)


@pytest.mark.parametrize("name", ["F16", "BF16", "Q8_0", "Q4_0", "Q6_K"])
def test_stored_kinds_are_those_of_the_gguf_package(name, tmp_path):
    kind = gguf.GGMLQuantizationType[name]
    values = np.random.default_rng(0).normal(size=(3, 2, 256)).astype(np.float32)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    if name == "Q6_K":  # which the package reads, but does not write
        stored = np.random.default_rng(0).integers(0, 99, (3, 2, 210), np.uint8)
    else:
        stored = gguf.quantize(values, kind)
    writer.add_tensor("odd", np.ones(3, np.float32))
    writer.add_tensor("x", stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GGUFFile(tmp_path / "a.gguf")
    assert file.shapes() == {"odd": (3,), "x": (3, 2, 256)}
    found, expected = file.rows("x", 0, 3), gguf.dequantize(stored, kind)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(file.rows("x", 1, 9), expected[1:])
    np.testing.assert_array_equal(file.rows("odd", 1, 3), [1, 1])
    if name != "Q6_K":
        np.testing.assert_allclose(found, values, rtol=0, atol=0.5)


def header_end(whole):
    return parse_header(np.frombuffer(whole, np.uint8)).data_start


def flip(whole, draw):
    """Flips bits, mostly of the header."""
    damaged = bytearray(whole)
    for _ in range(draw.choice([1, 1, 2, 8])):
        at = draw.randrange(header_end(whole) if draw.random() < 0.9 else len(whole))
        damaged[at] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def cut_off(whole, draw):
    return whole[: draw.randrange(len(whole))]


def cut_out(whole, draw):
    at = draw.randrange(header_end(whole))
    return whole[:at] + whole[at + draw.choice([1, 4, 8, 100]) :]


def huge_number(whole, draw):
    """Writes an extreme number over a count, a length, an offset or a piece of text."""
    value = draw.choice([0, 1, 2**31, 2**32 - 1, 2**60, 2**63, 2**64 - 1])
    at = draw.choice([8, 16, draw.randrange(header_end(whole))])
    return whole[:at] + struct.pack("<Q", value) + whole[at + 8 :]


def places(whole):
    """Returns, for each key, where its value's type stands."""
    header = parse_header(np.frombuffer(whole, np.uint8))
    packed = {key: struct.pack("<Q", len(key)) + key.encode() for key in header.metadata}
    return {key: whole.index(text) + len(text) for key, text in packed.items()}


def another_type(whole, draw):
    at = draw.choice(list(places(whole).values()))
    return whole[:at] + struct.pack("<I", draw.randrange(14)) + whole[at + 4 :]


def huge_list(whole, draw):
    keys = ("tokens", "token_type", "merges")
    at = places(whole)[f"tokenizer.ggml.{draw.choice(keys)}"]
    count = struct.pack("<Q", draw.choice([0, 1, 511, 513, 2**20, 2**40, 2**60, 2**64 - 1]))
    return whole[: at + 8] + count + whole[at + 16 :]


def another_value(whole, draw):
    """Replaces a number of the metadata."""
    numbers = {key: at for key, at in places(whole).items() if whole[at] in (4, 6)}
    at = draw.choice(list(numbers.values()))
    value = draw.choice([b"\0" * 4, b"\xff" * 4, b"\1\0\0\0", b"\0\0\xc0\x7f", draw.randbytes(4)])
    return whole[: at + 4] + value + whole[at + 8 :]


DAMAGES = (flip, flip, cut_off, cut_out, huge_number, another_type, huge_list, another_value)


@pytest.mark.parametrize("damage", dict.fromkeys(DAMAGES), ids=lambda damage: damage.__name__)
def test_damaged_gguf_files(damage, whole, tmp_path):
    count = 20 * DAMAGES.count(damage)  # 160 in all
    draw = random.Random(damage.__name__)
    loaded = 0
    for number in range(count):
        file = tmp_path / f"damaged-{number}.gguf"
        file.write_bytes(damage(whole, draw))
        loaded += load_all(file)
    assert loaded < count  # or nothing would have been damaged


@pytest.mark.parametrize("damage", [huge_number, huge_list, flip], ids=lambda d: d.__name__)
def test_no_number_in_a_header_is_believed_before_it_is_checked(damage, whole):
    draw = random.Random(0)
    for _ in range(100):
        damaged = np.frombuffer(damage(whole, draw), np.uint8)
        tracemalloc.start()
        try:
            parse_header(damaged)
        except ValueError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 20 * len(damaged)


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"GGML", "does not begin with GGUF"),
        (4, b"\0\0\0\3", "version 50331648, in this byte order, is not supported"),
        (4, b"\1\0\0\0", "version 1, in this byte order"),
        (8, struct.pack("<Q", 2**60), "truncated|axes|twice"),
        (16, struct.pack("<Q", 2**60), "truncated|unknown value type|twice"),
    ],
)
def test_the_beginning_of_a_gguf_file(at, value, message, whole, tmp_path):
    file = tmp_path / "damaged.gguf"
    file.write_bytes(whole[:at] + value + whole[at + len(value) :])
    with pytest.raises(UserError, match=rf"damaged.gguf: not a valid GGUF file \(.*({message})"):
        checkpoints.load(ModelConfig(str(file)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"general.architecture": 7}, "general.architecture has the type int, not str"),
        ({"general.architecture": "gemma2"}, "model_type='gemma2' is not supported in GGUF"),
        ({"llama.embedding_length": None}, "lacks llama.embedding_length"),
        ({"llama.embedding_length": "8"}, "llama.embedding_length has the type str, not int"),
        ({"llama.block_count": 0}, r"\(llama.block_count\): num_hidden_layers=0 must be"),
        ({"llama.attention.head_count_kv": [1, 1]}, "head_count_kv has the type list, not int"),
        ({"llama.attention.key_length": 3}, "head_dim=3 must be an even number"),
        ({"llama.rope.freq_base": float("nan")}, "rope_theta=NaN must be a number from 1"),
        ({"llama.rope.freq_base": "big"}, "llama.rope.freq_base has the type str"),
        ({"tokenizer.ggml.tokens": "abc"}, "tokenizer.ggml.tokens has the type str, not list"),
        ({"tokenizer.ggml.tokens": ["a", "b"]}, r"token_embd.weight is \(512, 8\), expected"),
        ({"tokenizer.ggml.eos_token_id": "end"}, "eos_token_id has the type str"),
        ({"tokenizer.ggml.eos_token_id": 10**9}, "eos_token_id=1000000000 is not one of the 512"),
        ({"tokenizer.ggml.model": None}, r"tokenizer \(None, 'smollm'\) is not supported"),
        ({"tokenizer.ggml.pre": [1]}, r"tokenizer \('gpt2', \[1\]\) is not supported"),
        ({"tokenizer.ggml.merges": None}, "merges must be a list of type str"),
        ({"tokenizer.ggml.merges": ["ab"]}, "merges: 'ab' does not join two tokens"),
        ({"tokenizer.ggml.token_type": [1, 3]}, "2 token types for 512 tokens"),
        ({"tokenizer.ggml.token_type": ["a"]}, "token_type must be a list of type int"),
        ({"tokenizer.chat_template": 3}, "chat_template is not a string"),
    ],
)
def test_wrong_metadata_is_named(change, message, base, tmp_path):
    file = write_changed(base, tmp_path / "wrong.gguf", change)
    with pytest.raises(UserError, match=message):
        checkpoints.load(ModelConfig(str(file)))
        tokenizer.load(file)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("llama.rope.dimension_count", 2, "2 of 4 dimensions of each head are rotated"),
        ("split.count", 3, "is one of 3 parts; merge them into one file"),
        ("llama.attention.sliding_window", 5, "a sliding window is not supported in GGUF"),
        ("llama.rope.scaling.type", 3, "rope.scaling.type has the type int, not str"),
        ("general.alignment", 0, "general.alignment=0"),
    ],
)
def test_metadata_that_makes_another_model_of_it(key, value, message, base, tmp_path):
    added = gguf.GGUFWriter.add_context_length

    def add(writer, length):
        added(writer, length)
        writer.add_uint32(key, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf.GGUFWriter, "add_context_length", add)
        file = write_gguf(base, tmp_path / "other.gguf")
    with pytest.raises(UserError, match=message):
        checkpoints.load(ModelConfig(str(file)))


def test_tensors_of_whole_numbers_are_refused(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_tensor("x", np.ones((2, 4), np.int8))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match="tensors stored as I8 are not supported"):
        GGUFFile(tmp_path / "a.gguf")


# --- Folders.

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
NOT_JSON = {
    "empty": b"",
    "half": b'{"model_type": "lla',
    "binary": bytes(range(256)),
    "not UTF-8": b'{"model_type": "\xff\xfe"}',
    "a list": b"[1]",
    "null": b"null",
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "a long number": b'{"vocab_size": ' + b"9" * 5_000 + b"}",
}


@pytest.fixture
def folder(base, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(base, tmp_path / "copy")


@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON)
@pytest.mark.parametrize("name", [CONFIG, INDEX])
def test_what_is_no_json_object_is_named(name, content, folder):
    if name == INDEX:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: (not JSON|expected a JSON object)"):
        checkpoints.load(ModelConfig(str(folder)))


@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON)
@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"]
)
def test_other_files_of_a_folder_load_or_are_user_errors(name, content, folder):
    (folder / name).write_bytes(content)
    load_all(folder)


def test_a_byte_order_mark_is_nothing(folder):
    file = folder / CONFIG
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load_all(folder)


ODD = [None, True, -1, 0, 1.5, 10**30, -1e300, "", "1", [], [1], {}, {"a": [1]}, [[[]]]]


def test_config_files_with_odd_values_load_or_are_user_errors(folder):
    content = json.loads((folder / CONFIG).read_text()) | {"architectures": None}
    keys = {*content, *KINDS, "text_config", "vision_config", "quantization_config"}
    draw, loaded = random.Random(0), 0
    for key, value in draw.sample([(k, v) for k in sorted(keys) for v in ODD], 150):
        family = {"model_type": draw.choice([*FAMILIES, "gemma3", "llama", "llama"])}
        (folder / CONFIG).write_text(json.dumps(content | family | {key: value}))
        loaded += load_all(folder)
    assert 0 < loaded < 100


def test_a_foreign_key_does_not_disturb_a_cut(folder):
    content = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(content | {"max_window_layers": "many"}))
    config, _ = checkpoints.load(ModelConfig(str(folder), keep_layers=(1,)))
    assert config.num_layers == 1


def test_tokenizer_files_with_odd_values_load_or_are_user_errors(folder):
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text())
    for key, value in random.Random(0).sample([(k, v) for k in content for v in ODD], 60):
        file.write_text(json.dumps(content | {key: value}))
        load_all(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "weight_map must be an object"),
        ({"weight_map": None}, "weight_map must be an object"),
        ({"weight_map": {}}, "weight_map must be an object"),
        ({"weight_map": ["model-1.safetensors"]}, "weight_map must be an object"),
        (
            {"weight_map": {"a": "../base/model.safetensors"}},
            "is not the name of a safetensors file",
        ),
        ({"weight_map": {"a": "/etc/passwd"}}, "is not the name of a safetensors file"),
        ({"weight_map": {"a": ".."}}, "is not the name of a safetensors file"),
        ({"weight_map": {"a": ""}}, "is not the name of a safetensors file"),
        ({"weight_map": {"a": "b\0c"}}, "is not the name of a safetensors file"),
        ({"weight_map": {"a": 3}}, "'3' is not the name of a safetensors file"),
        ({"weight_map": {"a": ["b"]}}, "is not the name of a safetensors file"),
        ({"weight_map": {"a": "x" * 5_000}}, "is not the name of a safetensors file"),
        ({"weight_map": {"a": "gone.safetensors"}}, "gone.safetensors: missing, though the index"),
        ({"weight_map": {"a": "config.json"}}, "'config.json' is not the name of a safetensors"),
    ],
)
def test_a_damaged_index(index, message, folder):
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(UserError, match=message):
        checkpoints.load(ModelConfig(str(folder)))


def with_header(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(4, 8), offsets=(0, 128)):
    named = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    return {"model.embed_tokens.weight": named}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated or not safetensors"),
        (b"\0" * 3, "truncated or not safetensors"),
        (struct.pack("<Q", 2**60) + b"{}", "truncated or not safetensors"),
        (with_header(b"[" * 9_000), "truncated or not safetensors"),
        (with_header(entry(), bytes(100)), "truncated or not safetensors"),
        (with_header(entry(shape=(4, 9)), bytes(128)), "truncated or not safetensors"),
        (with_header(entry(shape=(2**62, 8)), bytes(128)), "truncated or not safetensors"),
        (with_header(entry(dtype="X9"), bytes(128)), "truncated or not safetensors"),
        (with_header(entry(dtype="I8", offsets=(0, 32)), bytes(32)), "is stored as I8; .* quant"),
        (with_header(entry("F8_E4M3", offsets=(0, 32)), bytes(32)), "is stored as F8_E4M3"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run `git lfs pull`"),
    ],
)
def test_safetensors_headers_that_lie(content, message, folder):
    (folder / "model.safetensors").write_bytes(content)
    for read in (checkpoints.load, checkpoints.read_config):
        with pytest.raises(UserError, match=message):
            read(ModelConfig(str(folder)))


def test_damaged_safetensors_load_or_are_user_errors(folder):
    file = folder / "model.safetensors"
    whole, draw = file.read_bytes(), random.Random(0)
    length = 8 + struct.unpack("<Q", whole[:8])[0]
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[draw.randrange(length)] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        load_all(folder)


def test_the_same_tensor_in_two_files(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for name in ("model-00001-of-00002.safetensors", "model-old.safetensors"):
        save_file(tensors, folder / name)
    with pytest.raises(UserError, match=r"model-old.safetensors: .* is also in another file"):
        checkpoints.load(ModelConfig(str(folder)))


def test_one_file_is_preferred_to_an_index_as_transformers_does(folder):
    (folder / INDEX).write_text('{"weight_map": {"a": "gone.safetensors"}}')
    assert load_all(folder)


def test_many_missing_tensors_are_counted(folder):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"num_hidden_layers": 4}))
    save_file({"layers.0.wq": np.ones((2, 2), np.float32)}, folder / "model.safetensors")
    # 9 of each layer, the embedding and the last norm.
    with pytest.raises(UserError, match=r"missing: model.embed_tokens.weight, .* and 18 more$"):
        checkpoints.load(ModelConfig(str(folder)))


def test_a_student_is_checked_before_its_weights_are_read(folder):
    """A run asks for the config of each model at its start, before a teacher is paid."""
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] = np.ones((3, 8), np.float32)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"mlp.up_proj.weight is \(3, 8\), expected \(8, 8\)"):
        checkpoints.read_config(ModelConfig(str(folder)))


@pytest.mark.parametrize("has_config", [False, True])
def test_an_adapter_becomes_a_model_as_the_error_says(has_config, base, tmp_path):
    pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(base)
    adapted = peft.get_peft_model(plain, peft.LoraConfig(target_modules=["q_proj"]))
    for name, tensor in adapted.named_parameters():
        if "lora_B" in name:
            tensor.data.fill_(0.5)
    folder = tmp_path / "adapter"
    adapted.save_pretrained(folder)
    if has_config:  # as some trainers write it
        shutil.copy(base / CONFIG, folder)
    with pytest.raises(UserError, match=f"is an adapter of '{base}', not a model") as caught:
        checkpoints.load(ModelConfig(str(folder)))
    if has_config:
        return
    program = "\n".join(str(caught.value).splitlines()[1:]).replace("  ", "")
    exec(program, {"OUT": str(tmp_path / "out")})
    assert load_all(tmp_path / "out")
    _, merged = checkpoints.load(ModelConfig(str(tmp_path / "out")))
    _, before = checkpoints.load(ModelConfig(str(base)))
    after, before = (params["layers"]["attention"]["query"] for params in (merged, before))
    assert np.abs(np.asarray(after["kernel"] - before["kernel"])).max() > 1e-3


def test_what_was_exported_says_positions_twice(base, tmp_path):
    file = base.parent / "only-new"
    shutil.copytree(base, file)
    config = json.loads((file / CONFIG).read_text())
    del config["rope_theta"]
    parameters = {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}
    (file / CONFIG).write_text(json.dumps(config | {"rope_parameters": parameters}))
    model = ModelConfig(str(file))
    loaded, params = checkpoints.load(model)
    with export.folder(tmp_path / "out") as out:
        export.write_model(out, loaded, params, checkpoints.cut_hf_config(model))
    written = json.loads((tmp_path / "out" / CONFIG).read_text())
    assert written["rope_parameters"] == parameters
    assert written["rope_theta"] == 5e5
    assert written["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
