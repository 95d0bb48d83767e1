"""Tokenizes the text between markers with SentencePiece."""

import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from bridge_jax.text import markers


class Marker(NamedTuple):
    """A text that is one id, and whether it takes the white space beside it."""

    id: int
    special: bool
    lstrip: bool = False
    rstrip: bool = False


class Reader:
    """Text to ids: it is cut at the markers, and what is between is sentencepiece's."""

    def __init__(self, pieces: Any, cut_at: dict[str, Marker], watched: Sequence[int]):
        """Takes tensorflow-text's tokenizer, what to cut at, and the ids that are told."""
        self._pieces, self._markers, self._watched = pieces, cut_at, frozenset(watched)
        longest_first = sorted(cut_at, key=len, reverse=True)
        self._cut = re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")

    def read(self, text: str) -> markers.Reading:
        """Returns the ids of `text`, and those that are watched with their places."""
        return self.read_all([text])[0]

    def read_all(self, texts: Sequence[str]) -> list[markers.Reading]:
        """Returns what `read` returns for each; parts that they have in common are read once."""
        cut = [self._parts(text) for text in texts]
        read = self._tokenize({part for parts, _ in cut for part in parts[::2] if part})
        return [self._joined(parts, places, read) for parts, places in cut]

    def _parts(self, text: str) -> tuple[list[str], list[int]]:
        """Returns the parts of a text, of which the odd ones are markers, and where they begin."""
        parts = self._cut.split(text)
        places = [0, *itertools.accumulate(map(len, parts))]
        for at in range(1, len(parts), 2):
            marker = self._markers[parts[at]]
            if marker.lstrip:
                parts[at - 1] = parts[at - 1].rstrip()
            if marker.rstrip:
                after = parts[at + 1].lstrip()
                places[at + 1] += len(parts[at + 1]) - len(after)
                parts[at + 1] = after
        return parts, places

    def _tokenize(self, parts: set[str]) -> dict[str, markers.Reading]:
        """Returns the ids of parts without markers, and those that are watched."""
        if not parts:
            return {}
        texts = list(parts)
        tokenized = self._pieces.tokenize_with_offsets(texts)
        ids, starts, ends = (ragged.flat_values.numpy().tolist() for ragged in tokenized)
        splits = tokenized[0].row_splits.numpy().tolist()
        read = {}
        for text, first, last in zip(texts, splits, splits[1:]):
            hits = [n for n in range(first, last) if ids[n] in self._watched]
            data = text.encode() if hits else b""
            found = [
                markers.Found(
                    ids[n],
                    len(data[: starts[n]].decode(errors="ignore")),
                    len(data[: ends[n]].decode(errors="ignore")),
                )
                for n in hits
            ]
            read[text] = ids[first:last], found
        return read

    def _joined(
        self, parts: list[str], places: list[int], read: dict[str, markers.Reading]
    ) -> markers.Reading:
        ids, found = [], []
        for at, (part, place) in enumerate(zip(parts, places)):
            if at % 2:
                i = self._markers[part].id
                ids.append(i)
                if i in self._watched:
                    found.append(markers.Found(i, place, place + len(part)))
            elif part:
                new, hits = read[part]
                ids += new
                found += [markers.Found(m.id, place + m.start, place + m.end) for m in hits]
        return ids, found
