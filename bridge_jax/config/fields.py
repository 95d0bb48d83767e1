"""Declares and checks the values that config fields accept.

    epochs: Size = 3
    dropout: Annotated[float, Range(least=0, below=1)] = 0.0

Every int has to fit in 32 bits, and every float has to be finite in 32 bits, since they end up in
arrays of that size. A string has to be valid Unicode without NUL. A tuple has no duplicates and no
empty strings.
"""

import dataclasses
import math
import re
import typing
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from bridge_jax.config import address
from bridge_jax.errors import UserError, brief

LARGEST_INT = 2**31 - 1
LARGEST_FLOAT = (2 - 2**-23) * 2.0**127  # in 32 bits
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclasses.dataclass(frozen=True)
class Range:
    """Requires a number in a range.

    Attributes:
      above, least: the lower bound, exclusive or inclusive.
      below, most: the upper bound, exclusive or inclusive.
      also: one number outside the range that is allowed too.
      what: the name of the quantity, for the message.
    """

    above: float = -math.inf
    least: float = -math.inf
    below: float = math.inf
    most: float = math.inf
    also: float | None = None
    what: str = ""

    def refuses(self, value: float) -> str:
        """Returns the range in words if `value` is outside it, else ""."""
        inside = self.above < value < self.below and self.least <= value <= self.most
        return "" if inside or value == self.also else self.words()

    def words(self) -> str:
        """Returns the range as messages show it, such as "0 to below 1"."""
        if self.most < math.inf or self.below < math.inf:
            high = f"below {self.below:g}" if self.below < math.inf else f"{self.most:g}"
            if self.least > -math.inf:
                said = f"{self.least:g} to {high}"
            elif self.above > -math.inf:
                said = f"above {self.above:g}, at most {high}"
            else:
                said = high if self.below < math.inf else f"{high} or less"
        else:
            said = f"above {self.above:g}" if self.above > -math.inf else f"{self.least:g} or more"
        also = "" if self.also is None else f", or {self.also:g}"
        return f"{self.what}, {said}{also}" if self.what else f"{said}{also}"


@dataclasses.dataclass(frozen=True)
class OneOf:
    """Requires one of the given strings."""

    names: Collection[str]

    def refuses(self, value: str) -> str:
        """Returns the names if `value` is not among them, else ""."""
        return "" if value in self.names else f"choose one of {', '.join(self.names)}"


class Unkeyed:
    """Marks a field that affects the speed or the cost of a result, but not the result.

    Such a field is left out of all keys (`pipeline.stages`): changing it makes no stage run again.
    """

    def refuses(self, value: Any) -> str:
        """Returns "": every value is accepted."""
        return ""


class LocalPath(Unkeyed):
    """Requires a path without a scheme such as gs://; keys identify it by its content."""

    def refuses(self, value: str) -> str:
        """Returns what to give instead of an address such as gs://bucket/file, else ""."""
        found = _SCHEME.match(value)
        if not found:
            return ""
        return f"a local path, since {found[0]} cannot be read yet: copy the files to a local disk"


class WebAddress:
    """Requires the address of a server, or an empty string."""

    def refuses(self, value: str) -> str:
        """Returns "", or raises a `UserError` that shows nothing that may be secret."""
        address.check(value)
        return ""


UNKEYED = Unkeyed()
Place = Annotated[str, LocalPath()]
Count = Annotated[int, Range(least=0)]
Size = Annotated[int, Range(least=1)]
Share = Annotated[float, Range(least=0, most=1)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(least=0)]
LogProbability = Annotated[float, Range(most=0, what="a log-probability")]
Address = Annotated[str, WebAddress()]


def check(config: Any, prefix: str = "") -> None:
    """Checks the type and the value of every field of a dataclass, nested dataclasses included.

    Args:
      config: a dataclass.
      prefix: text put before a field's name in messages.

    Raises:
      UserError: a value is not of its field's type, or the field does not accept it.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        check_value(hints[field.name], getattr(config, field.name), prefix + field.name)


def check_value(kind: Any, value: Any, key: str) -> None:
    """Checks the value of one field, whose declared type is `kind`; raises as `check` does."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        check_value(args[0], value, key)
        for rule in args[1:]:
            _require(not (right := rule.refuses(value)), key, value, right)
    elif origin is Literal:
        _require(value in args, key, value, f"choose one of {', '.join(args)}")
    elif origin is tuple:
        _require_type(isinstance(value, tuple), key, value, "tuple")
        for part in value:
            check_value(args[0], part, key)
            _require(part != "", key, ",".join(map(str, value)), "contains an empty item")
            _require(
                value.count(part) == 1, key, ",".join(map(str, value)), f"{part} is listed twice"
            )
    elif origin is Mapping:
        _require_type(isinstance(value, Mapping), key, value, "dict")
        for left, right in value.items():
            check_value(args[0], left, key)
            check_value(args[1], right, f"{key}.{left}")
            _require(bool(left and right), key, f"{left}:{right}", "the name or the value is empty")
    elif dataclasses.is_dataclass(kind):
        kind = typing.cast(type, kind)
        _require_type(isinstance(value, kind), key, value, kind.__name__)
        check(value, f"{key}.")
    else:
        _check_plain(kind, value, key)


def _check_plain(kind: Any, value: Any, key: str) -> None:
    if kind is bool:
        _require_type(isinstance(value, bool), key, value, "bool")
    elif kind is int:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        _require_type(is_whole, key, value, "int")
        fits = abs(value) <= LARGEST_INT
        _require(fits, key, value, f"a whole number up to {LARGEST_INT:,}")
    elif kind is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        _require_type(is_number, key, value, "float")
        fits = abs(value) <= LARGEST_FLOAT  # False for NaN.
        _require(fits, key, value, "a finite number that fits in 32 bits")
    elif kind is str:
        _require_type(isinstance(value, str), key, value, "str")
        _require(
            _is_text(value),
            key,
            value.encode(errors="replace"),
            "expected Unicode text without NUL",
        )
    else:
        raise TypeError(f"{key}: no check for fields of type {kind}")


def _is_text(value: str) -> bool:
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:  # half a surrogate pair, or an undecodable byte from a command line
        return False


def _require(ok: bool, key: str, value: Any, right: str) -> None:
    if not ok:
        raise UserError(f"{key}={brief(value)}: {right}")


def _require_type(ok: bool, key: str, value: Any, name: str) -> None:
    if not ok:
        found = type(value).__name__
        raise UserError(f"{key}={brief(repr(value))}: expected {name}, got {found}")
