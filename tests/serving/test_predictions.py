"""Parts of a file of answers: an interrupted one goes on, and no other is mixed in."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from bridge_jax.data.example import Example, Task
from bridge_jax.errors import UserError
from bridge_jax.generation import engine
from bridge_jax.generation.budgets import Cap, capped, read
from bridge_jax.pipeline.leases import held
from bridge_jax.serving import models, predict
from bridge_jax.serving.answering import Answering
from bridge_jax.serving.models import AskingConfig, BudgetsConfig, QuestionsConfig
from bridge_jax.text.rendering import Rendering
from bridge_jax.text.thinking import thinking_of

QUESTIONS = [f"Fee {n} for {'a very long ' * (3 * n % 7)}way?" for n in range(11)]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    first = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: first)
    monkeypatch.setattr(predict, "PART", 4)


@pytest.fixture
def settings(tmp_path):
    rows = [{"question": text, "id": f"q{n}"} for n, text in enumerate(QUESTIONS)]
    rows[5]["question"] = None
    path = tmp_path / "new.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return asked(path)


def asked(path):
    data = QuestionsConfig(str(path), instruction="What is due?", kind="numeric")
    how = dataclasses.replace(AskingConfig().generation, max_new_tokens=6, batch_size=3)
    return AskingConfig(data, max_prompt_tokens=120, generation=how)


@pytest.fixture
def found(checkpoint):
    return models.find(str(checkpoint))


class Stopped(Exception):
    """Stands for a kill."""


def interrupted(monkeypatch, after):
    """Lets the engine stop when so many answers have come."""
    complete, left = engine.Engine.complete, [after]

    def stopping(self, *args, **kwargs):
        for ended in complete(self, *args, **kwargs):
            yield ended
            left[0] -= len(ended)
            if left[0] <= 0:
                raise Stopped

    monkeypatch.setattr(engine.Engine, "complete", stopping)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_an_interrupted_file_is_the_same_byte_for_byte(
    found, settings, tmp_path, monkeypatch, suffix
):
    whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    counts, _ = predict.predict(found, settings, whole)
    assert (counts.rows, counts.errors, counts.unparsed) == (11, 1, 10)
    assert counts.first_error == "line 6: question has no value; expected a text or a number"
    for after in (1, 2, 2):
        with monkeypatch.context() as patch:
            interrupted(patch, after)
            with pytest.raises(Stopped):
                predict.predict(found, settings, out)
        assert not out.exists()
    again, _ = predict.predict(found, settings, out)
    assert out.read_bytes() == whole.read_bytes()
    assert again == counts
    assert not (tmp_path / f"out.{suffix}.parts").exists()


def test_answers_do_not_depend_on_the_parts_before(found, settings, tmp_path, monkeypatch):
    """The questions of the middle have much longer slots in this process than alone."""
    predict.predict(found, settings, tmp_path / "whole.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "whole.jsonl").read_text().splitlines()]
    monkeypatch.setattr(predict, "PART", 11)
    predict.predict(found, settings, tmp_path / "one.jsonl")
    one = [json.loads(line) for line in (tmp_path / "one.jsonl").read_text().splitlines()]
    for row, other in zip(rows, one, strict=True):
        assert row["rationale"] == other["rationale"]
    assert [row["id"] for row in rows] == [f"q{n}" for n in range(11)]
    assert rows[5]["answer"] is rows[5]["rationale"] is rows[5]["confidence"] is None


def test_parts_of_other_predictions_are_refused(found, settings, tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch:
        interrupted(patch, 6)
        with pytest.raises(Stopped):
            predict.predict(found, settings, out)
    longer = dataclasses.replace(settings.generation, max_new_tokens=7)
    rows = tmp_path / "new.jsonl"
    for other, gold, budget, differs in [
        (dataclasses.replace(settings, generation=longer), False, 0, "generation.max_new_tokens"),
        (settings, False, 9, "--budget"),
        (dataclasses.replace(settings, mode="answer"), False, 0, "mode"),
    ]:
        with pytest.raises(UserError, match=rf"different settings \({differs}\);"):
            predict.predict(found, other, out, gold, budget)
    text = rows.read_text()
    rows.write_text(text + '{"question": "One more?"}\n')
    with pytest.raises(UserError, match=r"settings \(data\.path"):
        predict.predict(found, settings, out)
    rows.write_text(text)
    with held(tmp_path / "out.jsonl.parts/.lock"), pytest.raises(UserError, match="another proc"):
        predict.predict(found, settings, out)
    predict.predict(found, settings, out)
    with pytest.raises(UserError, match="already exists"):
        predict.predict(found, settings, out)


def test_whole_parts_need_no_model(found, settings, tmp_path, monkeypatch):
    """A kill between the last answer and the whole file."""
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    predict.predict(found, settings, whole)
    with monkeypatch.context() as patch:
        patch.setattr(predict, "_join", lambda *_: (_ for _ in ()).throw(Stopped))
        with pytest.raises(Stopped):
            predict.predict(found, settings, out)
    monkeypatch.setattr(models.FoundModel, "load", None)
    predict.predict(found, settings, out)
    assert out.read_bytes() == whole.read_bytes()


def test_another_threshold_of_trust_is_no_other_predictions(found, settings, tmp_path, monkeypatch):
    """It marks the answers when all are there: an interrupted file goes on with another one."""
    out = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch:
        interrupted(patch, 6)
        with pytest.raises(Stopped):
            predict.predict(found, settings, out)
    predict.predict(found, dataclasses.replace(settings, least_confidence=0.9), out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["trusted"] for row in rows] == [False] * 11  # It gives no answer, but one error.


@pytest.mark.parametrize(
    ("least", "marks"),
    [
        (0.0, [None, None, None, None]),
        (0.8, [True, True, False, False]),
        (0.9, [True, False, False, False]),
    ],
)
def test_what_is_trusted_is_marked_and_no_row_is_dropped(tmp_path, least, marks):
    names = ("id", "answer", "confidence", "correct", "error")
    told = [("a", "7", 0.95, True, None), ("b", "8", 0.8, False, None),
            ("c", "9", 0.79, True, None), ("d", None, None, None, "no text")]  # fmt: skip
    rows = [dict(zip(names, row)) for row in told]
    part = "".join(json.dumps(row | {"row": "line 1"}) + "\n" for row in rows)
    (tmp_path / "000000.jsonl").write_text(part)
    counts = predict._join(tmp_path, tmp_path / "a.jsonl", 4, least)
    written = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in written] == ["7", "8", "9", None]
    assert [row.get("trusted") for row in written] == marks
    # Of "a" and "b", the first is right.
    assert (counts.trusted, counts.trusted_correct) == (marks.count(True), int(True in marks))
    assert (counts.rows, counts.compared, counts.correct) == (4, 3, 2)


def test_prompts_that_do_not_fit_are_errors_or_are_cut(found, settings, tmp_path):
    short = dataclasses.replace(settings, max_prompt_tokens=80)
    counts, _ = predict.predict(found, short, tmp_path / "a.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    errors = [row["error"] for row in rows if row["error"]]
    assert 2 < counts.errors == len(errors) < 11
    assert sum("max_prompt_tokens is 80; raise it, or cut" in each for each in errors) > 1
    assert not any("example" in each for each in errors)
    cut = dataclasses.replace(short, on_long_prompt="cut_beginning")
    assert predict.predict(found, cut, tmp_path / "b.jsonl")[0].errors == 1


def test_a_budget_is_stated_and_cuts_the_thinking_off(found, settings, tmp_path):
    """As the run's test of the control `capped` does it."""
    thinking = BudgetsConfig(levels=(8,), answer_tokens=3, closing=" So")
    told = dataclasses.replace(settings, thinking=thinking)
    _, notes = predict.predict(found, told, tmp_path / "a.jsonl", budget=8)
    assert notes == []
    loaded = found.load(told)
    reading = Rendering(
        loaded.tokenizer,
        table_rows=loaded.config.vocab_size,
        checkpoint="tiny",
        max_prompt_tokens=200,
        on_long_prompt="error",
    )
    form = thinking_of(loaded.tokenizer, "plain", "tiny")
    cut = Cap(8, form, 3, loaded.tokenizer.encode(" So"))
    task = Task("What is due?")
    examples = [
        Example(f"q{n}", text, "", "numeric", task=task, budget=8)
        for n, text in enumerate(QUESTIONS[: predict.PART])
    ]
    requests = [capped(reading.prompt(each, "reason"), cut) for each in examples]
    engine = loaded.engine(told.generation, 0)
    completion = {i: done for ended in engine.complete(requests) for i, done in ended}[0]
    text = loaded.tokenizer.decode(completion.ids)
    assert " So\nAnswer:" in text
    row = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
    assert row["answer"] == read(loaded.tokenizer, form, completion.ids, examples[0]).answer
    assert row["rationale"] == (text.strip() if row["answer"] is None else text.split("\n")[0])
    assert "not trained with budgets" in Answering(found, settings, False, 8).notes[0]


