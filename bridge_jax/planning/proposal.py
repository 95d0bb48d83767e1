"""Proposes the config of a run on a user's own data, and writes it as Python.

Its models and training settings work on a CPU for short texts; lengths and budget follow from the
data.
"""

import dataclasses
import heapq
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridge_jax.config import (
    API_TEACHERS,
    BudgetConfig,
    DataConfig,
    EvaluationConfig,
    GenerationConfig,
    InstructConfig,
    ModelConfig,
    RunConfig,
    TeacherConfig,
    TrainConfig,
    WarmupConfig,
)
from bridge_jax.data.example import Splits
from bridge_jax.ledger.prices import in_usd
from bridge_jax.methods import teacher

# Our defaults, in tokens. A rationale with its answer is a few short sentences; a teacher's is kept
# only up to this length, so that it fits in a row.
_REASONING, _ANSWER = 192, 32
_REPLY = 2_048  # Tokens; hidden reasoning of a vendor's model counts too.
_QUERIES = 0.05  # Share of the pool.
_OF_CLASS = 12  # Fewest queries per class for a pool without labels. With 3, a student sorted 33%
# of the tickets of docs/tutorial.md correctly; with 12, 94%.
_TEST = 100  # Most test questions without an answer that the teacher is asked.
_SHORTEST = 64  # Least max_prompt_tokens; generated instructions have prompts of 54 tokens.
_KEPT = 0.95  # Smallest share of prompts that are not cut.
_WIDTH = 100  # Columns of the Python file.

Names = dict[TrainConfig, str]

_TO_FILL_IN = {
    "model": "fill in: the vendor's name of the model",
    "usd_per_million_input": "fill in: US dollars per 10^6 tokens",
    "usd_per_million_output": "fill in: US dollars per 10^6 tokens",
}


def starting(data: DataConfig) -> RunConfig:
    """Returns the config for a user's data before the lengths of its prompts are known."""
    name = re.sub(r"[^\w-]+", "_", Path(data.path).stem) or "data"
    if data.kind == "label" and not data.instruction and not data.task_file:
        column = data.columns.get("answer", "answer")
        asked = f'Read the text and say which of these labels is its "{column}".'
        if not data.labelled:
            asked = "Read the text and say which of these labels fits it best."
        data = dataclasses.replace(data, instruction=asked)
    return RunConfig(
        name=name,
        data=data,
        teacher=TeacherConfig(
            kind="openai",
            model="",
            usd_per_million_input=0.0,
            usd_per_million_output=0.0,
            max_output_tokens=_REPLY,
            max_rationale_tokens=_REASONING,
        ),
        assistant=ModelConfig(),
        student=ModelConfig(keep_layers=(0, 6, 12, 18, 24, 29)),
        warmup=WarmupConfig(0.05, _training(5e-5, epochs=1)),
        assistant_training=_training(3e-4, epochs=3),
        instruct=InstructConfig(120, _training(5e-4, epochs=1)),
        student_training=_training(7e-4, steps=400),
        generation=GenerationConfig(max_new_tokens=_REASONING + _ANSWER),
        evaluation=EvaluationConfig(assistant_examples=100, student_before=False),
    )


def fitted(config: RunConfig, max_prompt_tokens: int, longest: int, splits: Splits) -> RunConfig:
    """Returns the config with lengths and a budget for its data.

    Args:
      config: from `starting`, with the user's own settings.
      max_prompt_tokens: the proposed value.
      longest: the token count of the longest prompt.
      splits: the data.
    """
    room = row_tokens(config, max_prompt_tokens)
    data = config.data
    if splits.bad.rows:
        data = dataclasses.replace(data, on_bad_row="skip")
    cut = "cut_beginning" if data.kind == "choice" else "cut_end"  # Options come last.
    trainings = {
        name: dataclasses.replace(getattr(config, name), row_tokens=room)
        for name in ("assistant_training", "student_training", "labels_training")
    }
    parts = {
        name: dataclasses.replace(
            getattr(config, name),
            train=dataclasses.replace(getattr(config, name).train, row_tokens=room),
        )
        for name in ("warmup", "instruct")
    }
    if not data.labelled:
        config, parts = _without_labels(config, parts, splits)
    return dataclasses.replace(
        config,
        max_prompt_tokens=max_prompt_tokens,
        on_long_prompt=cut if longest > max_prompt_tokens else "error",
        data=data,
        budget=_budget(config, splits, config.evaluation.teacher_test),
        **trainings,
        **parts,
    )


