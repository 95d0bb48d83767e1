"""Reads overlays: TOML or YAML files with values for some fields of a config.

    seed = 1
    [budget]
    queries = 40

A file is data: YAML is read by its safe loader, and nothing is executed. Each value is checked as a
flag is, and an error names the file and the line.
"""

import dataclasses
import re
import tomllib
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml

from bridge_jax.config.fields import check_value
from bridge_jax.config.io import Change, parse
from bridge_jax.config.run import RunConfig
from bridge_jax.errors import UserError, brief, nearest, require

_LineOf = Callable[[Sequence[str]], int]  # The line of a key, from 1; 0 if it is not known.
_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?")
_ENTRY = re.compile(r"\s*([\w\"'.-][\w\"'. -]*?)\s*=")


def read(path: str | Path) -> list[Change]:
    """Returns the values of an overlay, in order, to be applied with `io.override`.

    Args:
      path: of a .toml, .yaml or .yml file, with fields and groups as in `RunConfig`.

    Raises:
      UserError: it cannot be read, a field is unknown, or a value is not one that its field takes.
    """
    path = Path(path)
    readers = {".toml": _read_toml, ".yaml": _read_yaml, ".yml": _read_yaml}
    known = path.suffix in readers
    require(known, f"--overlay={path}: give a file that ends in .toml, .yaml or .yml")
    try:
        values, line_of = readers[path.suffix](path.read_text(encoding="utf-8-sig"))
        require(isinstance(values, dict), f"--overlay={path}: give fields and their values")
        return list(_changes(RunConfig, values, [], path, line_of))
    except OSError as error:
        raise UserError(f"--overlay={path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--overlay={path}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        why = getattr(error, "problem", None) or str(error)
        at = f" (line {mark.line + 1})" if mark else ""
        raise UserError(f"--overlay={path}: no YAML: {why}{at}") from None
    except RecursionError:
        raise UserError(f"--overlay={path}: nested too deeply") from None


def _changes(
    kind: Any, values: Mapping[Any, Any], above: list[str], path: Path, line_of: _LineOf
) -> Iterator[Change]:
    """Yields the changes of a group, which is the dataclass `kind`."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for name, value in values.items():
        names = [*above, str(name)]
        key, line = ".".join(names), line_of(names)
        where = f"{path}, line {line}" if line else str(path)
        if name not in hints:
            meant = ".".join([*above, nearest(str(name), hints)])
            raise UserError(f"{where}: unknown config key {brief(key)!r}: did you mean {meant!r}?")
        if dataclasses.is_dataclass(hints[name]):
            is_group = isinstance(value, Mapping)
            require(is_group, f"{where}: config key {key!r} is a group: give it fields")
            yield from _changes(hints[name], value, names, path, line_of)
            continue
        try:
            typed = _typed(hints[name], value, key)
            check_value(hints[name], typed, key)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        yield Change(key, typed)


def _typed(hint: Any, value: Any, key: str) -> Any:
    """Returns a value as the config has it; one of a wrong type stays, and `check_value` says so.

    A text in place of a number is read as a flag is: YAML takes 1e-4 for a text.
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
        """Finds the first line that begins with the key; in what a text quotes it may be wrong."""
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