def test_a_model_without_a_kind_of_answers_is_refused(found, settings, tmp_path):
    data = dataclasses.replace(settings.data, kind="")
    with pytest.raises(UserError, match=r"has no bridge_jax\.json that says .*--data\.kind=label"):
        predict.predict(found, dataclasses.replace(settings, data=data), tmp_path / "a.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["new.jsonl"]


def test_no_room_in_the_context(found, settings, tmp_path):
    long = dataclasses.replace(settings.generation, max_new_tokens=600)
    with pytest.raises(UserError, match="max_new_tokens=600 leaves no room for a prompt in"):
        predict.predict(found, dataclasses.replace(settings, generation=long), tmp_path / "a.jsonl")


def test_a_spreadsheet_reads_no_formula(settings, tmp_path, monkeypatch):
    counted = {"id": "=1+1", "row": "line 1", "answer": "-x", "rationale": "\x1b[2J", "error": None}
    (tmp_path / "000000.jsonl").write_text(json.dumps(counted | {"confidence": np.pi}) + "\n")
    predict._join(tmp_path, tmp_path / "a.csv", 1, 0.0)
    assert (tmp_path / "a.csv").read_text().splitlines()[1] == (
        "'=1+1,line 1,'-x,\\x1b[2J,,3.141592653589793"
    )


def test_the_facts_of_an_export_are_those_that_are_used(checkpoint, settings, tmp_path):
    import shutil

    folder = shutil.copytree(checkpoint, tmp_path / "model")
    models.write_asking(folder, settings)
    there = models.find(str(folder)).asking
    assert there == dataclasses.replace(settings, data=dataclasses.replace(settings.data, path=""))
