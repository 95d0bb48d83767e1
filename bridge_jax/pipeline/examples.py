"""Holds the examples of one split with their digest."""

from collections.abc import Sequence
from typing import overload

from bridge_jax.data.example import Example


class Examples(Sequence[Example]):
    """Examples in their order.

    Attributes:
      digest: the SHA-256 of what models read of them.
      by_id: each by its id.
    """

    def __init__(self, rows: Sequence[Example], digest: str):
        self._rows, self.digest = tuple(rows), digest
        self.by_id = {example.id: example for example in self._rows}

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Example, ...]: ...
    def __getitem__(self, index: int | slice) -> Example | tuple[Example, ...]:
        return self._rows[index]
