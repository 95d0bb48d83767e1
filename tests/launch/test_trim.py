"""`launch.trim`: the trimmed model predicts what the whole one does, and trains like any other."""

import json
import math

import numpy as np
import pytest

import bridge_jax as bj
from tests import tiny
from tests.launch import commands, tiny_run


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def trimmed(request, tmp_path_factory):
    """The folders of a whole and a trimmed checkpoint, and what was printed."""
    folder = tmp_path_factory.mktemp("trim")
    config = tiny_run.write_config(folder)
    whole, out = folder / "checkpoint", folder / "out"
    if not request.param:
        tiny.write_checkpoint(whole, tied=False)
    code, said, errors = commands.run(
        "launch.trim", f"--config={config}", f"--out={out}", "--common=20"
    )
    assert code == 0, errors
    return config, whole, out, said


def test_sizes_are_those_of_the_files(trimmed):
    _, whole, out, said = trimmed
    config = json.loads((out / "config.json").read_text())
    rows = config["vocab_size"]
    assert rows < 512 and rows % 128 == 0
    tokens = json.loads((out / "tokenizer.json").read_text())
    added = {token["content"]: token["id"] for token in tokens["added_tokens"]}
    assert len({**tokens["model"]["vocab"], **added}) == rows

    def count(folder):
        from safetensors import safe_open

        with safe_open(folder / "model.safetensors", "np") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - not a dict

    assert f"out: {rows:,} of 512 tokens" in said.replace("\n", " ")
    assert count(whole) - count(out) == (512 - rows) * 32 * (
        1 if config["tie_word_embeddings"] else 2
    )
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == [
        added["<|im_end|>"]
    ]


def test_it_predicts_what_the_whole_model_does(trimmed):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, whole, out, _ = trimmed
    texts = [AutoTokenizer.from_pretrained(folder) for folder in (whole, out)]
    models = [AutoModelForCausalLM.from_pretrained(folder) for folder in (whole, out)]
    question = bj.read_data(bj.DataConfig(pool=24, dev=2, test=8, max_steps=1)).pool[0].question
    chat = [{"role": "user", "content": question}]
    before, after = (
        tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        for tokenizer in texts
    )
    names = texts[1].convert_ids_to_tokens(range(len(texts[1])))
    kept = texts[0].convert_tokens_to_ids(names)
    assert [kept[i] for i in after] == before
    with torch.no_grad():
        expected, found = (
            model(torch.tensor([ids])).logits[0].numpy()
            for model, ids in zip(models, (before, after))
        )
    np.testing.assert_allclose(found, expected[:, kept], rtol=0, atol=1e-6)


def test_it_is_trained_and_asked_like_any_other(trimmed):
    _, _, out, _ = trimmed
    model = bj.load_model(str(out))
    pool = bj.read_data(bj.DataConfig(pool=24, dev=2, test=8, max_steps=1)).pool[:4]
    taught = [(example, example.rationales["short"]) for example in pool]
    settings = bj.TrainConfig(epochs=60, row_tokens=192, batch_rows=2, learning_rate=1e-2)
    trained = bj.train(model, taught, settings)
    texts = bj.generate(trained, pool)
    assert [bj.is_right(text, example) for text, example in zip(texts, pool)] == [True] * 4


def add_tokens(folder, names, pad):
    """Adds tokens after the last row of the embedding table; the last of them pads."""
    file, config = folder / "tokenizer.json", folder / "tokenizer_config.json"
    tokenizer, settings = json.loads(file.read_text()), json.loads(config.read_text())
    known = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    first = max(tokenizer["model"]["vocab"].values()) + 1
    for at, name in enumerate(names):
        tokenizer["added_tokens"].append(
            known | {"id": first + at, "content": name, "special": True}
        )
    settings["pad_token"] = pad
    file.write_text(json.dumps(tokenizer))
    config.write_text(json.dumps(settings))
    return first


@pytest.mark.parametrize("rows", ["no row", "a row"])
def test_special_tokens_keep_their_rows_or_are_gone(tmp_path, rows):
    """Of a pad token without a row in the table, and of one that looks like a placeholder."""
    config, out = tiny_run.write_config(tmp_path), tmp_path / "out"
    whole, pad = tmp_path / "checkpoint", "<|reserved_special_token_0|>"
    first = add_tokens(whole, [pad], pad)
    if rows == "a row":
        tiny.write_checkpoint(tmp_path / "larger", vocab=first + 1)
        for file in ("config.json", "model.safetensors"):
            (tmp_path / "larger" / file).replace(whole / file)
    ends = {"eos_token_id": [1, first] if rows == "a row" else [1]}
    (whole / "generation_config.json").write_text(json.dumps(ends))
    flags = f"--config={config}", f"--out={out}", "--common=20"
    code, _, errors = commands.run("launch.trim", *flags)
    assert code == 0, errors
    from transformers import AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(out), bj.load_model(str(out))
    assert len(tokenizer) == model.config.vocab_size
    assert np.isfinite(np.asarray(model.params["embedding"])).all()
    assert tokenizer.pad_token == (pad if rows == "a row" else "<|im_end|>")
    if rows == "a row":
        assert model.tokenizer.end_ids == (1, tokenizer.pad_token_id)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--common=-1"], "--common=-1: must be 0 tokens or more"),
        (["--student.checkpoint=nowhere/at/all"], "nowhere/at/all"),
        (["--common=512", "--data.domains=triage"], "need all 512 tokens; lower --common"),
        (["--data.source=jsonl"], "data.path"),
        (["--warmup.fraction=2"], "warmup.fraction"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_left(tmp_path, flags, message):
    config, out = tiny_run.write_config(tmp_path), tmp_path / "new" / "out"
    code, _, errors = commands.run("launch.trim", f"--config={config}", f"--out={out}", *flags)
    assert code == 2 and message in errors
    assert not out.parent.exists()


def test_a_folder_that_exists_is_left_alone(tmp_path):
    config = tiny_run.write_config(tmp_path)
    code, _, errors = commands.run("launch.trim", f"--config={config}", f"--out={tmp_path}")
    assert code == 2 and "already exists" in errors
    assert config.exists()
