"""The header of a GGUF file (llama.cpp's format): its metadata, and where its tensors lie.

Everything that the header says is checked against the size of the file before it is believed, so a
damaged or hostile file is an error and never a large allocation. Format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import struct
from typing import Any, NamedTuple

import numpy as np

_SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_STRING, _ARRAY = 8, 9
_MOST_ITEMS = 1 << 22  # Of an array: ten times the largest vocabulary.
_MOST_AXES = 4
_ALIGNMENT = 32


class TensorInfo(NamedTuple):
    """One tensor of the file.

    Attributes:
      shape: its axes in PyTorch's order.
      kind: number of the way that it is stored.
      start: its first byte, counted from the beginning of the file's tensors.
    """

    shape: tuple[int, ...]
    kind: int
    start: int


class Header(NamedTuple):
    """What precedes the tensors.

    Attributes:
      metadata: the key-value pairs; numbers, strings, and lists of them.
      tensors: by name.
      data_start: first byte of the file's tensors.
    """

    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]
    data_start: int


def parse(file: np.ndarray) -> Header:
    """Returns the header of a file, uint8[bytes].

    Raises:
      ValueError: it is no GGUF file, cut off, or contradicts itself.
    """
    cursor = _Cursor(file)
    if cursor.take(4).tobytes() != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    version = cursor.whole("<I")
    if version not in (2, 3):
        raise ValueError(f"version {version}, in this byte order, is not supported")
    tensor_count, key_count = cursor.whole("<Q"), cursor.whole("<Q")
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        _add(metadata, cursor.text(), cursor.value(cursor.whole("<I")))
    tensors: dict[str, TensorInfo] = {}
    for _ in range(tensor_count):
        name, axes = cursor.text(), cursor.whole("<I")
        if not 1 <= axes <= _MOST_AXES:
            raise ValueError(f"tensor {name!r} has {axes} axes")
        shape = tuple(cursor.whole("<Q") for _ in range(axes))[::-1]
        _add(tensors, name, TensorInfo(shape, cursor.whole("<I"), cursor.whole("<Q")))
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if type(alignment) is not int or not 1 <= alignment <= 1 << 20:
        raise ValueError(f"general.alignment={alignment!r}")
    return Header(metadata, tensors, math.ceil(cursor.at / alignment) * alignment)


def _add(found: dict[str, Any], name: str, value: Any) -> None:
    if name in found:
        raise ValueError(f"{name!r} is there twice")
    found[name] = value


class _Cursor:
    """Reads a file from front to back."""

    def __init__(self, file: np.ndarray):
        self.at = 0
        self._file = file

    def take(self, count: int) -> np.ndarray:
        """Returns the next bytes: uint8[count]."""
        if count > len(self._file) - self.at:
            raise ValueError(f"{count} bytes are promised at byte {self.at}, where it is cut off")
        self.at += count
        return self._file[self.at - count : self.at]

    def whole(self, form: str) -> int:
        """Returns the next number, in the format of `struct`."""
        return struct.unpack(form, self.take(struct.calcsize(form)).tobytes())[0]

    def text(self) -> str:
        """Returns the next string."""
        return self.take(self.whole("<Q")).tobytes().decode()

    def value(self, kind: int) -> Any:
        """Returns the next value, of the type with the number `kind`."""
        if kind == _STRING:
            return self.text()
        if kind in _SCALARS:
            return self._numbers(kind, 1)[0]
        if kind != _ARRAY:
            raise ValueError(f"a value is of type {kind}, which there is not")
        kind, count = self.whole("<I"), self.whole("<Q")
        if count > _MOST_ITEMS:
            raise ValueError(f"a list of {count} items is longer than any that is needed")
        if kind == _STRING:
            return [self.text() for _ in range(count)]
        if kind not in _SCALARS:
            raise ValueError(f"a list is of type {kind}, which is not supported")
        return self._numbers(kind, count)

    def _numbers(self, kind: int, count: int) -> list[Any]:
        dtype = np.dtype(_SCALARS[kind])
        return self.take(count * dtype.itemsize).view(dtype).tolist()
