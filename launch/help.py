"""Prints the flags of a command and the fields of the config, for a terminal of 80 columns.

`--help` lists the command's flags and the groups of the config, `--help=GROUP` the fields of one
group, such as data or warmup.train, and `--help=all` every field.
"""

import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from types import ModuleType

from absl import flags

from bridge_jax.config import RunConfig, describe

_WIDTH = 80
_INDENT = " " * 6


def command(module: ModuleType, takes_config: bool) -> str:
    """Returns the help of a launcher.

    Args:
      module: the launcher.
      takes_config: whether config fields are flags of the launcher.
    """
    lines = [*_wrapped(inspect.cleandoc(module.__doc__ or "")), "Flags"]
    for flag in _flags_of(module):
        # absl adds text that the usage already contains.
        words = re.sub(r"^<[^>]*>: |;\s+repeat this option .*", "", flag.help or "")
        lines += _entry([(_usage(flag), "")], words)
    words = "Read flags from a file, one a line; # begins a comment."
    lines += _entry([("--flagfile=FILE", "")], words)
    lines += _entry([("--version", "")], "Print the version.")
    if takes_config:
        lines += ["", "Fields of the config are flags too: --config.seed=1, --budget.queries=40."]
        lines += ["--help=NAME lists the fields of a group, --help=all those of all groups.", ""]
        lines += list(_groups())
    return "\n".join(lines)


def config(key: str) -> str:
    """Returns the fields under a key of the config, or all fields for "all".

    Raises:
      UserError: there is no such key; the message suggests the nearest one.
    """
    if key == "all":
        return "\n\n".join(_section(name) for name in ("config", *_all_groups()))
    if key == "config":
        return _section("config")
    key = key.removeprefix("config.")
    found = describe.at(RunConfig(), key)
    if hasattr(found, "__dataclass_fields__"):
        return _section(key)
    above, _, name = key.rpartition(".")
    group = describe.at(RunConfig(), above) if above else RunConfig()
    prefix = f"{above}." if above else ""
    (field,) = (f for f in describe.fields(group, prefix) if f.key == prefix + name)
    return "\n".join(_entry([(_flag(field), field.kind)], field.doc))


def _section(name: str) -> str:
    """Returns the fields of a group; fields with the same doc are listed together."""
    is_root = name == "config"
    group = RunConfig() if is_root else describe.at(RunConfig(), name)
    lines = _filled(f"{name}: {describe.summary(type(group))}", "")
    fields = describe.fields(group, "" if is_root else f"{name}.")
    of_doc: dict[str, list[describe.Field]] = {}
    for field in fields:
        if field.group is None:
            of_doc.setdefault(field.doc, []).append(field)
        elif not is_root:
            lines += _entry([(f"--{field.key}.*", "")], f"{field.doc} See --help={field.key}.")
    for doc, same in of_doc.items():
        lines += _entry([(_flag(field), field.kind) for field in same], doc)
    return "\n".join(lines)


def _groups() -> Iterator[str]:
    """Yields lines with the groups of the config; groups with the same doc are together."""
    names: dict[str, list[str]] = {describe.summary(RunConfig): ["config"]}
    for field in describe.fields(RunConfig()):
        if field.group is not None:
            names.setdefault(field.doc, []).append(field.key)
    for doc, same in names.items():
        yield from _entry([(", ".join(same), "")], doc)


def _all_groups(above: str = "") -> Iterator[str]:
    group = describe.at(RunConfig(), above) if above else RunConfig()
    for field in describe.fields(group, f"{above}." if above else ""):
        if field.group is not None:
            yield field.key
            yield from _all_groups(field.key)


def _flag(field: describe.Field) -> str:
    prefix = "" if "." in field.key else "config."
    return f"--{prefix}{field.key}={field.default}"


def _flags_of(module: ModuleType) -> list[flags.Flag]:
    """Returns the flags of a launcher: those of the config, its own, and others."""
    by_module = flags.FLAGS.flags_by_module_dict()
    names = ["launch.settings", sys.argv[0], module.__name__]
    names += [name for name in by_module if name.startswith("launch.")]
    found = {flag.name: flag for name in names for flag in by_module.get(name, ())}
    return list(found.values())


def _usage(flag: flags.Flag) -> str:
    if flag.boolean:
        return f"--[no]{flag.name}" if flag.default else f"--{flag.name}"
    values = getattr(flag.parser, "enum_values", None)
    value = "|".join(values) if values else flag.flag_type().split()[-1].upper()
    if flag.default in (None, "", []):
        return f"--{flag.name}={value}"
    return f"--{flag.name}={value}  (default {flag.default})"


def _entry(heads: list[tuple[str, str]], text: str) -> list[str]:
    """Returns lines: each head, with its kind on the same line if it fits, and then the text."""
    lines = []
    for head, kind in heads:
        lines += _filled(head, "  ")
        if kind and len(lines[-1]) + len(kind) + 4 <= _WIDTH:
            lines[-1] += f"  ({kind})"
        elif kind:
            lines += _filled(f"({kind})", _INDENT)
    return lines + _filled(text, _INDENT, _INDENT)


def _filled(text: str, first: str, others: str = _INDENT + "  ") -> list[str]:
    """Returns a text wrapped into lines; no word is broken."""
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _wrapped(doc: str) -> Iterator[str]:
    """Yields the lines of a docstring; commands in it are not wrapped."""
    for paragraph in doc.split("\n\n"):
        is_command = paragraph.lstrip().startswith("python -m")
        yield from paragraph.split("\n") if is_command else _filled(paragraph, "", "")
        yield ""
