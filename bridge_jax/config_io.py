"""Configs from Python files, from the command line, and to and from JSON."""

import dataclasses
import difflib
import hashlib
import importlib.util
import json
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from bridge_jax.errors import UserError


def load(path: str | Path, *functions: str) -> Any:
    """Returns what the Python file at `path` says: a `RunConfig` of get_config, or a study.

    Args:
      path: the file.
      functions: the first of these that it has is called; by default `get_config`.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"--config={path}: no such file")
    spec = importlib.util.spec_from_file_location(f"bridge_config_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = functions or ("get_config",)
    for name in names:
        if hasattr(module, name):
            return getattr(module, name)()
    raise UserError(f"{path}: has no {'() or '.join(names)}()")


def override(config: Any, assignments: Sequence[str], _prefix: str = "") -> Any:
    """Returns `config` with each "a.b=value" applied; the values are parsed by the field's type."""
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        if not separator:
            raise UserError(f"--config.{key}: give a value, --config.{key}=VALUE")
        config = _set(config, key.split("."), value, key)
    return config


def to_json(config: Any) -> dict[str, Any]:
    """Returns the config as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_json(kind: Any, values: Mapping[str, Any]) -> Any:
    """Returns the dataclass `kind` from what `to_json` gave; fields added since have defaults."""
    hints = typing.get_type_hints(kind)
    return kind(**{name: _from_json(hints[name], v) for name, v in values.items() if name in hints})


def _from_json(kind: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        return from_json(kind, value)
    return tuple(value) if typing.get_origin(kind) is tuple else value


def digest(value: Any) -> str:
    """Returns 16 hex digits that identify a JSON value."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _set(node: Any, path: list[str], value: str, full: str) -> Any:
    hints = typing.get_type_hints(type(node))
    name = path[0]
    if name not in hints:
        near = difflib.get_close_matches(name, hints, n=1, cutoff=0.0)
        prefix = full[: len(full) - len(".".join(path))]
        meant = prefix + ".".join([near[0], *path[1:]])
        raise UserError(f"unknown config key {full!r}: did you mean {meant!r}?")
    current = getattr(node, name)
    if len(path) > 1:
        if not dataclasses.is_dataclass(current):
            raise UserError(f"config key {full!r}: {name!r} is a value, it has no {path[1]!r}")
        return dataclasses.replace(node, **{name: _set(current, path[1:], value, full)})
    if dataclasses.is_dataclass(current):
        raise UserError(
            f"config key {full!r} is a group: set one of "
            f"{', '.join(f.name for f in dataclasses.fields(current))}"
        )
    return dataclasses.replace(node, **{name: _parse(value, hints[name], full)})


def _parse(text: str, kind: Any, key: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if text in args:
            return text
        raise UserError(f"{key}={text}: one of {', '.join(args)}")
    if origin is tuple:
        return tuple(_parse(part, args[0], key) for part in text.split(",") if part)
    if origin is not None and issubclass(origin, Mapping):
        pairs = [part.partition(":") for part in text.split(",") if part]
        if bad := ["".join(pair) for pair in pairs if not (pair[0] and pair[2])]:
            raise UserError(
                f"{key}={bad[0]}: expected NAME:VALUE,NAME:VALUE; a value that has a comma goes "
                "into the Python config"
            )
        return {left: right for left, _, right in pairs}
    if kind is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise UserError(f"{key}={text}: true or false")
    assert not isinstance(kind, types.UnionType)
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"{key}={text}: expected {kind.__name__}") from None
