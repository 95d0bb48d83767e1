"""Loads configs from Python files, applies overrides, and converts configs to and from JSON."""

import dataclasses
import hashlib
import importlib.util
import json
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bridge_jax.config.fields import check
from bridge_jax.errors import UserError, brief, nearest, require


class Change(NamedTuple):
    """A value for a field of a config, of its type."""

    key: str
    value: Any


def load(path: str | Path, *functions: str) -> Any:
    """Returns the `RunConfig` of a Python file's get_config, or what another function returns.

    Args:
      path: the file.
      functions: the first of these that it has is called; by default `get_config`.

    Raises:
      UserError: there is no such file, or it has none of the functions.
    """
    path = Path(path)
    require(path.is_file(), f"--config={path}: no such file")
    spec = importlib.util.spec_from_file_location(f"bridge_config_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = functions or ("get_config",)
    for name in names:
        if hasattr(module, name):
            return getattr(module, name)()
    raise UserError(f"{path}: has no {'() or '.join(names)}()")


def override(config: Any, changes: Iterable[str | Change]) -> Any:
    """Returns `config` with each change applied, in order.

    Args:
      config: a dataclass.
      changes: "a.b=value", parsed by the field's type, or a `Change` (`config.overlays`).

    Raises:
      UserError: a key is unknown, a value is not of its type, or `config` is no config.
    """
    if not dataclasses.is_dataclass(config):
        raise UserError(f"the config is a {type(config).__name__}, not a RunConfig")
    for change in changes:
        if isinstance(change, Change):
            config = _set(config, change.key.split("."), change, change.key)
            continue
        key, separator, value = change.partition("=")
        if not separator:
            raise UserError(f"--config.{key}: give a value, --config.{key}=VALUE")
        config = _set(config, key.split("."), value, key)
    return config


def to_json(config: Any) -> dict[str, Any]:
    """Returns the config as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_json(kind: Any, value: Any) -> Any:
    """Returns the dataclass `kind` from the values of `to_json`; missing fields have defaults.

    Fields that `kind` does not have are left out: the config in the workdir of an earlier version
    may have settings that no longer exist, and `launch.report` and `launch.export` still read it.
    """
    if typing.get_origin(kind) is tuple:
        return tuple(value)
    if not dataclasses.is_dataclass(kind):
        return value
    hints, make = typing.get_type_hints(kind), typing.cast(Any, kind)
    return make(**{name: from_json(hints[name], v) for name, v in value.items() if name in hints})


def read(kind: Any, path: Path) -> Any:
    """Returns the dataclass `kind` that the file at `path` holds as JSON, checked field by field.

    Raises:
      UserError: the file is damaged.
    """
    try:
        found = from_json(kind, json.loads(path.read_text()))
        check(found)
    except (OSError, ValueError, AttributeError, TypeError, UserError) as error:
        raise UserError(f"{path}: damaged ({error}); the next run writes it again") from error
    return found


def digest(value: Any) -> str:
    """Returns 16 hex digits that identify a JSON value."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _set(node: Any, path: list[str], value: str | Change, full: str) -> Any:
    hints = typing.get_type_hints(type(node))
    name = path[0]
    if name not in hints:
        prefix = full[: len(full) - len(".".join(path))]
        meant = prefix + ".".join([nearest(name, hints), *path[1:]])
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
    new = value.value if isinstance(value, Change) else parse(value, hints[name], full)
    return dataclasses.replace(node, **{name: new})


def parse(text: str, kind: Any, key: str) -> Any:
    """Returns the value that a text on the command line stands for.

    Args:
      text: as the user wrote it.
      kind: the field's type, without annotations.
      key: of the field, for messages.

    Raises:
      UserError: it is not of the type.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        require(text in args, f"{key}={brief(text)}: one of {', '.join(args)}")
        return text
    if origin is tuple:
        parts = text.split(",") if text else ()
        return tuple(parse(part.strip(), args[0], key) for part in parts)
    if origin is not None and issubclass(origin, Mapping):
        return _parse_pairs(text, key)
    if kind is bool:
        require(text.lower() in ("true", "false"), f"{key}={brief(text)}: true or false")
        return text.lower() == "true"
    if kind is str:
        return text
    assert not isinstance(kind, types.UnionType)
    try:
        if not text.isascii():  # Python reads the digits of every script.
            raise ValueError
        return kind(text)
    except ValueError:
        raise UserError(f"{key}={brief(text)}: expected {kind.__name__}") from None


def _parse_pairs(text: str, key: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(",") if text else ():
        left, _, right = part.partition(":")
        left, right = left.strip(), right.strip()
        if not (left and right):
            raise UserError(
                f"{key}={brief(part)}: expected NAME:VALUE,NAME:VALUE; a value that has a comma "
                "goes into the Python config"
            )
        require(left not in found, f"{key}={brief(part)}: {left} is in twice")
        found[left] = right
    return found
