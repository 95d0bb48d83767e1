"""Overlays: TOML and YAML files whose values replace those of a config."""

import pytest

from bridge_jax.config import RunConfig
from bridge_jax.config.io import override, read_overlay
from bridge_jax.errors import UserError

TOML = """\
seed = 3
compare = ["direct", "labels"]
budget.usd = 2  # a whole number will do

[student]
keep_layers = [0, 4]
[student.lora]
rank = 8

[data]
columns = {question = "text", answer = "team: old"}
"""
YAML = """\
seed: 3
compare: [direct, labels]
budget:
  usd: 2
student:
  keep_layers: [0, 4]
  lora: {rank: 8}
data:
  columns:
    question: text
    answer: "team: old"
"""


def overlay(tmp_path, text, name="my.toml"):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(("name", "text"), [("a.toml", TOML), ("a.yaml", YAML), ("a.yml", YAML)])
def test_values_are_those_of_the_fields(tmp_path, name, text):
    config = override(RunConfig(), read_overlay(overlay(tmp_path, text, name)))
    assert config.seed == 3 and config.compare == ("direct", "labels")
    assert config.budget.usd == 2.0 and isinstance(config.budget.usd, float)
    assert config.budget.queries == RunConfig().budget.queries
    assert config.student.keep_layers == (0, 4)
    assert config.student.lora.rank == 8
    assert config.student.lora.targets == RunConfig().student.lora.targets
    # A flag cannot have this value: it has a colon.
    assert config.data.columns == {"question": "text", "answer": "team: old"}


def test_later_ones_win_and_flags_come_last(tmp_path):
    first = read_overlay(
        overlay(tmp_path, "seed = 1\nname = 'one'\nmax_prompt_tokens = 64", "1.toml")
    )
    second = read_overlay(overlay(tmp_path, "seed: 2\nname: two", "2.yaml"))
    config = override(RunConfig(), [*first, *second, "seed=3"])
    assert (config.seed, config.name, config.max_prompt_tokens) == (3, "two", 64)


def test_yaml_reads_1e_4_as_a_text_and_it_is_a_number_all_the_same(tmp_path):
    config = override(
        RunConfig(),
        read_overlay(overlay(tmp_path, "student_training:\n  learning_rate: 1e-4\n", "a.yaml")),
    )
    assert config.student_training.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "seed = 1\n\n[budget]\nquerys=3", r"line 4: unknown .*'budget.queries'"),
        ("a.yaml", "seed: 1\nbudget:\n  querys: 3", r"line 3: unknown .*'budget.queries'"),
        ("a.toml", "[budget]\nqueries = 'many'", r"line 2: budget.queries=many: expected int"),
        ("a.toml", "[budget]\nqueries = -1", r"line 2: budget.queries=-1: 0 or more"),
        ("a.yaml", "budget: {queries: true}", r"line 1: budget.queries=True: expected int"),
        ("a.yaml", "budget: {queries: 1.5}", r"line 1: budget.queries=1.5: expected int"),
        ("a.yaml", "seed: 1\nbudget: 3", r"line 2: config key 'budget' is a group"),
        ("a.toml", "data.kind = 'numbers'", r"line 1: data.kind=numbers: choose one of choice,"),
        ("a.toml", "data.columns = {querstion = 'x'}", r"data.columns=querstion: choose one of id"),
        ("a.toml", "compare = 'direct'", r"compare='direct': expected tuple, got str"),
        ("a.yaml", "data: {test_path: 2024-01-01}", "expected str, got date"),
        ("a.yaml", "1: x", "unknown config key '1'"),
        ("a.toml", "seed = \nname = 'x'", r"a.toml: .*line 1"),
        ("a.yaml", "seed: [1\nb: 2", r"a.yaml: not valid YAML: .*line 2"),
        ("a.yaml", "seed: !!python/object/apply:os.system [id]", "could not determine a con"),
        ("a.yaml", "[" * 5000, "nested too deeply"),
        ("a.yaml", "- seed", "expected fields and their values"),
        ("a.json", "{}", "must end in .toml, .yaml or .yml"),
    ],
)  # fmt: skip
def test_mistakes_name_the_file_and_the_line(tmp_path, name, text, message):
    with pytest.raises(UserError, match=message) as error:
        read_overlay(overlay(tmp_path, text, name))
    assert name in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"--overlay=.*gone.toml: No such file"):
        read_overlay(tmp_path / "gone.toml")
