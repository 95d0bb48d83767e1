"""How a model is asked is written beside an export, and read again."""

import json

import pytest

from bridge_jax.config import (
    DataConfig,
    EvaluationConfig,
    GenerationConfig,
    ModelConfig,
    RunConfig,
    ThinkingConfig,
)
from bridge_jax.data.example import Task, read_task
from bridge_jax.errors import UserError
from bridge_jax.serving import models
from bridge_jax.serving.models import AskingConfig, BudgetsConfig, QuestionsConfig


@pytest.fixture
def config(tmp_path):
    task = tmp_path / "task.toml"
    task.write_text('instruction = "Which team?"\n[labels]\nbilling = "Money, and the like."\n')
    return RunConfig(
        data=DataConfig(
            "jsonl",
            str(tmp_path / "tickets.jsonl"),
            test_path=str(tmp_path / "test.jsonl"),
            columns={"question": "body", "split": "part", "rationale": "why", "id": "ticket"},
            task_file=str(task),
            kind="label",
            choices=("billing", "login"),
        ),
        max_prompt_tokens=77,
        on_long_prompt="cut_beginning",
        student=ModelConfig(matmul="bfloat16"),
        generation=GenerationConfig(max_new_tokens=33, temperature=0.5),
        seed=4,
        evaluation=EvaluationConfig(least_confidence=0.9),
    )


def test_what_is_written_is_read_again_and_has_no_path(config, tmp_path):
    made = models.asking_of_run(config, "student", "answer")
    models.write_asking(tmp_path, made)
    text = (tmp_path / "bridge_jax.json").read_text()
    assert str(tmp_path) not in text
    assert models.read_asking(tmp_path) == made
    assert made.mode == "answer"
    assert (made.max_prompt_tokens, made.on_long_prompt, made.seed) == (77, "cut_beginning", 4)
    assert (made.generation.max_new_tokens, made.generation.temperature) == (33, 0.5)
    assert made.matmul == "bfloat16"
    assert made.least_confidence == 0.9
    assistant = models.asking_of_run(config, "assistant", "answer")
    assert (assistant.matmul, assistant.least_confidence) == ("auto", 0.0)
    assert dict(made.data.columns) == {"question": "body", "id": "ticket"}
    assert (made.data.kind, made.data.choices) == ("label", ("billing", "login"))
    task = read_task(made.data.as_data())
    assert task == Task("Which team?", {"billing": "Money, and the like."})


@pytest.mark.parametrize(
    ("domains", "least", "kind", "choices"),
    [
        (("samples",), 1, "numeric", 0),
        (("triage",), 2, "label", 4),
        (("triage",), 1, "label", 0),  # Questions of one step have other labels.
        (("triage", "fees"), 1, "", 0),
    ],
)
def test_practice_tasks_have_a_kind_of_their_own(domains, least, kind, choices):
    data = DataConfig(domains=domains, min_steps=least, max_steps=2)
    made = models.asking_of_run(RunConfig(data=data), "student", "reason")
    assert made.data.kind == kind
    assert len(made.data.choices) == choices


def test_budgets_are_of_the_student_that_was_trained_at_them():
    thinking = ThinkingConfig(levels=(8, 16), form="tags", closing=" So", answer_tokens=5)
    config = RunConfig(method="budgeted", thinking=thinking)
    student = models.asking_of_run(config, "student", "reason").thinking
    assert student == BudgetsConfig((8, 16), "tags", " So", 5)
    assert models.asking_of_run(config, "assistant", "reason").thinking == BudgetsConfig()
    assert (
        models.asking_of_run(RunConfig(thinking=thinking), "student", "reason").thinking.levels
        == ()
    )


def test_any_other_model_has_the_defaults(tmp_path):
    assert models.read_asking(tmp_path) == AskingConfig()
    (tmp_path / "model.gguf").touch()
    assert models.read_asking(tmp_path / "model.gguf").data == QuestionsConfig()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2 is not supported, only 1 is; use the version"),
        ({"data": {"kind": "letters"}}, "data.kind=letters: choose one of"),
        ({"data": {"columns": {"body": "question"}}}, "data.columns"),
        ({"max_prompt_tokens": -1}, "max_prompt_tokens=-1"),
        ({"thinking": 3}, "damaged"),
        ({"thinking": {"form": "xml"}}, "form=xml"),
    ],
)
def test_a_damaged_file_is_told(tmp_path, change, message):
    models.write_asking(tmp_path, AskingConfig())
    file = tmp_path / "bridge_jax.json"
    facts = json.loads(file.read_text())
    file.write_text(json.dumps(facts | change))
    with pytest.raises(UserError, match=message) as told:
        models.read_asking(tmp_path)
    assert "export the model again" in str(told.value)
    file.write_text("[]")
    with pytest.raises(UserError, match="damaged"):
        models.read_asking(tmp_path)
