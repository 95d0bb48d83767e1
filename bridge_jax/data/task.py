"""The task, said once: what is asked of every question, and what its labels mean.

Teacher, assistant and student are all told (`text.prompts`, `teachers.prompts`). Short ones are
`data.instruction` and `data.label_descriptions`, longer ones a file, `data.task_file`, in TOML:

    instruction = "Which team has to handle this support ticket?"

    [labels]
    billing = "Invoices, charges and refunds."
    "sign in" = "Passwords, and accounts that are locked."
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bridge_jax.config import DataConfig
from bridge_jax.errors import UserError

_KEYS = ("instruction", "labels")
_FORM = 'it holds instruction = """...""" and a table [labels] with label = "description"'


@dataclasses.dataclass(frozen=True)
class Task:
    """The task of a dataset, the same for all of its questions.

    Attributes:
      instruction: what is asked; empty where the questions say it themselves.
      label_descriptions: label -> what it means; not every label needs one.
    """

    instruction: str = ""
    label_descriptions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def is_said(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.instruction or self.label_descriptions)


def read(config: DataConfig) -> Task:
    """Returns the task that a config says, or the file that it names.

    Raises:
      UserError: the file cannot be read or is not of the form above, the instruction is blank, a
        description is empty, or the task is said in the file and in the config.
    """
    if config.instruction and not config.instruction.strip():
        raise UserError(
            f"data.instruction={config.instruction!r} is blank; say what is asked, or leave it out"
        )
    if not config.task_file:
        return _task(
            config.instruction,
            config.label_descriptions,
            ("data.instruction", "data.label_descriptions"),
        )
    for name in ("instruction", "label_descriptions"):
        if getattr(config, name):
            raise UserError(
                f"data.{name} and data.task_file={config.task_file} both say the task: keep one"
            )
    path = config.task_file
    value = _toml(path)
    for key in value:
        if key not in _KEYS:
            (near,) = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.0)
            raise UserError(
                f"data.task_file={path}: unknown key {key!r}, did you mean {near!r}? {_FORM}"
            )
    labels = value.get("labels", {})
    if not isinstance(labels, dict):
        raise UserError(f"data.task_file={path}: labels is {_kind(labels)}, not a table; {_FORM}")
    names = (f"data.task_file={path}: instruction", f"data.task_file={path}: [labels]")
    task = _task(value.get("instruction", ""), labels, names)
    if not task.is_said:
        raise UserError(f"data.task_file={path}: says nothing; {_FORM}")
    return task


def with_text(config: DataConfig) -> DataConfig:
    """Returns `config` with what its task file says in place of the file's name.

    So a workdir says what its run was told, wherever the file is by then.
    """
    if not config.task_file:
        return config
    task = read(config)
    return dataclasses.replace(
        config,
        instruction=task.instruction,
        label_descriptions=dict(task.label_descriptions),
        task_file="",
    )


def check_labels(task: Task, labels: Iterable[str]) -> None:
    """Raises a `UserError` unless every description is of one of the data's labels."""
    known = sorted(set(labels))
    for label in task.label_descriptions:
        if label in known:
            continue
        if not known:
            raise UserError(
                f"the description of label {label!r}: no question has labels, which are for "
                "data.kind=label; say it in data.instruction"
            )
        (near,) = difflib.get_close_matches(label, known, n=1, cutoff=0.0)
        shown = ", ".join(known[:20]) + ", ..." * (len(known) > 20)
        raise UserError(
            f"the description of label {label!r}: the labels are {shown}; did you mean {near!r}?"
        )


def _task(instruction: Any, descriptions: Mapping[Any, Any], names: tuple[str, str]) -> Task:
    """Returns the task with its texts stripped; `names` are those of its parts in messages."""
    if not isinstance(instruction, str):
        raise UserError(f"{names[0]} is {_kind(instruction)}, not a string")
    found = {}
    for label, text in descriptions.items():
        if not isinstance(label, str):
            raise UserError(f"{names[1]}: the label {label!r} is {_kind(label)}, not a string")
        if not isinstance(text, str):
            raise UserError(
                f"{names[1]}: the description of {label!r} is {_kind(text)}, not a string"
            )
        if not label.strip() or not text.strip():
            raise UserError(
                f"{names[1]}: {label!r} = {text!r} is empty; describe the label or leave it out"
            )
        if label.strip() in found:
            raise UserError(f"{names[1]}: {label.strip()!r} is described twice; keep one")
        found[label.strip()] = text.strip()
    return Task(instruction.strip(), found)


def _toml(path: str) -> dict[str, Any]:
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"data.task_file={path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"data.task_file={path}: is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # An integer of 5,000 digits is a ValueError.
        raise UserError(f"data.task_file={path}: is not TOML: {error}; {_FORM}") from None


def _kind(value: Any) -> str:
    return f"of type {type(value).__name__}"
