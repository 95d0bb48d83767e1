"""Reads what a server wrote, whatever that is: JSON that is none, counts that are no counts.

Nothing here raises anything but `Unreadable`, and all of it takes linear time.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

# Nested deeper, nothing is a vendor's answer, and what reads or prints it would run out of stack.
_DEEPEST = 100
# No count of tokens is above that: the longest contexts take a tenth of it.
MOST_TOKENS = 100_000_000
# A string (to the end of the text, if nothing closes it), or a bracket outside of strings.
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


class Unreadable(ValueError):  # noqa: N818
    """What a server wrote is no JSON."""


def parsed(body: bytes | str) -> Any:
    """Returns the JSON value in `body`; bytes that are no UTF-8 become U+FFFD.

    Raises:
      Unreadable: there is none, or it is nested deeper than 100 levels.
    """
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    text = text.removeprefix("\ufeff")
    if text.count("{") + text.count("[") > _DEEPEST and _depth(text) > _DEEPEST:
        raise Unreadable(f"it is nested deeper than {_DEEPEST} levels")
    try:
        return json.loads(text, parse_int=_integer)
    except ValueError as error:
        raise Unreadable(f"it is no JSON ({error})") from None


def objects(body: bytes | str) -> list[Mapping[str, Any]]:
    """Returns the JSON objects of a response: one, those of a list, or those of an event stream.

    Some servers stream (`data: {...}`) though nobody asked for it.

    Raises:
      Unreadable: there are none.
    """
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    if text.lstrip("\ufeff\r\n\t ").startswith(("data:", "event:", "id:", "retry:", ":")):
        lines = [line.strip() for line in text.split("\n")]
        data = [line.removeprefix("data:") for line in lines if line.startswith("data:")]
        values = [parsed(line) for line in data if line.strip() not in ("", "[DONE]")]
    else:
        value = parsed(text)
        values = value if isinstance(value, list) else [value]
    found = [value for value in values if isinstance(value, Mapping)]
    if not found:
        raise Unreadable("there is no object in it")
    return found


def mapping(value: Any) -> Mapping[str, Any]:
    """Returns `value` if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> list[Any]:
    """Returns a list's items; anything else is the only item, None is no item."""
    if isinstance(value, list):
        return value
    return [] if value is None else [value]


def tokens(value: Any) -> int | None:
    """Returns a count of tokens; None for whatever is no whole number from 0 to `MOST_TOKENS`."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= MOST_TOKENS else None


def _integer(digits: str) -> int | float:
    """Returns an integer of JSON; a longer one than any count is a float, infinity at last."""
    return int(digits) if len(digits) <= 20 else float(digits)


def _depth(text: str) -> int:
    depth = deepest = 0
    for found in _BRACKETS.finditer(text):
        if found[0] in ("[", "{"):
            depth += 1
            deepest = max(deepest, depth)
        elif found[0] in ("]", "}"):
            depth -= 1
    return deepest
