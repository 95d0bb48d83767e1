"""Tokenizes texts such that markers in user content are never read as markers.

A message that contains `<|im_end|>` must not end a turn: markers are recognized only in the
template's own text. Markers are the special tokens, and the added tokens that look like them, such
as `<think>`. Added words ("metformin") and runs of white space, which Gemma has, are ordinary
vocabulary.

A text whose contents hold no markers is tokenized as it is. Any other text is tokenized by a copy
of the tokenizer whose markers have other names, which nobody can guess: the template's markers are
replaced by those names, and a marker in a content is then ordinary text.

Prompts of one task have a common prefix, for example a system message that lists the labels.
`read_all` has a Hugging Face tokenizer read such a prefix once, up to a marker after it. This
changes no id: the library splits every text at the added tokens first, and normalizes and tokenizes
each piece separately. All that matters is whether a piece is at the beginning of the text, and a
rest that begins with a marker has no such piece.
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
    """A marker in a text: its id, and its (start, end) in characters."""

    id: int
    start: int
    end: int


# The ids of a text, and the markers among them, in order.
Reading = tuple[list[int], list[Found]]
ReadAll = Callable[[list[str]], list[Reading]]
# A text, and the (start, end) of each message content in it, in order.
Marked = tuple[str, Sequence[tuple[int, int]]]
# The random names of the markers, by id, and a tokenizer that recognizes these names.
Renamed = tuple[dict[int, str], Callable[[str], list[int]]]


def is_marker(text: str, special: bool) -> bool:
    """Returns whether only templates write this token: it is special, or looks like one."""
    if not text.strip("▁ \t\r\n"):
        return False
    return special or _READS_LIKE_ONE.fullmatch(text) is not None


def whole_characters(text: str) -> str:
    """Returns the text with U+FFFD for each lone surrogate, which tokenizers refuse."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def aliases(ids: Iterable[int]) -> dict[int, str]:
    """Returns a random name for each marker, in lower-case letters, which no normalizer changes.

    Every process draws its own names. No returned id depends on them.
    """
    drawn = secrets.token_hex(16)
    return {i: f"q{drawn}g{i:x}q".translate(_LETTERS) for i in ids}


def encode_all(
    items: Sequence[Marked],
    readings: Sequence[Reading],
    read: ReadAll,
    renamed: Callable[[], Renamed],
) -> list[list[int]]:
    """Returns the ids of texts; every marker inside a content is tokenized as ordinary text.

    Args:
      items: the texts with their contents.
      readings: the result of `read` for each text, including markers inside contents.
      read: the tokenizer.
      renamed: makes the random names of the markers, and the tokenizer that recognizes them.
    """
    return [
        _encode_apart(text, contents, read, renamed()) if _in_contents(found, contents) else ids
        for (text, contents), (ids, found) in zip(items, readings)
    ]


def _in_contents(found: Sequence[Found], contents: Sequence[tuple[int, int]]) -> bool:
    return any(m.start < end and m.end > start for start, end in contents for m in found)


def _encode_apart(
    text: str, contents: Sequence[tuple[int, int]], read: ReadAll, renamed: Renamed
) -> list[int]:
    """Returns the ids of a text whose contents hold markers."""
    masked, at = "", 0  # The text with "x" for each character of a content; white space stays.
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
    """Returns a copy of a tokenizer with renamed markers, and a map of its added ids to the old.

    The markers are renamed in the vocabulary too, since some models match any text against it.
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
    if isinstance(vocabulary, list):  # of (piece, score) pairs, in id order
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


def cuts(added: Iterable[Any], is_marker: Callable[[Any], bool]) -> tuple[str, ...]:
    """Returns the markers before which texts may be cut, for a tokenizer with these added tokens.

    There are none if an added token strips the white space before it, or depends on the letters
    beside it.
    """
    added = list(added)
    if any(token.lstrip or token.single_word for token in added):
        return ()
    marks = [token.content for token in added if not token.normalized and is_marker(token)]
    return tuple(mark for mark in marks if re.match(r"[^\w\s]", mark))


def read_all(items: Sequence[Marked], read: ReadAll, cut_at: Sequence[str]) -> list[Reading]:
    """Returns the ids and markers of each text, the same as if each were read alone.

    Args:
      items: the texts.
      read: the tokenizer, for whole texts.
      cut_at: markers before which a text may be cut.
    """
    # Texts with the same key have the same text before their last content.
    keys = [(t[: c[-1][0]], tuple(c[:-1])) if c else ("", ()) for t, c in items]
    counts = collections.Counter(keys)
    heads = {}
    for key, (text, _) in zip(keys, items):
        if key not in heads:
            heads[key] = _head(*key, text, read, cut_at) if counts[key] > 1 else ("", ([], []))
    found = [heads[key] for key in keys]
    rests = read([text[len(head) :] for (text, _), (head, _) in zip(items, found)])
    return [_joined(head, reading, rest) for (head, reading), rest in zip(found, rests)]


def _head(
    before: str,
    contents: Sequence[tuple[int, int]],
    text: str,
    read: ReadAll,
    cut_at: Sequence[str],
) -> tuple[str, Reading]:
    """Returns the longest prefix that can be read alone, and its reading; "" if there is none.

    Args:
      before: the text before the last content, which all texts of a group share.
      contents: the contents in `before`.
      text: one of the texts.
      read: the tokenizer.
      cut_at: markers before which a text may be cut.
    """
    place = max((before.rfind(marker) for marker in cut_at), default=0)
    if place >= max([1, *(end for _, end in contents)]):
        head = text[:place]
        reading, rest, whole = read([head, text[place:], text])
        # They differ if an added token spans the cut.
        if _joined(head, reading, rest) == whole and not _in_contents(reading[1], contents):
            return head, reading
    return "", ([], [])


def _joined(head: str, reading: Reading, rest: Reading) -> Reading:
    at = len(head)
    moved = [Found(m.id, m.start + at, m.end + at) for m in rest[1]]
    return [*reading[0], *rest[0]], [*reading[1], *moved]
