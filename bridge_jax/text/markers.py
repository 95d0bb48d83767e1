"""Keeps the tokens that a chat template makes apart from what people, data and models wrote.

A text that holds `<|im_end|>` must not end a turn: in a content no marker is read, only in the
text of the template. Markers are the special tokens, and the added ones that read like them, such
as `<think>`; added words ("metformin") and runs of white space are vocabulary, as in Gemma.

A text without markers in its contents is tokenized as it is. Else it is tokenized by a copy of the
tokenizer whose markers have other names, which nobody can guess: the template's are replaced by
those names, and a content's are letters like any other.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

_READS_LIKE_ONE = re.compile(r"[<\[{|｜].+[>\]}|｜]", re.DOTALL)


class Found(NamedTuple):
    """A marker in a text: its id, and where it stands."""

    id: int
    start: int
    end: int


# From a text to its ids and to the markers among them, in order.
Read = Callable[[str], tuple[list[int], list[Found]]]


def is_marker(text: str, special: bool) -> bool:
    """Returns whether a token is written by templates alone."""
    if not text.strip("▁ \t\r\n"):
        return False
    return special or _READS_LIKE_ONE.fullmatch(text) is not None


def whole_characters(text: str) -> str:
    """Returns the text with U+FFFD for each half of a surrogate pair, which tokenizers refuse."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def aliases(ids: Iterable[int]) -> dict[int, str]:
    """Returns another name for each marker, of small letters, which normalizers leave as they are.

    Nobody can guess it: it is drawn anew in every process, and is in no id that is returned.
    """
    drawn = secrets.token_hex(16)
    return {i: f"q{drawn}g{i:x}q".translate(_LETTERS) for i in ids}


_LETTERS = str.maketrans("0123456789", "hijklmnopr")


def encode(
    text: str,
    contents: Sequence[tuple[int, int]],
    read: Read,
    renamed: Callable[[], tuple[dict[int, str], Callable[[str], list[int]]]],
) -> list[int]:
    """Returns the ids of a text in whose contents no marker is read.

    Args:
      text: the text.
      contents: (start, end) of what others wrote, in order.
      read: the tokenizer.
      renamed: makes the names of the markers, and the tokenizer that knows them by those.
    """
    ids, found = read(text)
    if not any(m.start < end and m.end > start for start, end in contents for m in found):
        return ids
    _, found = read(_without(text, contents))
    names, tokenize = renamed()
    pieces, at = [], 0
    for marker in found:
        pieces += text[at : marker.start], names[marker.id]
        at = marker.end
    return tokenize("".join([*pieces, text[at:]]))


def _without(text: str, contents: Sequence[tuple[int, int]]) -> str:
    """Returns the text with letters in place of its contents; white space stays."""
    pieces, at = [], 0
    for start, end in contents:
        pieces += text[at:start], re.sub(r"\S", "x", text[start:end])
        at = end
    return "".join([*pieces, text[at:]])
