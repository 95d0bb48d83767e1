"""The model card: whoever uses the model tells it what it was told in training."""

import ast
import re

import pytest
import yaml

from bridge_jax import methods
from bridge_jax.config import DataConfig, ModelConfig, RunConfig, TeacherConfig
from bridge_jax.report import page
from bridge_jax.text import prompts

DATA = DataConfig(
    "jsonl",
    "tickets.jsonl",
    kind="label",
    choices=("billing", "sign in"),
    instruction='Which "team" {handles} it?\n```\nC:\\new é \u2028',
    label_descriptions={"billing": "Invoices\tand {charges}."},
)


def mode_of(config, role):
    """Returns how the model of a role is asked when it is tested."""
    plan = (stage for stage in methods.stages(config) if stage.artifact.work == "evaluate")
    (test,) = (stage for stage in plan if stage.artifact.measured.name == role)
    return test.params.mode


@pytest.mark.parametrize(
    ("config", "role", "expected"),
    [
        (RunConfig(), "student", "reason"),
        (RunConfig(method="labels"), "student", "answer"),
        (RunConfig(data=DATA), "student", "reason"),
        (RunConfig(data=DATA, form="two_pass"), "student", "answer"),
        (RunConfig(data=DATA, form="two_pass"), "assistant", "reason"),
    ],
)
def test_its_code_has_the_whole_system_message(config, role, expected):
    mode = mode_of(config, role)
    text = page.card({"accuracy": {}}, config, role, mode)
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (chat,) = (
        node.value
        for node in ast.parse(code).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "messages"  # type: ignore
    )
    system, user = ast.literal_eval(chat)
    assert system == {"role": "system", "content": prompts.system_message_of(config.data, mode)}
    assert system["content"].endswith(prompts.INSTRUCTIONS[expected])
    assert user == {"role": "user", "content": "YOUR QUESTION"}
    for part in (config.data.instruction, *config.data.choices):
        assert part.strip() in system["content"]


def test_names_are_no_markup_of_the_card():
    config = RunConfig(
        name="a\n---\n# <script> [x](http://y)",
        data=DataConfig(source="jsonl", path="data/`x`|.jsonl"),
        teacher=TeacherConfig(kind="openai", model="*m* <b>\n- paid: nothing"),
        student=ModelConfig("models/[s]\x1b[2J"),
    )
    text = page.card({"accuracy": {}}, config, "student", "reason")
    lines = text.splitlines()
    assert lines.count("---") == 2  # of the front matter
    assert r"# a\\n---\\n# \<script\> \[x\](http://y): student" in lines
    assert r"- data: \`x\`\|.jsonl, seed 0" in lines
    assert r"- teacher: \*m\* \<b\>\\n- paid: nothing" in lines
    assert r"trained with BRIDGE-JAX from \[s\]\\x1b\[2J." in text


@pytest.mark.parametrize(
    ("method", "teacher", "title"),
    [
        ("bridge", "oracle", r"a BRIDGE distillation (arXiv 2512.20403)"),
        ("direct", "oracle", "a direct distillation"),
        ("self", "none", "a self-training run without a teacher"),
        ("labels", "none", "a fine-tuning run on labels"),
    ],
)
def test_the_method_is_told_and_its_teacher_if_it_has_one(method, teacher, title):
    text = page.card({"accuracy": {}}, RunConfig(method=method), "student", "reason")
    assert f"- teacher: {teacher}\n" in text
    assert f"The student of {title}, trained with BRIDGE-JAX" in text


def test_licence_and_limits_are_told_and_not_invented():
    report = {
        "accuracy": {"student": 0.75},
        "accuracy_interval": {"student": [0.6, 0.86]},
        "compliance": {"student": 0.9},
        "questions": {"student": 40},
    }
    text = page.card(report, RunConfig(data=DATA), "student", "reason", licence="apache-2.0")
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "license": "apache-2.0",
        "tags": ["distillation", "bridge-jax"],
    }
    assert "License of the base model, by its own metadata: apache-2.0." in body
    assert "on 40 test questions of this task alone" in body
    assert "10 answers were wrong, 4 of them without an answer that can be parsed" in body
    assert "its accuracy on such questions is 60–86%" in body
    assert "these answers and no others: billing, sign in." in body
    local = RunConfig(student=ModelConfig("./local/models/mine"))
    text = page.card({"accuracy": {}}, local, "student", "reason")
    _, front, body = text.split("---\n", 2)
    assert not {"license", "base_model", "language"} & set(yaml.safe_load(front))
    assert "The license of the base model is unknown here" in body
    assert "Not tested: nothing is known about its answers." in body
