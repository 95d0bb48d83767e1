"""Lists of token ids as two arrays, which are kept on disk and mapped from there."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bridge_jax import caches

_PARTS = ("tokens.npy", "offsets.npy")


@dataclasses.dataclass(frozen=True, eq=False)
class Ragged(Sequence[list[int]]):
    """N lists of token ids.

    Attributes:
      tokens: int32[T], all lists, one after another.
      offsets: int64[N+1], where each list begins, and T.
    """

    tokens: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> "Ragged":
        """Returns lists of ids as arrays."""
        offsets = np.zeros(len(lists) + 1, np.int64)
        np.cumsum([len(ids) for ids in lists], out=offsets[1:])
        flat = itertools.chain.from_iterable(lists)
        return cls(np.fromiter(flat, np.int32, int(offsets[-1])), offsets)

    @classmethod
    def join(cls, parts: Iterable["Ragged"]) -> "Ragged":
        """Returns the lists of all `parts`, in order."""
        parts = [cls.of([]), *parts]
        starts = np.cumsum([0, *(part.offsets[-1] for part in parts[:-1])])
        offsets = [part.offsets[1:] + start for part, start in zip(parts, starts)]
        tokens = np.concatenate([part.tokens for part in parts])
        return cls(tokens, np.concatenate([np.zeros(1, np.int64), *offsets]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> list[int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"list {index} of {len(self)}")
        start = index % len(self)
        return self.tokens[self.offsets[start] : self.offsets[start + 1]].tolist()

    def __iter__(self) -> Iterator[list[int]]:
        return (self[index] for index in range(len(self)))

    @property
    def lengths(self) -> np.ndarray:
        """int64[N], the tokens of each list."""
        return np.diff(self.offsets)

    @property
    def largest(self) -> int:
        """The largest id; 0 where there is none."""
        return int(self.tokens.max(initial=0))

    def save(self, folder: Path, name: str, facts: Mapping[str, Any]) -> None:
        """Writes the arrays as the entry `name` of a cache."""
        arrays = dict(zip(_PARTS, (self.tokens, self.offsets)))
        parts = {part: _saver(array) for part, array in arrays.items()}
        counts = {"lists": len(self), "tokens": len(self.tokens)}
        caches.write(folder, name, parts, {**facts, **counts})

    @classmethod
    def load(cls, folder: Path, name: str) -> "Ragged | None":
        """Returns the arrays of the entry `name`, mapped; None unless it is whole."""
        if caches.read(folder, name, _PARTS) is None:
            return None
        files = [caches.path_of(folder, name, part) for part in _PARTS]
        try:
            return cls(*(np.load(file, mmap_mode="r", allow_pickle=False) for file in files))
        except (OSError, ValueError):  # Somebody removed or replaced it just now.
            return None


def _saver(array: np.ndarray) -> Any:
    return lambda file: np.save(file, array, allow_pickle=False)
