"""Loads configs from Python files, changes them, and converts them to and from JSON.

An overlay is a TOML or YAML file with values for some fields of a config:

    seed = 1
    [budget]
    queries = 40

An overlay is data: YAML is read with the safe loader, and nothing is executed. Each value is
checked like that of a flag, and an error names the file and, if it is known, the line.
"""

import dataclasses
import hashlib
import importlib.util
import json
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml

from bridge_jax.config.fields import check, check_value
from bridge_jax.config.run import RunConfig
from bridge_jax.errors import UserError, brief, nearest, require


class Change(NamedTuple):
    """A new value for a config field, already of the field's type."""

    key: str
    value: Any


def load(path: str | Path, *functions: str) -> Any:
    """Returns the `RunConfig` of a Python file's `get_config()`, or the result of another function.

    Args:
      path: the file.
      functions: names of functions; the first one that the file has is called. By default
        `get_config`.

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
      changes: "a.b=value", parsed according to the field's type, or a `Change` (`read_overlay`).

    Raises:
      UserError: a key is unknown, a value is not of its field's type, or `config` is not a
        dataclass.
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
    """Returns the dataclass `kind` built from the output of `to_json`; missing fields get defaults.

    Fields that `kind` does not have are ignored: the config in the workdir of an earlier version
    may have settings that no longer exist, and `launch.report` and `launch.export` still have to
    read it.
    """
    if typing.get_origin(kind) is tuple:
        return tuple(value)
    if not dataclasses.is_dataclass(kind):
        return value
    hints, make = typing.get_type_hints(kind), typing.cast(Any, kind)
    return make(**{name: from_json(hints[name], v) for name, v in value.items() if name in hints})


def read(kind: Any, path: Path) -> Any:
    """Returns the dataclass `kind` that is stored as JSON at `path`, checked field by field.

    Raises:
      UserError: the file is damaged.
    """
    try:
        found = from_json(kind, json.loads(path.read_text()))
        check(found)
    except (OSError, ValueError, AttributeError, TypeError, UserError) as error:
        raise UserError(f"{path}: damaged ({error}); the next run rewrites it") from error
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
        raise UserError(f"unknown config key {full!r}; did you mean {meant!r}?")
    current = getattr(node, name)
    if len(path) > 1:
        if not dataclasses.is_dataclass(current):
            raise UserError(
                f"config key {full!r}: {name!r} is a value, not a group; it has no {path[1]!r}"
            )
        return dataclasses.replace(node, **{name: _set(current, path[1:], value, full)})
    if dataclasses.is_dataclass(current):
        raise UserError(
            f"config key {full!r} is a group: set one of "
            f"{', '.join(f.name for f in dataclasses.fields(current))}"
        )
    new = value.value if isinstance(value, Change) else parse(value, hints[name], full)
    return dataclasses.replace(node, **{name: new})


def parse(text: str, kind: Any, key: str) -> Any:
    """Returns the value of a string from the command line.

    Args:
      text: the string as the user wrote it.
      kind: the field's type, without annotations.
      key: the key of the field, for messages.

    Raises:
      UserError: the string cannot be read as this type.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        require(text in args, f"{key}={brief(text)}: choose one of {', '.join(args)}")
        return text
    if origin is tuple:
        parts = text.split(",") if text else ()
        return tuple(parse(part.strip(), args[0], key) for part in parts)
    if origin is not None and issubclass(origin, Mapping):
        return _parse_pairs(text, key)
    if kind is bool:
        require(text.lower() in ("true", "false"), f"{key}={brief(text)}: expected true or false")
        return text.lower() == "true"
    if kind is str:
        return text
    assert not isinstance(kind, types.UnionType)
    try:
        if not text.isascii():  # Python accepts the digits of every script.
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
                f"{key}={brief(part)}: expected NAME:VALUE,NAME:VALUE; set a value that contains a "
                "comma in the Python config"
            )
        require(left not in found, f"{key}={brief(part)}: {left} is listed twice")
        found[left] = right
    return found


