"""The model card: whoever uses the model tells it what it was told in training."""

import ast
import re

import pytest

from bridge_jax.config import DataConfig, ModelConfig, RunConfig, TeacherConfig
from bridge_jax.studies import card
from bridge_jax.text import prompts

DATA = DataConfig(
    "jsonl",
    "tickets.jsonl",
    kind="label",
    choices=("billing", "sign in"),
    instruction='Which "team" {handles} it?\n```\nC:\\new é \u2028',
    label_descriptions={"billing": "Invoices\tand {charges}."},
)


@pytest.mark.parametrize(
    ("config", "role"),
    [
        (RunConfig(), "student"),
        (RunConfig(method="labels"), "student"),
        (RunConfig(data=DATA), "student"),
        (RunConfig(data=DATA, form="two_pass"), "student"),
        (RunConfig(data=DATA, form="two_pass"), "assistant"),
    ],
)
def test_its_code_has_the_whole_system_message(config, role):
    text = card.render({"accuracy": {}}, config, role)
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (chat,) = (
        node.value
        for node in ast.parse(code).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "messages"  # type: ignore
    )
    system, user = ast.literal_eval(chat)
    assert system == {"role": "system", "content": prompts.system_message_of(config, role)}
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
    text = card.render({"accuracy": {}}, config, "student")
    lines = text.splitlines()
    assert lines.count("---") == 2  # of the front matter
    assert r"# a\\n---\\n# \<script\> \[x\](http://y): student" in lines
    assert r"- data: \`x\`\|.jsonl, seed 0" in lines
    assert r"- teacher: \*m\* \<b\>\\n- paid: nothing" in lines
    assert r"made with BRIDGE-JAX from \[s\]\\x1b\[2J." in text
