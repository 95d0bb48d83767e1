"""`launch.export`: the folder answers in transformers what the model answered here."""

import json
import re

import ml_dtypes
import numpy as np
import pytest

from tests.launch import commands, tiny_run


def export(workdir, out, *flags):
    """Returns (exit code, stdout and stderr) of an export."""
    code, out, err = commands.run("launch.export", f"--workdir={workdir}", f"--out={out}", *flags)
    return code, out + err


@pytest.fixture(scope="module")
def student(undisturbed, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "student"
    code, said = export(undisturbed, out)
    assert code == 0, said
    assert f"launch.chat --model={out}" in said
    return out


def test_the_folder_is_whole(student, undisturbed):
    names = {file.name for file in student.iterdir()}
    assert {"config.json", "model.safetensors", "generation_config.json", "README.md"} < names
    assert {"tokenizer.json", "tokenizer_config.json", "bridge_jax.json"} < names
    assert [folder.name for folder in student.parent.iterdir()] == ["student"]
    assert {file.stat().st_mode & 0o777 for file in student.iterdir()} == {0o644}
    # What transformers 4 knows as well.
    named = json.loads((student / "tokenizer_config.json").read_text())["tokenizer_class"]
    assert named == "PreTrainedTokenizerFast"
    assert "extra_special_tokens" not in (student / "tokenizer_config.json").read_text()
    assert json.loads((student / "generation_config.json").read_text())["eos_token_id"] == [1]
    config = json.loads((student / "config.json").read_text())
    assert (config["num_hidden_layers"], config["dtype"]) == (2, "float32")
    card = (student / "README.md").read_text()
    report = tiny_run.report(undisturbed)
    assert "10 of 10 queries" in card and "layers 0, 2 were kept" in card
    kept = f"{report['rationales']['kept']} kept of 24 written"
    assert f"by the assistant, which was given the gold answers: {kept}" in card
    assert str(undisturbed) not in card
    told = (student / "system_message.txt").read_text()
    assert told == "Reason step by step, then write the answer."
    asked = (student / "bridge_jax.json").read_text()
    assert json.loads(asked)["data"]["kind"] == "numeric"
    assert str(undisturbed.parent) not in asked


def test_transformers_answers_as_the_run_did(student, undisturbed):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from bridge_jax.text.prompts import INSTRUCTIONS

    tokenizer = AutoTokenizer.from_pretrained(student)
    model = AutoModelForCausalLM.from_pretrained(student)
    file = undisturbed / "evaluation/student/predictions.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == 8
    for row in rows:
        chat = [
            {"role": "system", "content": INSTRUCTIONS["reason"]},
            {"role": "user", "content": row["question"]},
        ]
        prompt = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            written = model.generate(**prompt, max_new_tokens=4)
        new = written[0, prompt["input_ids"].shape[1] :]
        assert tokenizer.decode(new, skip_special_tokens=True) == row["completion"]


def answered_by_the_card(folder, question, monkeypatch, capsys):
    """Returns what the code of the model card prints."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    capsys.readouterr()
    exec(code.replace("YOUR QUESTION", question), {})
    return capsys.readouterr().out.removesuffix("\n")


def test_the_code_of_the_card_answers_as_the_run_did(student, undisturbed, monkeypatch, capsys):
    pytest.importorskip("torch")
    file = undisturbed / "evaluation/student/predictions.jsonl"
    row = json.loads(file.read_text().splitlines()[0])
    answer = answered_by_the_card(student, row["question"], monkeypatch, capsys)
    assert answer == row["completion"]


@pytest.mark.slow
def test_the_assistants_adapter_is_merged_or_apart(
    undisturbed, tiny_config, tmp_path, monkeypatch, capsys
):
    for out, flags in (("merged", ()), ("adapter", ("--adapter",))):
        code, said = export(undisturbed, tmp_path / out, "--role=assistant", *flags)
        assert code == 0, said
    peft_config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert (peft_config["r"], peft_config["lora_alpha"]) == (4, 32.0)
    base = str(tiny_config.parent / "checkpoint")
    assert peft_config["base_model_name_or_path"] == base

    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(base)
    tokens = torch.arange(3, 40)[None]
    with torch.no_grad():
        before = plain(tokens).logits.numpy()
        adapted = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter")(tokens).logits.numpy()
        np.testing.assert_allclose(merged(tokens).logits.numpy(), adapted, rtol=0, atol=1e-4)
    assert np.abs(adapted - before).max() > 1e-2
    answers = [
        answered_by_the_card(tmp_path / out, "Fee is 5. Sum?", monkeypatch, capsys)
        for out in ("merged", "adapter")
    ]
    assert answers[0] == answers[1]


def test_mistakes(student, undisturbed, tmp_path):
    (tmp_path / "empty").mkdir()
    new = tmp_path / "x"
    said = {
        (undisturbed, student): "already exists",
        (tmp_path / "empty", new): "holds no run",
        (undisturbed, new, "--adapter"): "was trained in full",
        (undisturbed, new, "--role=assistant", "--adapter", "--dtype=float32"): "f32",
        (undisturbed, new, "--budget.queries=3"): "takes its config from the workdir",
    }
    given = [[f"--workdir={run}", f"--out={out}", *flags] for run, out, *flags in said]
    ends = commands.run_all("launch.export", given)
    for end, message in zip(ends, said.values(), strict=True):
        assert end.code == 2 and message in end.err and "Traceback" not in end.err
    assert [folder.name for folder in tmp_path.iterdir()] == ["empty"]


def test_dtype(undisturbed, student, tmp_path):
    from safetensors import safe_open

    code, said = export(undisturbed, tmp_path / "half", "--dtype=bfloat16")
    assert code == 0, said
    name = "model.norm.weight"
    with safe_open(student / "model.safetensors", "np") as file:
        whole = file.get_tensor(name)
    with safe_open(tmp_path / "half/model.safetensors", "np") as file:
        half = file.get_tensor(name)
    assert half.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(half, whole.astype(half.dtype))