def _without_labels(
    config: RunConfig, parts: dict[str, Any], splits: Splits
) -> tuple[RunConfig, dict[str, Any]]:
    """Returns the config and its `parts` for a pool without labels (README)."""
    bare = sum(example.answer is None for example in splits.test)
    changed = dataclasses.replace(
        config,
        selection=dataclasses.replace(config.selection, difficulty="entropy"),
        teacher=dataclasses.replace(config.teacher, keep_wrong=True),
        rationales=dataclasses.replace(config.rationales, filter="confidence"),
        evaluation=dataclasses.replace(config.evaluation, teacher_test=min(bare, _TEST)),
    )
    return changed, {**parts, "warmup": dataclasses.replace(parts["warmup"], fraction=0.0)}


def prompt_tokens(lengths: Any) -> int:
    """Returns `max_prompt_tokens` for prompts of these lengths, int[N].

    All prompts fit, except up to 5% that are longer than twice the 90th percentile.
    """
    ordered = sorted(map(int, lengths))
    most = len(ordered) - 1
    usual = 2 * ordered[math.floor(0.9 * most)]
    fitting = max(length for length in ordered if length <= usual)
    found = max(fitting, ordered[math.ceil(_KEPT * most)])
    return max(_SHORTEST, _rounded(found, 8))


def row_tokens(config: RunConfig, max_prompt_tokens: int) -> int:
    """Returns `row_tokens` of the trainings: room for a prompt, a rationale and an answer.

    A teacher's rationale fits too, if the config has a `max_rationale_tokens`.
    """
    limit = config.teacher.max_rationale_tokens
    written = max(config.generation.max_new_tokens, limit + _ANSWER if limit else 0)
    return _rounded(max_prompt_tokens + written, 32)


def as_python(config: RunConfig, docstring: str) -> str:
    """Returns a Python file whose `get_config` returns `config`, formatted as ruff does."""
    used: set[str] = {"RunConfig"}
    named = _named(config)
    constants = "".join(
        f"{name} = {_call(training, 0, used, {}, len(name) + 3)}\n"
        for training, name in named.items()
    )
    text = _call(config, 1, used, named, len("return "))
    imports = "".join(f"    {name},\n" for name in sorted(used))
    one_line = f"from bridge_jax.config import {', '.join(sorted(used))}\n"
    listed = f"from bridge_jax.config import (\n{imports})\n"
    return (
        f'"""{docstring}"""\n\n{one_line if len(one_line) <= _WIDTH else listed}'
        f"{constants and chr(10)}{constants}\n\n"
        f'def get_config() -> RunConfig:\n    """Returns the config."""\n    return {text}\n'
    )


def docstring(config: RunConfig, file: str, splits: Splits) -> str:
    """Returns the docstring of a config file `file`: the command to run it, and its data."""
    data, settings = safe_name(config.data.path), config.teacher
    queries = config.budget.queries
    sizes = [f"{len(part):,}" for part in (splits.pool, splits.dev, splits.test)]
    lines = [
        f"Trains a student on {data}.",
        "",
        f"    python -m launch.run --config={safe_name(file)} --workdir=runs/{config.name}",
        "",
        f"Written by launch.data. At the time the file had {sizes[0]} rows for the pool, of which",
        f"the teacher is asked about {queries:,}, {sizes[1]} for dev and {sizes[2]} for the test.",
    ]
    if settings.kind in API_TEACHERS and not (
        settings.model and (settings.free or _prices(config))
    ):
        lines.append("First fill in the name of the teacher's model and its prices.")
    return "\n".join(lines) + "\n"


def safe_name(path: str) -> str:
    """Returns a file name in characters that are safe in a docstring and a shell command."""
    return re.sub(r"[^\w./-]", "_", path)


def _prices(config: RunConfig) -> float:
    return min(config.teacher.usd_per_million_input, config.teacher.usd_per_million_output)


def _training(
    learning_rate: float, epochs: int = TrainConfig.epochs, steps: int = 0
) -> TrainConfig:
    return TrainConfig(epochs, steps, batch_rows=2, learning_rate=learning_rate, remat="none")


