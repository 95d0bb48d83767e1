"""Computes the two keys of a stage: one known before a run, one by the content of its inputs.

The *deep* key is of the stage, its parameters and the deep keys of what it reads. The *shallow* key
is of the stage, its parameters and the content of what it reads. Neither has the fields that change
speed or cost alone, which are marked `UNKEYED` where they are declared.
"""

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from bridge_jax.config.fields import Unkeyed
from bridge_jax.pipeline.content import of_value
from bridge_jax.pipeline.stages import Input, Stage

_DIGITS = 24  # of a key, hexadecimal; it is the name of a folder


def plain(value: Any) -> Any:
    """Returns parameters as JSON values, without the fields that are in no key."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = typing.get_type_hints(type(value), include_extras=True)
        names = (field.name for field in dataclasses.fields(value))
        return {name: plain(getattr(value, name)) for name in names if _is_keyed(hints[name])}
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 0 and 0.0 are one.
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{value!r} cannot be part of a key")


def _is_keyed(hint: Any) -> bool:
    marks = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
    return not any(isinstance(mark, Unkeyed) for mark in marks)


def deep_keys(stages: Sequence[Stage], inputs: Mapping[str, Input]) -> dict[str, str]:
    """Returns the deep key of each stage, in order."""
    known: dict[str, str] = {}
    for stage in stages:
        known[stage.name] = key_of(stage, inputs, known.__getitem__)
    return known


def key_of(stage: Stage, inputs: Mapping[str, Input], result: Callable[[str], str]) -> str:
    """Returns the key of a stage.

    Args:
      stage: whose.
      inputs: by name.
      result: name of a stage that it reads -> its deep key, for a deep key, or the hash of its
        content, for a shallow one.
    """
    read = {
        argument: inputs[name].key() if name in inputs else result(name)
        for argument, name in stage.reads.items()
    }
    read |= {name: inputs[name].key() for name in stage.keyed_by}
    keyed = {
        "stage": stage.artifact.name,
        "version": stage.artifact.version,
        "params": plain(stage.params),
        "reads": {argument: found for argument, found in read.items() if found},
    }
    return of_value(keyed)[:_DIGITS]
