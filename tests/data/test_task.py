"""The task as the config or a file says it, and what a mistake in it is answered with."""

import dataclasses
import re

import pytest

from bridge_jax.config import DataConfig, RunConfig
from bridge_jax.config.io import override
from bridge_jax.data.example import Task, read_task, with_task_text
from bridge_jax.data.sources import load
from bridge_jax.errors import UserError
from bridge_jax.methods.checks import validate

TOML = '''
instruction = """
Which team handles this ticket?
Say {team}, not a name.
"""

[labels]
billing = "Invoices, charges: all of them."
"sign in" = "  Passwords and {locked} accounts. "
'''
SAID = Task(
    "Which team handles this ticket?\nSay {team}, not a name.",
    {"billing": "Invoices, charges: all of them.", "sign in": "Passwords and {locked} accounts."},
)


def written(tmp_path, content):
    path = tmp_path / "task.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return DataConfig(task_file=str(path))


def test_nothing_is_said_by_default():
    assert read_task(DataConfig()) == Task()
    assert not Task().is_said
    config = DataConfig()
    assert with_task_text(config) is config


def test_the_config_and_a_file_say_the_same(tmp_path):
    config = DataConfig(
        instruction=f"\n{SAID.instruction}\n", label_descriptions=SAID.label_descriptions
    )
    assert read_task(config) == read_task(written(tmp_path, TOML)) == SAID


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf" + TOML.encode(), TOML.replace("\n", "\r\n").encode()],
    ids=["with a BOM", "of Windows"],
)
def test_how_the_file_was_saved_does_not_matter(tmp_path, content):
    assert read_task(written(tmp_path, content)) == SAID


def test_one_of_the_two_is_enough(tmp_path):
    assert read_task(written(tmp_path, 'instruction = "Sort it."')) == Task("Sort it.")
    assert read_task(written(tmp_path, '[labels]\na = "A thing."')) == Task("", {"a": "A thing."})


def test_the_text_takes_the_place_of_the_file(tmp_path):
    config = dataclasses.replace(written(tmp_path, TOML), pool=7)
    (tmp_path / "task.toml").rename(tmp_path / "gone.toml")
    with pytest.raises(UserError, match=r"data\.task_file=.*task\.toml: No such file"):
        with_task_text(config)
    (tmp_path / "gone.toml").rename(tmp_path / "task.toml")
    resolved = with_task_text(config)
    (tmp_path / "task.toml").unlink()
    assert resolved == DataConfig(
        pool=7, instruction=SAID.instruction, label_descriptions=SAID.label_descriptions
    )
    assert read_task(resolved) == SAID


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('instructions = "x"', "unknown key 'instructions'; did you mean 'instruction'?"),
        ('instruction = "x"\n[label]\na = "b"', "unknown key 'label'; did you mean 'labels'?"),
        ("instruction = 3", "task.toml: instruction is of type int, not a string"),
        ('instruction = ["x"]', "instruction is of type list, not a string"),
        ('labels = "billing"', "[labels] must be a table, got str"),
        ("[labels]\nbilling = 1", "[labels]: the description of 'billing' is of type int, not a s"),
        ("[labels.billing]\nteam = 'x'", "[labels]: the description of 'billing' is of type dict"),
        ('[labels]\nbilling = "  "', "'billing' = '  ' is empty; describe the label or leave it"),
        ('[labels]\na = "x"\n" a" = "y"', "[labels]: 'a' is described twice"),
        ("", "is empty; expected instruction"),
        ('instruction = " "\n[labels]\n', "is empty"),
        ("Which team?", "is not TOML: "),
        ('instruction = "x', "is not TOML: "),
        ('instruction = "x"\ninstruction = "y"', "is not TOML: Cannot overwrite a value"),
        ("a = " + "[" * 100_000, "is not TOML: "),
        ("a = " + "1" * 5_000, "is not TOML: "),
        (b'instruction = "caf\xe9"', "is not UTF-8 (byte 18); save it as UTF-8"),
    ],
    ids=lambda value: None if isinstance(value, str) and len(value) < 99 else "other",
)
def test_a_mistake_in_the_file_names_it(tmp_path, content, message):
    config = written(tmp_path, content)
    with pytest.raises(UserError, match=re.escape(message)) as error:
        read_task(config)
    assert str(error.value).startswith(f"data.task_file={config.task_file}: ")


