"""Describes config fields for people: the type, the default and the documentation of each.

The documentation comes from the docstrings of the dataclasses: an entry under `Attributes:` is one
or more names, a colon, and the text.
"""

import dataclasses
import inspect
import re
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from bridge_jax.config.fields import LocalPath, OneOf, Range, WebAddress
from bridge_jax.errors import UserError, nearest

_ENTRY = re.compile(r"  (\w+(?:, \w+)*): (.*)")


class Field(NamedTuple):
    """A field of a config.

    Attributes:
      key: the dotted name, such as "data.pool".
      kind: the type in words; "" for a group.
      default: the default as written in a flag; "" for a group.
      doc: its entry in the dataclass's docstring; for a group without an entry, the first line of
        the group's own docstring.
      group: the dataclass, if this is a group of fields; None for a value.
    """

    key: str
    kind: str
    default: str
    doc: str
    group: type | None = None


def docs(kind: type) -> dict[str, str]:
    """Returns field -> its entry under `Attributes:` in the docstring of a dataclass."""
    found: dict[str, str] = {}
    names: list[str] = []
    _, _, listed = inspect.cleandoc(kind.__doc__ or "").partition("\nAttributes:\n")
    for line in listed.splitlines():
        if entry := _ENTRY.fullmatch(line):
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        elif line.startswith("    "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            names = []
    return found


def summary(kind: type) -> str:
    """Returns the first line of the docstring of a dataclass."""
    return inspect.cleandoc(kind.__doc__ or "").split("\n", 1)[0]


def fields(config: Any, prefix: str = "") -> list[Field]:
    """Returns the fields of a config or of one of its groups, in order; groups are not expanded.

    Args:
      config: a dataclass; its values are the defaults.
      prefix: text put before each field name to form its key, such as "data.".
    """
    said = docs(type(config))
    hints = typing.get_type_hints(type(config), include_extras=True)
    found = []
    for field in dataclasses.fields(config):
        value, key = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            doc = said.get(field.name) or summary(type(value))
            found.append(Field(key, "", "", doc, type(value)))
        else:
            doc = said.get(field.name, "")
            found.append(Field(key, _in_words(hints[field.name]), as_flag(value), doc))
    return found


def at(config: Any, key: str) -> Any:
    """Returns the group or the value under a key such as "warmup.train".

    Raises:
      UserError: there is no such key; the message suggests the nearest one.
    """
    found, passed = config, ""
    for name in key.split("."):
        is_group = dataclasses.is_dataclass(found)
        names = [field.name for field in dataclasses.fields(found)] if is_group else []
        if name not in names:
            near = passed + nearest(name, names) if names else passed[:-1]
            raise UserError(f"unknown config key {key!r}; did you mean {near!r}?")
        found, passed = getattr(found, name), f"{passed}{name}."
    return found


def as_flag(value: Any) -> str:
    """Returns a value as it is written on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(as_flag, value))
    if isinstance(value, Mapping):
        return ",".join(f"{left}:{right}" for left, right in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _in_words(hint: Any) -> str:
    rules: list[Any] = []
    while typing.get_origin(hint) is Annotated:
        hint, *more = typing.get_args(hint)
        rules += more
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " | ".join(name or '""' for name in args)
    if origin is tuple:
        return f"list of {_in_words(args[0])}"
    if origin is Mapping:
        return f"NAME:VALUE,... where NAME is {_in_words(args[0])}"
    plain = {bool: "true | false", int: "whole number", float: "number", str: "text"}[hint]
    for rule in rules:
        match rule:
            case Range():
                return f"{plain}, {rule.words()}"
            case OneOf():
                return " | ".join(rule.names)
            case LocalPath():
                return "path"
            case WebAddress():
                return "address"
    return plain
