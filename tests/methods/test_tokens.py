"""A tokenizer and its model's embedding table, compared before anything is trained or paid."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bridge_jax.errors import UserError
from bridge_jax.phases import guesses
from bridge_jax.phases.context import Run
from bridge_jax.pipeline.files import read_rows
from launch import runner
from tests import tiny
from tests.launch import tiny_run

ROWS = 512


@pytest.fixture
def checkpoint(tmp_path):
    """A tiny checkpoint whose table has a row for each of its tokens and for no more."""
    folder = tmp_path / "checkpoint"
    tiny_run.write_config(tmp_path)
    assert len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]) == ROWS
    return folder


def add_token(folder, text, i, **settings):
    """Adds a token to the tokenizer alone, as a script does that forgets to resize the table."""
    file = folder / "tokenizer.json"
    data = json.loads(file.read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    data["added_tokens"].append({"id": i, "content": text, **flags, **settings})
    file.write_text(json.dumps(data))


def start(folder, *assignments):
    return Run(tiny_run.settings(folder.parent / "tiny_config.py", *assignments), folder.parent)


def test_a_pad_token_beyond_the_table_is_replaced_by_the_end_token(checkpoint):
    add_token(checkpoint, "[PAD]", ROWS, special=True)
    settings = checkpoint / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"pad_token": "[PAD]"}))
    run = start(checkpoint)
    runner.check(run)
    tok = run.tokenizer("student")
    assert tok.name(ROWS) == "[PAD]" and tok.pad_id == tok.end_id
    assert run.notes() == {
        f"the pad token '[PAD]' has the id {ROWS}, and the embedding table {ROWS} rows; "
        "'<|im_end|>' fills instead": ["assistant", "student"]
    }
    # Of two lengths, so that the shorter is filled.
    asked = [run.prompt("student", e, mode) for e in run.splits.test[:2] for mode in ("answer",)]
    asked[0] = asked[0][:20]
    engine = run.engine(run.model("student", None), max_new_tokens=3)
    done = [c for batch in engine.complete(asked) for _, c in batch]
    assert all(np.isfinite(c.logprobs).all() and len(c.logprobs) for c in done)
    sequences = [run.sequence("student", e, None) for e in run.splits.pool]
    out = checkpoint.parent / "out"
    out.mkdir()
    config = dataclasses.replace(run.config.student_training, epochs=1)
    run.train(out, "test", run.trainable("student", None), sequences, config)
    losses = [row["loss"] for row in read_rows(out / "metrics.jsonl")]
    assert losses and np.isfinite(losses).all()


def test_an_end_token_beyond_the_table_is_an_error(checkpoint):
    add_token(checkpoint, "<|stop|>", ROWS, special=True)
    file = checkpoint / "chat_template.jinja"
    file.write_text(tiny.CHAT_TEMPLATE.replace("<|im_end|>", "<|stop|>"))
    with pytest.raises(
        UserError, match=rf"ends a turn, '<\|stop\|>', has the id {ROWS}, and .* {ROWS} rows"
    ):
        runner.check(start(checkpoint))  # fmt: skip


@pytest.mark.parametrize("where", ["question", "answer", "template"])
def test_a_token_beyond_the_table_names_the_row(checkpoint, where):
    token = "<|role|>" if where == "template" else "metformin"
    add_token(checkpoint, token, ROWS, special=where == "template")
    data = checkpoint.parent / "rows.jsonl"
    plain = {"answer": "4"}
    made = [{"id": f"r{n}", "split": "train", "question": f"What is {n} + 1?"} for n in range(25)]
    made[24]["split"] = "test"
    if where == "template":
        file = checkpoint / "chat_template.jinja"
        file.write_text("<|role|>" + tiny.CHAT_TEMPLATE)
    else:
        made[5][where] = "Of metformin?"
    data.write_text("".join(json.dumps(plain | row) + "\n" for row in made))
    run = start(checkpoint, "data.source=jsonl", f"data.path={data}", "data.kind=text")
    row = "r0" if where == "template" else "r5"
    with pytest.raises(UserError, match=rf"its token '.*' has the id {ROWS}, .* {ROWS} rows") as e:
        run.check_inputs()
    assert str(e.value).startswith(f"example '{row}': its token {token!r}")


def test_a_table_that_is_larger_than_its_tokenizer_is_fine(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"vocab_size": ROWS + 88}))
    tensors = load_file(checkpoint / "model.safetensors")
    name = "model.embed_tokens.weight"
    tensors[name] = np.concatenate([tensors[name], np.zeros((88, 32), np.float32)])
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    add_token(checkpoint, "<|extra|>", ROWS, special=True)
    run = start(checkpoint)
    runner.check(run)
    assert run.notes() == {}


def test_a_template_that_changes_a_question_names_the_row(checkpoint):
    run = start(checkpoint)
    example = run.splits.pool[7]
    source = tiny.CHAT_TEMPLATE.replace(
        "message['content']", f"message['content'] | replace({example.question!r}, 'x')"
    )
    (checkpoint / "chat_template.jinja").write_text(source)
    with pytest.raises(UserError, match=rf"example '{example.id}': the .* does not write the user"):
        start(checkpoint).check_inputs()


def test_a_base_model_ends_at_every_end_token_of_its_configs(checkpoint, tmp_path):
    run = start(checkpoint)
    pool = run.splits.pool
    asked = [run.prompt("assistant", e, "answer") for e in pool]

    def complete(run):
        engine = run.engine(run.model("assistant", None), temperature=0.0, max_new_tokens=12)
        return {i: c for batch in engine.complete(asked) for i, c in batch}

    free = complete(run)
    longest = max(free, key=lambda i: len(set(free[i].ids)))
    first, second, *_ = dict.fromkeys(free[longest].ids[3:])
    file = checkpoint / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": [second, first]}))
    again = start(checkpoint)
    tok = again.tokenizer("assistant")
    assert tok.end_ids == (tok.end_id, *sorted((first, second)))
    ended = complete(again)
    for i, completion in free.items():
        stops = [n for n, t in enumerate(completion.ids) if t in (first, second)]
        if stops:
            assert ended[i].ids == completion.ids[: stops[0]]
            assert ended[i].end == completion.ids[stops[0]]
            assert len(ended[i].logprobs) == stops[0] + 1
        else:
            assert ended[i] == completion
    assert ended[longest].end == first
    # The guess that is scored is the text and the end token that was written.
    out = tmp_path / "guesses"
    out.mkdir()
    model = again.model("assistant", None)
    again.model = lambda *_: model
    guesses.write("none", again, out)
    row = read_rows(out / "guesses.jsonl")
    written = {r["id"]: r["ids"] for r in row}
    assert written[pool[longest].id] == [*ended[longest].ids, first]
    assert tok.decode(written[pool[longest].id]) == tok.decode(ended[longest].ids)