def test_a_folder_is_no_task_file(tmp_path):
    with pytest.raises(UserError, match=r"data\.task_file=.*: Is a directory"):
        read_task(DataConfig(task_file=str(tmp_path)))


def test_what_is_found_at_the_start_of_a_run(tmp_path):
    file = written(tmp_path, TOML).task_file
    run = RunConfig()
    for settings, message in {
        ("data.task_file=gone.toml",): "data.task_file=gone.toml: No such file",
        (f"data.task_file={file}", "data.instruction=x"): "data.instruction and data.task_file=",
        (
            f"data.task_file={file}",
            "data.label_descriptions=a:b",
        ): "data.label_descriptions and data.task_file=",
        ("data.label_descriptions=a: ",): "data.label_descriptions=a: : expected NAME:VALUE",
        ("data.instruction=  ",): "data.instruction='  ' is blank",
        ("data.instruction=\n\t",): r"data.instruction='\n\t' is blank",
        (f"data.task_file={file}", "data.instruction= "): "data.instruction=' ' is blank",
    }.items():
        with pytest.raises(UserError, match=re.escape(message)):
            validate(override(run, settings))
    for descriptions in ({"a": 1}, {1: "a"}):
        with pytest.raises(UserError, match=r"data\.label_descriptions.*expected str"):
            validate(dataclasses.replace(run, data=DataConfig(label_descriptions=descriptions)))
    with pytest.raises(UserError, match=r"data\.label_descriptions=refunds: expected NAME:VALUE"):
        override(run, ["data.label_descriptions=billing:charges,refunds"])


ROWS = """\
{"id": "1", "question": "My card was charged twice.", "answer": "billing", "split": "train"}
{"id": "2", "question": "I am locked out.", "answer": "sign in", "split": "dev"}
{"id": "3", "question": "Hello?", "answer": "other", "split": "test"}
"""


def tickets(tmp_path, **settings):
    path = tmp_path / "tickets.jsonl"
    path.write_text(ROWS)
    choices = ("billing", "sign in", "other")
    return DataConfig("jsonl", str(path), kind="label", **{"choices": choices, **settings})


def test_every_example_of_every_split_has_the_task(tmp_path):
    file = written(tmp_path, TOML).task_file
    splits = load(tickets(tmp_path, task_file=file), 0)
    bare = load(tickets(tmp_path), 0)
    for name in ("pool", "dev", "test"):
        (told,), (untold,) = getattr(splits, name), getattr(bare, name)
        assert told.task == SAID and untold.task == Task()
        assert dataclasses.replace(told, task=Task()) == untold


def test_practice_tasks_may_be_told_too():
    splits = load(DataConfig(pool=9, test=2, instruction="Answer in {digits}."), 0)
    bare = load(DataConfig(pool=9, test=2), 0)
    assert {e.task.instruction for e in splits.pool} == {"Answer in {digits}."}
    assert [e.question for e in splits.pool] == [e.question for e in bare.pool]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"label_descriptions": {"Billing": "x"}},
            "the description of label 'Billing': the labels are billing, other, sign in; did you "
            "mean 'billing'?",
        ),
        (
            {"label_descriptions": {"billing": "x"}, "kind": "text"},
            "the description of label 'billing': no question has labels, which require "
            "data.kind=label; describe it in data.instruction",
        ),
        (
            {"label_descriptions": {"billing": "x"}, "kind": "choice"},
            "no question has labels",
        ),
    ],
)
def test_descriptions_are_of_labels_that_there_are(tmp_path, settings, message):
    data = dataclasses.replace(tickets(tmp_path), **settings)
    with pytest.raises(UserError, match=re.escape(message)):
        load(data, 0)


def test_labels_of_the_rows_themselves_may_be_described(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"id": "1", "question": "?", "answer": "a", "split": "train", "choices": ["a", "b"]}\n'
        '{"id": "2", "question": "!", "answer": "c", "split": "test", "choices": ["c", "d"]}\n'
    )
    data = DataConfig("jsonl", str(path), kind="label", label_descriptions={"b": "x", "d": "y"})
    assert load(data, 0).test[0].task == Task("", {"b": "x", "d": "y"})
