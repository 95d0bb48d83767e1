"""Keeps the tokens that a chat template makes apart from what people, data and models wrote.

A text that holds `<|im_end|>` must not end a turn: in a content no marker is read, only in the
text of the template. Markers are the special tokens, and the added ones that read like them, such
as `<think>`; added words ("metformin") and runs of white space are vocabulary, as in Gemma.

A text without markers in its contents is tokenized as it is. Else it is tokenized by a copy of the
tokenizer whose markers have other names, which nobody can guess: the template's are replaced by
those names, and a content's are letters like any other.
"""

import json
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

_READS_LIKE_ONE = re.compile(r"[<\[{|｜].+[>\]}|｜]", re.DOTALL)


class Found(NamedTuple):
    """A marker in a text: its id, and where it stands."""

    id: int
    start: int
    end: int


# The ids of a text, and the markers among them, in order.
Reading = tuple[list[int], list[Found]]
Read = Callable[[str], Reading]
# A text, and (start, end) of what others wrote in it.
Marked = tuple[str, Sequence[tuple[int, int]]]


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
    if not in_contents(found, contents):
        return ids
    _, found = read(_without(text, contents))
    names, tokenize = renamed()
    pieces, at = [], 0
    for marker in found:
        pieces += text[at : marker.start], names[marker.id]
        at = marker.end
    return tokenize("".join([*pieces, text[at:]]))


def encode_all(
    items: Sequence[Marked], readings: Sequence[Reading], encode_one: Callable[..., list[int]]
) -> list[list[int]]:
    """Returns the ids of texts that were read; those with a marker in a content are read again.

    Args:
      items: the texts with their contents.
      readings: of each.
      encode_one: text and contents to ids, as `encode`; for those with a marker.
    """
    return [
        encode_one(text, contents) if in_contents(found, contents) else ids
        for (text, contents), (ids, found) in zip(items, readings)
    ]


def in_contents(found: Sequence[Found], contents: Sequence[tuple[int, int]]) -> bool:
    """Returns whether a marker was read in what others wrote, where none may be."""
    return any(m.start < end and m.end > start for start, end in contents for m in found)


def _without(text: str, contents: Sequence[tuple[int, int]]) -> str:
    """Returns the text with letters in place of its contents; white space stays."""
    pieces, at = [], 0
    for start, end in contents:
        pieces += text[at:start], re.sub(r"\S", "x", text[start:end])
        at = end
    return "".join([*pieces, text[at:]])


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
