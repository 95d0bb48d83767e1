"""Reads many texts at once with a Hugging Face tokenizer; what they have in common, once.

Prompts of one task begin alike: with a system message that lists the labels, say. Such a beginning
is tokenized once, up to a marker after it. That changes no id. The library cuts every text at the
added tokens first, and normalizes and tokenizes each piece by itself; only whether a piece begins
the text matters to it, and a rest that begins with a marker has no such piece.
"""

import collections
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from bridge_jax.text.markers import Found, Marked, Reading, in_contents

ReadAll = Callable[[list[str]], list[Reading]]


class Cuts(NamedTuple):
    """Where texts may be cut.

    Attributes:
      at: the markers before which a text may be cut.
      added: all texts that are one token wherever they stand.
    """

    at: tuple[str, ...]
    added: tuple[str, ...]


class _Head(NamedTuple):
    """What texts begin with, and its ids and markers."""

    text: str
    reading: Reading


def cuts(added: Iterable[Any], is_marker: Callable[[Any], bool]) -> Cuts:
    """Returns where texts may be cut, for a tokenizer with these added tokens.

    It is nowhere if one takes the white space before it, or looks at the letters beside it.
    """
    added = list(added)
    if any(token.lstrip or token.single_word for token in added):
        return Cuts((), ())
    verbatim = [token for token in added if not token.normalized]
    at = [t.content for t in verbatim if is_marker(t) and not _joins_words(t.content[:1])]
    return Cuts(tuple(at), tuple(token.content for token in verbatim))


def read_all(items: Sequence[Marked], read: ReadAll, where: Cuts) -> list[Reading]:
    """Returns the ids and markers of each text, the same as if each were read alone.

    Args:
      items: the texts.
      read: the tokenizer, for whole texts.
      where: they may be cut.
    """
    keys = [_before_last(text, contents) for text, contents in items]
    counts = collections.Counter(keys)
    heads: dict[Any, _Head | None] = {}
    for key, (text, _) in zip(keys, items):
        if key not in heads and counts[key] > 1:
            heads[key] = _head(key, text, read, where)
    found = [heads.get(key) for key in keys]
    rests = read([text[len(h.text) :] if h else text for (text, _), h in zip(items, found)])
    return [_joined(head, rest) for head, rest in zip(found, rests)]


def _before_last(text: str, contents: Sequence[tuple[int, int]]) -> tuple[str, Any]:
    """Returns what stands before the last content, and where the other contents are in it."""
    if not contents:
        return "", ()
    return text[: contents[-1][0]], tuple(contents[:-1])


def _head(key: tuple[str, Any], text: str, read: ReadAll, where: Cuts) -> _Head | None:
    """Returns the longest beginning, read; None if there is none that can be read alone.

    Args:
      key: what `_before_last` returned.
      text: one of the texts, to compare with.
      read: the tokenizer.
      where: texts may be cut.
    """
    before, contents = key
    least = max((end for _, end in contents), default=0)
    place, marker = max(((before.rfind(m), m) for m in where.at), default=(0, ""))
    if place < max(1, least) or _crosses(before[:place], marker, where.added):
        return None
    beginning = before[:place]
    reading, rest, whole = read([beginning, text[place:], text])
    head = _Head(beginning, reading)
    # The comparison is in case a version of the library should do it otherwise.
    return None if in_contents(reading[1], contents) or _joined(head, rest) != whole else head


def _crosses(before: str, marker: str, added: Iterable[str]) -> bool:
    """Returns whether an added token could begin in `before` and reach into what follows it."""
    for token in added:
        for size in range(1, len(token)):
            rest = token[size:]
            if before.endswith(token[:size]) and (
                rest.startswith(marker) or marker.startswith(rest)
            ):
                return True
    return False


def _joined(head: _Head | None, rest: Reading) -> Reading:
    if head is None:
        return rest
    (ids, found), at = head.reading, len(head.text)
    return [*ids, *rest[0]], [*found, *(Found(m.id, m.start + at, m.end + at) for m in rest[1])]


def _joins_words(char: str) -> bool:
    return not char or char.isspace() or char.isalnum() or char == "_"
