"""A tokenizer and its model's embedding table, compared before anything is trained or paid."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bridge_jax.errors import UserError
from bridge_jax.methods.apprenticeship import PSEUDO_LABELS
from bridge_jax.methods.fitting import fit, train_spec
from bridge_jax.methods.tutoring import STUDENT
from bridge_jax.pipeline.files import read_json
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.runs import Run
from tests import tiny
from tests.launch import tiny_run
from tests.methods import one_stage

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


def notes(job):
    """Returns what is noted of prompts in the workdir, each with its roles."""
    job._begin()
    return read_json(job.workdir / "prompts.json")


def test_a_pad_token_beyond_the_table_is_replaced_by_the_end_token(checkpoint):
    add_token(checkpoint, "[PAD]", ROWS, special=True)
    settings = checkpoint / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"pad_token": "[PAD]"}))
    job = start(checkpoint)
    job.check()
    student, reading = job.inputs.model("student"), job.inputs.rendering("student")
    tok = student.tokenizer
    assert tok.name(ROWS) == "[PAD]" and tok.pad_id == tok.end_id
    assert notes(job) == {
        f"the pad token '[PAD]' has id {ROWS}, but the embedding table has {ROWS} rows; "
        "'<|im_end|>' pads instead": ["assistant", "student"]
    }
    # Of two lengths, so that the shorter is filled.
    asked = [reading.prompt(example, "answer") for example in job.inputs.test[:2]]
    asked[0] = asked[0][:20]
    settings = dataclasses.replace(job.config.generation, max_new_tokens=3)
    engine = student.load().engine(settings, job.config.seed)
    done = engine.complete_all(asked)
    assert all(np.isfinite(c.logprobs).all() and len(c.logprobs) for c in done)
    sequences = [reading.sequence(example, None) for example in job.inputs.pool]
    out = one_stage.folder_of(job, STUDENT)
    spec = train_spec(job.config, "student_training")
    spec = dataclasses.replace(spec, train=dataclasses.replace(spec.train, epochs=1))
    fit(out, "test", student.trainable(), sequences, spec)
    losses = [row["loss"] for row in out.rows("metrics.jsonl")]
    assert losses and np.isfinite(losses).all()


def test_an_end_token_beyond_the_table_is_an_error(checkpoint):
    add_token(checkpoint, "<|stop|>", ROWS, special=True)
    file = checkpoint / "chat_template.jinja"
    file.write_text(tiny.CHAT_TEMPLATE.replace("<|im_end|>", "<|stop|>"))
    with pytest.raises(
        UserError, match=rf"ends a turn, '<\|stop\|>', has id {ROWS}, but .* {ROWS} rows"
    ):
        start(checkpoint).check()  # fmt: skip


@pytest.mark.parametrize("where", ["question", "answer", "template"])
def test_a_token_beyond_the_table_names_the_row(checkpoint, where):
    pytest.importorskip("tensorflow_text")
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
    settings = ("data.source=jsonl", f"data.path={data}", "data.kind=text", "teacher.kind=replay")
    job = start(checkpoint, *settings)
    row = "r0" if where == "template" else "r5"
    with pytest.raises(UserError, match=rf"its token '.*' has id {ROWS}, .* {ROWS} rows") as e:
        one_stage.check(job)
    assert str(e.value).startswith(f"example '{row}': its token {token!r}")


def test_a_table_that_is_larger_than_its_tokenizer_is_fine(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"vocab_size": ROWS + 88}))
    tensors = load_file(checkpoint / "model.safetensors")
    name = "model.embed_tokens.weight"
    tensors[name] = np.concatenate([tensors[name], np.zeros((88, 32), np.float32)])
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    add_token(checkpoint, "<|extra|>", ROWS, special=True)
    job = start(checkpoint)
    job.check()
    assert notes(job) == {}


def test_a_template_that_changes_a_question_names_the_row(checkpoint):
    example = start(checkpoint).inputs.pool[7]
    source = tiny.CHAT_TEMPLATE.replace(
        "message['content']", f"message['content'] | replace({example.question!r}, 'x')"
    )
    (checkpoint / "chat_template.jinja").write_text(source)
    with pytest.raises(UserError, match=rf"example '{example.id}': the .* does not render the u"):
        one_stage.check(start(checkpoint))


@pytest.mark.slow
def test_a_base_model_ends_at_every_end_token_of_its_configs(checkpoint, monkeypatch):
    more = ("data.labelled=false", "rationales.filter=none", "teacher.keep_wrong=true")
    more += ("selection.difficulty=entropy",)
    tiny.write_checkpoint(checkpoint, tied=False)  # One that is tied repeats its last token.
    job = start(checkpoint, *more)
    pool, reading = job.inputs.pool, job.inputs.rendering("assistant")
    asked = [reading.prompt(example, "answer") for example in pool]

    def complete(job):
        settings = dataclasses.replace(job.config.generation, temperature=0.0, max_new_tokens=12)
        engine = job.inputs.model("assistant").load().engine(settings, job.config.seed)
        return dict(enumerate(engine.complete_all(asked)))

    free = complete(job)
    longest = max(free, key=lambda i: len(set(free[i].ids)))
    first, second, *_ = dict.fromkeys(free[longest].ids[3:])
    file = checkpoint / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": [second, first]}))
    again = start(checkpoint, *more)
    tok = again.inputs.model("assistant").tokenizer
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
    model = again.inputs.model("assistant").load()
    monkeypatch.setattr(RoleModel, "load", lambda *_: model)  # Nothing has been warmed up.
    rows = one_stage.run_alone(again, PSEUDO_LABELS).rows("pseudo_labels.jsonl")
    written = {row["id"]: row["ids"] for row in rows}
    assert written[pool[longest].id] == [*ended[longest].ids, first]
    assert tok.decode(written[pool[longest].id]) == tok.decode(ended[longest].ids)
