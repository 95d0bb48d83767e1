"""Computes two keys of a stage: by what is known before a run, and by what its inputs are.

The *deep* key is of the stage, its parameters and the deep keys of what it reads. The *shallow* key
is of the stage, its parameters and the content of what it reads. Fields that are marked `UNKEYED`
where they are declared, for they change speed or cost alone, are in neither.
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
        kept = [name for name in names if not _unkeyed(hints[name])]
        return {name: plain(getattr(value, name)) for name in kept}
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 0 and 0.0 are one.
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{value!r} cannot be part of a key")


def _unkeyed(hint: Any) -> bool:
    if typing.get_origin(hint) is not Annotated:
        return False
    return any(isinstance(rule, Unkeyed) for rule in typing.get_args(hint)[1:])


def key_of(stage: Stage, read: Mapping[str, str]) -> str:
    """Returns the key of a stage, given what stands for each of its `reads`, by argument."""
    artifact = stage.artifact
    return of_value(
        {
            "stage": artifact.name,
            "version": artifact.version,
            "params": plain(stage.params),
            "reads": {argument: found for argument, found in read.items() if found},
        }
    )[:_DIGITS]


def deep_keys(stages: Sequence[Stage], inputs: Mapping[str, Input]) -> dict[str, str]:
    """Returns the deep key of each stage, in order."""
    known: dict[str, str] = {}
    for stage in stages:
        known[stage.name] = key_of(stage, _known(stage, inputs, known.__getitem__))
    return known


def shallow_key(stage: Stage, inputs: Mapping[str, Input], content: Callable[[str], str]) -> str:
    """Returns the shallow key of a stage; `content` gives that of the result of another."""
    return key_of(stage, _known(stage, inputs, content))


def _known(
    stage: Stage, inputs: Mapping[str, Input], result: Callable[[str], str]
) -> dict[str, str]:
    read = {
        argument: inputs[name].key() if name in inputs else result(name)
        for argument, name in stage.reads.items()
    }
    return read | {name: inputs[name].key() for name in stage.keyed_by}