_LineOf = Callable[[Sequence[str]], int]  # The line of a key, from 1; 0 if unknown.
_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?")
_ENTRY = re.compile(r"\s*([\w\"'.-][\w\"'. -]*?)\s*=")


def read_overlay(path: str | Path) -> list[Change]:
    """Returns the changes in an overlay file, in order, to be applied with `override`.

    Args:
      path: a .toml, .yaml or .yml file with fields and groups as in `RunConfig`.

    Raises:
      UserError: the file cannot be read, a field is unknown, or a field does not accept its value.
    """
    path = Path(path)
    readers = {".toml": _read_toml, ".yaml": _read_yaml, ".yml": _read_yaml}
    known = path.suffix in readers
    require(known, f"--overlay={path}: the file name must end in .toml, .yaml or .yml")
    try:
        values, line_of = readers[path.suffix](path.read_text(encoding="utf-8-sig"))
        require(isinstance(values, dict), f"--overlay={path}: expected fields and their values")
        return list(_changes(RunConfig, values, [], path, line_of))
    except OSError as error:
        raise UserError(f"--overlay={path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--overlay={path}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        why = getattr(error, "problem", None) or str(error)
        at = f" (line {mark.line + 1})" if mark else ""
        raise UserError(f"--overlay={path}: not valid YAML: {why}{at}") from None
    except RecursionError:
        raise UserError(f"--overlay={path}: nested too deeply") from None


def _changes(
    kind: Any, values: Mapping[Any, Any], above: list[str], path: Path, line_of: _LineOf
) -> Iterator[Change]:
    """Yields the changes of one group, whose dataclass is `kind`."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for name, value in values.items():
        names = [*above, str(name)]
        key, line = ".".join(names), line_of(names)
        where = f"{path}, line {line}" if line else str(path)
        if name not in hints:
            meant = ".".join([*above, nearest(str(name), hints)])
            raise UserError(f"{where}: unknown config key {brief(key)!r}; did you mean {meant!r}?")
        if dataclasses.is_dataclass(hints[name]):
            is_group = isinstance(value, Mapping)
            require(is_group, f"{where}: config key {key!r} is a group; set fields in it")
            yield from _changes(hints[name], value, names, path, line_of)
            continue
        try:
            typed = _typed(hints[name], value, key)
            check_value(hints[name], typed, key)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        yield Change(key, typed)


def _typed(hint: Any, value: Any, key: str) -> Any:
    """Returns a value in the field's type; one of a wrong type is left for `check_value` to reject.

    A string in place of a number is parsed like a flag, since YAML reads 1e-4 as a string.
    """
    while typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        (part, *_) = typing.get_args(hint)
        return tuple(_typed(part, each, key) for each in value)
    if hint in (int, float) and isinstance(value, str):
        return parse(value, hint, key)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**64 else value
    return value


def _read_toml(text: str) -> tuple[Any, _LineOf]:
    lines = text.splitlines()

    def line_of(names: Sequence[str]) -> int:
        """Returns the first line that begins with the key; multi-line strings may mislead it."""
        above: list[str] = []
        for number, line in enumerate(lines, 1):
            if header := _HEADER.fullmatch(line):
                above = _parts(header[1])
                found = above
            elif entry := _ENTRY.match(line):
                found = [*above, *_parts(entry[1])]
            else:
                continue
            if found[: len(names)] == list(names):
                return number
        return 0

    return tomllib.loads(text), line_of


def _parts(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in dotted.split(".")]


def _read_yaml(text: str) -> tuple[Any, _LineOf]:
    def line_of(names: Sequence[str]) -> int:
        node, line = yaml.compose(text, yaml.SafeLoader), 0
        for name in names:
            entries = node.value if isinstance(node, yaml.MappingNode) else ()
            for key, value in entries:
                if key.value == name:
                    node, line = value, key.start_mark.line + 1
                    break
            else:
                return line
        return line

    return yaml.safe_load(text), line_of
