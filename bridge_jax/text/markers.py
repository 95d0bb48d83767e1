"""Tokenizes texts, and keeps the markers of a chat template apart from what others wrote.

A text that holds `<|im_end|>` must not end a turn: in a content no marker is read, only in the
text of the template. Markers are the special tokens, and the added ones that read like them, such
as `<think>`; added words ("metformin") and runs of white space are vocabulary, as in Gemma.

A text without markers in its contents is tokenized as it is. Any other is tokenized by a copy of
the tokenizer whose markers have other names, which nobody can guess: the template's are replaced by
those names, and a content's are letters like any other.

Prompts of one task begin alike: with a system message that lists the labels, say. `read_all` has a
Hugging Face tokenizer read such a beginning once, up to a marker after it. That changes no id. The
library cuts every text at the added tokens first, and normalizes and tokenizes each piece by
itself; all that matters to a piece is whether it begins the text, and a rest that begins with a
marker has no such piece.
"""

import collections
import json
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

_READS_LIKE_ONE = re.compile(r"[<\[{|｜].+[>\]}|｜]", re.DOTALL)
_LETTERS = str.maketrans("0123456789", "hijklmnopr")


class Found(NamedTuple):
    """A marker in a text: its id, and its place."""

    id: int
    start: int
    end: int


# The ids of a text, and the markers among them, in order.
Reading = tuple[list[int], list[Found]]
ReadAll = Callable[[list[str]], list[Reading]]
# A text, and (start, end) of what others wrote in it, in order.
Marked = tuple[str, Sequence[tuple[int, int]]]
# The other names of markers, and the tokenizer that knows them by those.
Renamed = tuple[dict[int, str], Callable[[str], list[int]]]


class Cuts(NamedTuple):
    """The places where texts may be cut.

    Attributes:
      at: the markers before which a text may be cut.
      added: all texts that are one token wherever they stand.
    """

    at: tuple[str, ...]
    added: tuple[str, ...]


class _Head(NamedTuple):
    """A beginning that texts share, with its ids and markers."""

    text: str
    reading: Reading


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


def encode_all(
    items: Sequence[Marked],
    readings: Sequence[Reading],
    read: ReadAll,
    renamed: Callable[[], Renamed],
) -> list[list[int]]:
    """Returns the ids of texts in whose contents no marker is read.

    Args:
      items: the texts with their contents.
      readings: of each, by `read`, markers in contents included.
      read: the tokenizer.
      renamed: makes the names of the markers, and the tokenizer that knows them by those.
    """
    return [
        _encode_apart(text, contents, read, renamed()) if _in_contents(found, contents) else ids
        for (text, contents), (ids, found) in zip(items, readings)
    ]


def _in_contents(found: Sequence[Found], contents: Sequence[tuple[int, int]]) -> bool:
    """Returns whether a marker was read in what others wrote, where none may be."""
    return any(m.start < end and m.end > start for start, end in contents for m in found)


def _encode_apart(
    text: str, contents: Sequence[tuple[int, int]], read: ReadAll, renamed: Renamed
) -> list[int]:
    """Returns the ids of a text, with its contents tokenized as text alone."""
    masked, at = "", 0  # Letters in place of the contents; white space stays.
    for start, end in contents:
        masked += text[at:start] + re.sub(r"\S", "x", text[start:end])
        at = end
    ((_, found),) = read([masked + text[at:]])
    names, tokenize = renamed
    pieces, at = [], 0
    for marker in found:
        pieces += text[at : marker.start], names[marker.id]
        at = marker.end
    return tokenize("".join([*pieces, text[at:]]))


def renamed(backend: Any, names: dict[int, str]) -> tuple[Any, dict[Any, int]]:
    """Returns a tokenizer whose markers have other names, and from its added ids to those before.

    The vocabulary is renamed too: some models would find a marker there without its being added.
    """
    import tokenizers

    data = json.loads(backend.to_str())
    data |= {"post_processor": None, "truncation": None, "padding": None}
    before = {}
    for token in data["added_tokens"]:
        token["content"] = names.get(token["id"], token["content"])
        before[token["content"]] = token["id"]
    model = data["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # of pairs (piece, score), in the order of their ids
        model["vocab"] = [
            [names.get(i, piece), score] for i, (piece, score) in enumerate(vocabulary)
        ]
    else:
        model["vocab"] = {names.get(i, piece): i for piece, i in vocabulary.items()}
        gone = {piece for piece, i in vocabulary.items() if i in names}
        if model.get("unk_token") in gone:
            model["unk_token"] = names[vocabulary[model["unk_token"]]]
        if "merges" in model:
            pairs = [m.split(" ", 1) if isinstance(m, str) else m for m in model["merges"]]
            model["merges"] = [pair for pair in pairs if gone.isdisjoint([*pair, "".join(pair)])]
    made = tokenizers.Tokenizer.from_str(json.dumps(data))
    return made, {made.token_to_id(content): i for content, i in before.items()}


def cuts(added: Iterable[Any], is_marker: Callable[[Any], bool]) -> Cuts:
    """Returns where texts may be cut, for a tokenizer with these added tokens.

    There is none if one takes the white space before it, or depends on the letters beside it.
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
    """Returns the text before the last content, and the places of the other contents."""
    if not contents:
        return "", ()
    return text[: contents[-1][0]], tuple(contents[:-1])


def _head(key: tuple[str, Any], text: str, read: ReadAll, where: Cuts) -> _Head | None:
    """Returns the longest beginning, read; None if there is none that can be read alone.

    Args:
      key: of the texts, by `_before_last`.
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
    return None if _in_contents(reading[1], contents) or _joined(head, rest) != whole else head


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
