"""Declares and checks the values that config fields accept.

    epochs: Size = 3
    dropout: Annotated[float, Range(least=0, below=1)] = 0.0

Every int has to fit in 32 bits and every float has to be finite there, since they end in such
arrays. A text has to be Unicode. A tuple holds nothing twice and no empty text.
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
      above, least: the lower end, without or with the number itself.
      below, most: the upper end, likewise.
      also: one number outside that is allowed too.
      what: a name of the quantity, for the message.
    """

    above: float = -math.inf
    least: float = -math.inf
    below: float = math.inf
    most: float = math.inf
    also: float | None = None
    what: str = ""

    def refuses(self, value: float) -> str:
        """Returns the range in words, if `value` is outside."""
        inside = self.above < value < self.below and self.least <= value <= self.most
        return "" if inside or value == self.also else self.words()

    def words(self) -> str:
        """Returns the range as a message has it, such as "0 to below 1"."""
        if self.most < math.inf or self.below < math.inf:
            high = f"below {self.below:g}" if self.below < math.inf else f"{self.most:g}"
            if self.least > -math.inf:
                said = f"{self.least:g} to {high}"
            elif self.above > -math.inf:
                said = f"above {self.above:g}, {high} at most"
            else:
                said = high if self.below < math.inf else f"{high} or less"
        else:
            said = f"above {self.above:g}" if self.above > -math.inf else f"{self.least:g} or more"
        also = "" if self.also is None else f", or {self.also:g}"
        return f"{self.what}, {said}{also}" if self.what else f"{said}{also}"


@dataclasses.dataclass(frozen=True)
class OneOf:
    """Requires one of some texts."""

    names: Collection[str]

    def refuses(self, value: str) -> str:
        """Returns the names, if `value` is none of them."""
        return "" if value in self.names else f"one of {', '.join(self.names)}"


class Unkeyed:
    """Marks a field that changes the speed or the cost of a result, but not the result.

    Such a field is in no key (`pipeline.stages`): a changed one makes no stage run again.
    """

    def refuses(self, value: Any) -> str:
        """Returns "": any value will do."""
        return ""


class LocalPath(Unkeyed):
    """Requires a local file or folder, which keys know by its content, not by its name."""

    def refuses(self, value: str) -> str:
        """Returns what to give instead of an address such as gs://bucket/file."""
        found = _SCHEME.match(value)
        if not found:
            return ""
        return f"a local path, since {found[0]} cannot be read yet: copy the files to a local disk"


class WebAddress:
    """Requires the address of a server, or an empty text."""

    def refuses(self, value: str) -> str:
        """Returns ""; raises a `UserError` that does not show what may hold a secret."""
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
    """Checks type and value of every field of a dataclass and of those inside it.

    Args:
      config: a dataclass.
      prefix: what stands before a field's name in a message.

    Raises:
      UserError: a value is not of its field's type, or not one that the field takes.
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
        _require(value in args, key, value, f"one of {', '.join(args)}")
    elif origin is tuple:
        _require_type(isinstance(value, tuple), key, value, "tuple")
        for part in value:
            check_value(args[0], part, key)
            _require(part != "", key, ",".join(map(str, value)), "one of them is empty")
            _require(value.count(part) == 1, key, ",".join(map(str, value)), f"{part} is in twice")
    elif origin is Mapping:
        _require_type(isinstance(value, Mapping), key, value, "dict")
        for left, right in value.items():
            check_value(args[0], left, key)
            check_value(args[1], right, f"{key}.{left}")
            _require(bool(left and right), key, f"{left}:{right}", "one of the two is empty")
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
        fits = abs(value) <= LARGEST_FLOAT  # False of NaN.
        _require(fits, key, value, "a finite number that fits in 32 bits")
    elif kind is str:
        _require_type(isinstance(value, str), key, value, "str")
        _require(_is_text(value), key, value.encode(errors="replace"), "text in Unicode, no NUL")
    else:
        raise TypeError(f"{key}: no check for fields of type {kind}")


def _is_text(value: str) -> bool:
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:  # half a surrogate pair, or a byte of a command line
        return False


def _require(ok: bool, key: str, value: Any, right: str) -> None:
    if not ok:
        raise UserError(f"{key}={brief(value)}: {right}")


def _require_type(ok: bool, key: str, value: Any, name: str) -> None:
    if not ok:
        found = type(value).__name__
        raise UserError(f"{key}={brief(repr(value))}: expected {name}, this is {found}")
