"""How long a text gets that a filter or a method of a template would make, before it makes it.

Each function takes what the filter or the method takes, and returns an upper bound in characters.
"""

import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# A directive of printf: its width and its precision, as digits or as a star.
_PRINTF = re.compile(r"%(?:\([^()]*\))?[#0 +-]*(\d+|\*)?(?:\.(\d+|\*)?)?")
_DIGITS = re.compile(r"\d+")
# More than any template may write.
_ENDLESS = 1 << 62
# Parts of a value that are looked at; lists that share their parts can have any number.
_PARTS = 200_000


def weigh(value: Any, level: int = 0) -> int:
    """Returns about how many characters `value` has when it is written.

    Args:
      value: a text, or lists and dicts of them, whose parts may be shared.
      level: characters before each part, for every list or dict around it.
    """
    total, seen, rest = 0, 0, [(value, 0)]
    while rest:
        part, depth = rest.pop()
        seen += 1
        total += level * depth + 1
        if isinstance(part, str | bytes):
            total += len(part) - 1
        elif isinstance(part, Mapping):
            rest += [(each, depth + 1) for pair in part.items() for each in pair]
        elif isinstance(part, list | tuple | set | frozenset):
            rest += [(each, depth + 1) for each in part]
        elif isinstance(part, int):
            total += part.bit_length() // 3
        if seen + len(rest) > _PARTS:
            return _ENDLESS
    return total


def printf(template: Any, values: Any) -> int:
    """Bounds `template % values`."""
    parts = values if isinstance(values, tuple) else (values,)
    longest, star = _longest(parts)
    size = len(template)
    for numbers in _PRINTF.findall(str(template)):
        size += longest + sum(star if n == "*" else _whole(n) for n in numbers if n)
    return size


def _longest(values: Sequence[Any]) -> tuple[int, int]:
    """Returns the size of the longest of `values`, and the largest whole number among them."""
    numbers = [abs(value) for value in values if isinstance(value, int)]
    return max((weigh(v) for v in values), default=0), max(numbers, default=0)


def _whole(digits: str) -> int:
    return int(digits) if len(digits) < 18 else _ENDLESS


def _format(text: Any, *args: Any, **kwargs: Any) -> int:
    longest, star = _longest([*args, *kwargs.values()])
    size = len(text)
    for _, field, spec, _ in string.Formatter().parse(str(text)):
        if field is None:
            continue
        size += longest + sum(map(_whole, _DIGITS.findall(spec or "")))
        size += star * (spec or "").count("{")
    return size


def _format_map(text: Any, values: Any) -> int:
    return _format(text, *values.values())


def _printf_filter(text: Any, *args: Any, **kwargs: Any) -> int:
    return printf(str(text), (*args, *kwargs.values()))


def _pad(text: Any, width: int = 80, *_: Any) -> int:
    return max(len(str(text)), width)


def _replace(text: Any, old: Any, new: Any, count: int | None = None) -> int:
    if not isinstance(text, bytes):
        text, old, new = str(text), str(old), str(new)
    times = text.count(old)
    if count is not None and count >= 0:
        times = min(times, count)
    return len(text) + times * len(new)


def _indent(text: Any, width: Any = 4, *_: Any, **__: Any) -> int:
    each = len(width) if isinstance(width, str) else width
    return len(text) + max(each, 0) * (len(text.splitlines()) + 1)


def _wrap(
    text: Any,
    width: int = 79,
    break_long_words: bool = True,
    wrapstring: str | None = None,
    break_on_hyphens: bool = True,
) -> int:
    # Each line holds a character or more, and a long word is copied for each of its lines.
    longest = max(map(len, str(text).split()), default=0)
    copied = longest * longest // max(width, 1) // 1000 if break_long_words else 0
    return len(str(text)) * (1 + len(wrapstring or "\n")) + copied


def _joined(values: Any, by: Any = "", *_: Any, **__: Any) -> int:
    return weigh(values) + len(str(by)) * len(values)


def _batch(_: Any, count: int, fill_with: Any = None) -> int:
    return 0 if fill_with is None else count


def _slice(_: Any, slices: int, *__: Any, **___: Any) -> int:
    return slices


def _round(_: Any, precision: int = 0, *__: Any, **___: Any) -> int:
    return abs(precision)


def _json(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> int:
    level = len(indent) if isinstance(indent, str) else indent or 0
    return weigh(value, level + sum(map(len, separators or ())))


def _links(
    text: Any,
    trim_url_limit: int | None = None,
    nofollow: bool = False,
    target: Any = None,
    rel: Any = None,
    extra_schemes: Any = None,
) -> int:
    return len(str(text)) + len(str(text).split()) * (len(target or "") + len(rel or ""))


def _written(value: Any, *_: Any, **__: Any) -> int:
    return weigh(value)


# Filters, by name. Those with `_written` write what they are given, whatever it is.
FILTERS: dict[str, Callable[..., int]] = {
    "batch": _batch,
    "center": _pad,
    "format": _printf_filter,
    "indent": _indent,
    "join": _joined,
    "replace": _replace,
    "round": _round,
    "slice": _slice,
    "tojson": _json,
    "urlize": _links,
    "wordwrap": _wrap,
    "string": _written,
    "pprint": _written,
    "e": _written,
    "escape": _written,
    "forceescape": _written,
    "upper": _written,
    "lower": _written,
    "title": _written,
    "capitalize": _written,
    "trim": _written,
    "truncate": _written,
    "striptags": _written,
    "urlencode": _written,
    "safe": _written,
    "wordcount": _written,
    "xmlattr": _written,
}


def _expand(text: Any, tabsize: int = 8) -> int:
    tab = b"\t" if isinstance(text, bytes) else "\t"
    return len(text) + text.count(tab) * max(tabsize, 0)  # pyright: ignore[reportArgumentType]


def _join_method(by: Any, values: Any) -> int:
    return _joined(values, by)


def _translate(text: Any, table: Any, *_: Any, **__: Any) -> int:
    if isinstance(text, bytes):
        return len(text)
    return len(text) * max((len(v) for v in table.values() if isinstance(v, str)), default=1)


def _to_bytes(_: Any, length: int = 1, *__: Any, **___: Any) -> int:
    return length


# Methods of texts and numbers, by name; their first argument is the text or the number.
METHODS: dict[str, Callable[..., int]] = {
    "center": _pad,
    "expandtabs": _expand,
    "format": _format,
    "format_map": _format_map,
    "join": _join_method,
    "ljust": _pad,
    "replace": _replace,
    "rjust": _pad,
    "to_bytes": _to_bytes,
    "translate": _translate,
    "zfill": _pad,
}
