"""The model card says what a run was called, whatever that is."""

from bridge_jax.config import DataConfig, ModelConfig, RunConfig, TeacherConfig
from bridge_jax.studies import card


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