def _budget(config: RunConfig, splits: Splits, bought: int) -> BudgetConfig:
    """Returns a budget for a share of the pool and `bought` test answers, with the highest cost."""
    size = len(splits.pool)
    queries = max(1, round(_QUERIES * size))
    if not config.data.labelled:
        queries = max(queries, min(_OF_CLASS * len(config.data.choices), size // 2))
    queries += bought
    settings = config.teacher
    usd = 1.0
    if settings.kind in API_TEACHERS and not settings.free:
        params = teacher.asking(config)
        asker = teacher.make_teacher(params, splits.pool, len)
        requests = (teacher.make_request(params, example) for example in splits.pool)
        sizes = map(asker.estimate_input_tokens, requests)
        prices, most = teacher.prices_of(settings), settings.max_output_tokens
        costs = heapq.nlargest(queries, (prices.cost(n, most, settings.batch) for n in sizes))
        usd = math.ceil(in_usd(sum(costs)) * 100) / 100 or 1.0
    return dataclasses.replace(config.budget, queries=queries, usd=usd)


def _rounded(value: int, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple


def _named(config: RunConfig) -> Names:
    """Returns the names of constants for training settings that the config repeats."""
    found: Names = {}
    trainings = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    for name, training in trainings.items():
        is_repeated = list(trainings.values()).count(training) > 1
        if isinstance(training, TrainConfig) and training != TrainConfig() and is_repeated:
            found.setdefault(training, name.upper())
    return found


def _call(value: Any, depth: int, used: set[str], named: Names, taken: int) -> str:
    """Returns the source that constructs a dataclass, with the fields that are not defaults.

    Args:
      value: the dataclass.
      depth: the indentation of its line, in steps of four spaces.
      used: the names of the classes used so far, to which those in the call are added.
      named: training settings that are constants, with their names.
      taken: columns of its first line that other text takes, before and after it.
    """
    used.add(type(value).__name__)
    name, indent = type(value).__name__, "    " * (depth + 1)
    given = []
    for field in dataclasses.fields(value):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        found = getattr(value, field.name)
        to_fill_in = isinstance(value, TeacherConfig) and field.name in _TO_FILL_IN and not found
        if found != default or to_fill_in:
            note = f"  # {_TO_FILL_IN[field.name]}" if to_fill_in else ""
            given.append((field.name, _value(found, depth + 1, used, named, field.name), note))
    line = f"{name}({', '.join(f'{key}={text}' for key, text, _ in given)})"
    is_short = not any(note or "\n" in text for _, text, note in given)
    if is_short and len(indent) - 4 + taken + len(line) <= _WIDTH:
        return line
    inner = "".join(f"{indent}{key}={text},{note}\n" for key, text, note in given)
    return f"{name}(\n{inner}{indent[4:]})"


def _value(value: Any, depth: int, used: set[str], named: Names, key: str) -> str:
    if isinstance(value, TrainConfig) and value in named:
        return named[value]
    if dataclasses.is_dataclass(value):
        return _call(value, depth, used, named, len(key) + 2)
    room = _WIDTH - 4 * depth - len(key) - 2
    indent = "    " * depth
    if isinstance(value, str):
        return _text(value, room, depth)
    if isinstance(value, Mapping):
        pairs = [
            (_quoted(left), _text(right, room - len(_quoted(left)) - 4, depth + 1))
            for left, right in value.items()
        ]
        line = "{" + ", ".join(f"{left}: {right}" for left, right in pairs) + "}"
        inner = "".join(f"{indent}    {left}: {right},\n" for left, right in pairs)
        return line if len(line) < room else "{\n" + inner + indent + "}"
    if isinstance(value, tuple):
        parts = [_quoted(part) if isinstance(part, str) else repr(part) for part in value]
        line = f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
        inner = "".join(f"{indent}    {part},\n" for part in parts)
        return line if len(line) < room else "(\n" + inner + indent + ")"
    return repr(value)


def _text(value: str, room: int, depth: int) -> str:
    """Returns a string literal, or for a long text several, which Python concatenates."""
    if len(_quoted(value)) < room:
        return _quoted(value)
    indent, lines, line = "    " * (depth + 1), [], ""
    for part in re.findall(r"\S*\s*", value):
        if line and len(_quoted(line + part)) > _WIDTH - len(indent):
            lines.append(line)
            line = ""
        line += part
    inner = "".join(f"{indent}{_quoted(each)}\n" for each in [*lines, line])
    return f"(\n{inner}{indent[4:]})"


def _quoted(value: str) -> str:
    """Returns a string literal as ruff has it: in double quotes, unless that needs more escapes."""
    mark = "'" if value.count('"') > value.count("'") else '"'
    characters = (c if c in "'\"" else repr(c)[1:-1] for c in value)
    return mark + "".join(f"\\{c}" if c == mark else c for c in characters) + mark
