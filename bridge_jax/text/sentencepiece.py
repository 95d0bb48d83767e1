"""Tokenizes with SentencePiece `.model` files (Llama 2, Mistral, Gemma), through tensorflow-text.

Text is cut at the markers, and each part between two markers is tokenized separately, as the
sentencepiece library does. So a model that puts a space before a text puts one before each part,
like the published tokenizer.json of Llama 2, and unlike transformers' `legacy=False`.

A marker in a message is ordinary text, as everywhere (`bridge_jax.text.markers`).
"""

import functools
import itertools
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bridge_jax.data.answers import load_tensorflow_text
from bridge_jax.errors import UserError
from bridge_jax.text import markers
from bridge_jax.text.chat import Chat, default_template
from bridge_jax.text.markers import Reading, Renamed
from bridge_jax.text.tokenizer import Tokenizer

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # of ModelProto.SentencePiece.Type
_NAMED = ("bos", "eos", "unk", "pad")
_MODEL, _TEMPLATE = "tokenizer.model", "chat_template.jinja"
_CONFIG, _ADDED = "tokenizer_config.json", "added_tokens.json"


class SentencePieceTokenizer(Tokenizer):
    """A folder's `tokenizer.model` with its chat template."""

    def __init__(self, folder: Path, rows: int | None = None, ends: Sequence[int] = ()):
        """Reads the files in `folder`.

        Args:
          folder: the checkpoint.
          rows, ends: as for `tokenizer.load`.

        Raises:
          UserError: tensorflow-text is missing, the model file is incomplete, there is no template,
            or the embedding table has no row for the token that ends a turn.
        """
        self._folder = folder
        self._pieces, self._proto = _read_model(folder / _MODEL)
        proto = self._proto
        self._size = len(proto.pieces)
        normal = (i for i, p in enumerate(proto.pieces) if p.type == _NORMAL and p.piece.strip("▁"))
        self._anchor = next(normal)
        rules = proto.normalizer_spec
        self._leading = " " if rules.add_dummy_prefix or rules.remove_extra_whitespaces else ""
        config = _read_json(folder / _CONFIG)
        tokens = _named_tokens(proto, config)
        self._cut_at = _markers(proto, config, _read_json(folder / _ADDED), tokens)
        self._hidden = {marker.id for marker in self._cut_at.values() if marker.special}
        self._added = {m.id: text for text, m in self._cut_at.items() if m.id >= self._size}

        file = folder / _TEMPLATE
        source = file.read_text("utf-8") if file.exists() else config.get("chat_template")
        self._chat = Chat(default_template(source, str(folder)), tokens)
        texts = {i: p.piece for i, p in enumerate(proto.pieces) if p.type == _USER_DEFINED}
        texts |= {marker.id: text for text, marker in self._cut_at.items()}
        ids = {text: marker.id for text, marker in self._cut_at.items()}
        eos, pad = ids.get(tokens["eos_token"]), ids.get(tokens["pad_token"])
        alone = _Reader(self._pieces, self._cut_at, ())
        self._find_ends(lambda text: alone.read([text])[0][0], texts, eos, pad, rows, ends)
        self._hidden.update(self.end_ids)
        self._watched = {
            i: text
            for i, text in texts.items()
            if i in self.end_ids or markers.is_marker(text, i in self._hidden)
        }
        self._reader = _Reader(self._pieces, self._cut_at, tuple(self._watched))

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids` without special tokens."""
        shown = [int(i) for i in ids if i not in self._hidden]
        text = ""
        for inside, run in itertools.groupby(shown, lambda i: i < self._size):
            if not inside:  # A model may have more rows than its tokenizer has ids.
                text += "".join(self._added.get(i, "") for i in run)
                continue
            # tensorflow-text drops all leading spaces, sentencepiece only the one that it added.
            anchor, piece = (
                self._pieces.detokenize([self._anchor, *more]).numpy() for more in ([], [*run])
            )
            piece = piece.removeprefix(anchor).decode(errors="replace")
            text += piece.removeprefix(self._leading)
        return text

    def name(self, token: int) -> str:
        """Returns the text of one token, special or not."""
        inside = token < self._size
        return self._proto.pieces[token].piece if inside else self._added.get(token, "")

    def save(self, folder: Path) -> None:
        """Writes the tokenizer's files, chat template included, so that transformers loads them."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in (_MODEL, _CONFIG, _ADDED, _TEMPLATE, "special_tokens_map.json"):
            if (self._folder / name).exists():
                shutil.copyfile(self._folder / name, folder / name)
        if self._chat.repaired:
            (folder / _TEMPLATE).write_text(self._chat.source, "utf-8")

    def _read_texts(self, texts: Sequence[str]) -> list[Reading]:
        return self._reader.read(texts)

    @functools.cached_property
    def _renamed(self) -> Renamed:
        names = markers.aliases(self._watched)
        proto = type(self._proto)()
        proto.CopyFrom(self._proto)
        for i, piece in enumerate(proto.pieces):
            if piece.type == _USER_DEFINED and i in names:
                piece.piece = names[i]
        _, text_library = load_tensorflow_text("")
        pieces = text_library.SentencepieceTokenizer(proto.SerializeToString())
        cut_at = {names.get(m.id, text): m for text, m in self._cut_at.items()}
        reader = _Reader(pieces, cut_at, ())
        return names, lambda text: reader.read([text])[0][0]


class _Marker(NamedTuple):
    """A marker's id, and whether it strips the white space to its left and right."""

    id: int
    special: bool
    lstrip: bool = False
    rstrip: bool = False


class _Reader:
    """Cuts texts at the markers, and has sentencepiece tokenize the parts between them."""

    def __init__(self, pieces: Any, cut_at: dict[str, _Marker], watched: Sequence[int]):
        """Takes tensorflow-text's tokenizer, the markers, and the ids whose places are returned."""
        self._pieces, self._markers, self._watched = pieces, cut_at, frozenset(watched)
        longest_first = sorted(cut_at, key=len, reverse=True)
        self._cut = re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Returns the ids of texts and the watched ones among them; equal parts are read once."""
        cut = [self._parts(text) for text in texts]
        read = self._tokenize({part for parts, _ in cut for part in parts[::2] if part})
        return [self._joined(parts, places, read) for parts, places in cut]

    def _parts(self, text: str) -> tuple[list[str], list[int]]:
        """Returns the parts of a text and the start of each; parts at odd indices are markers."""
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

    def _tokenize(self, parts: set[str]) -> dict[str, Reading]:
        """Returns the ids of parts without markers, and the watched ones among them."""
        if not parts:
            return {}
        texts = list(parts)
        tokenized = self._pieces.tokenize_with_offsets(texts)
        ids, starts, ends = (ragged.flat_values.numpy().tolist() for ragged in tokenized)
        splits = tokenized[0].row_splits.numpy().tolist()
        read = {}
        for text, first, last in zip(texts, splits, splits[1:]):
            hits = [n for n in range(first, last) if ids[n] in self._watched]
            data, found = text.encode() if hits else b"", []
            for n in hits:  # tensorflow-text counts bytes; we count characters.
                bounds = (len(data[:at].decode(errors="ignore")) for at in (starts[n], ends[n]))
                found.append(markers.Found(ids[n], *bounds))
            read[text] = ids[first:last], found
        return read

    def _joined(self, parts: list[str], places: list[int], read: dict[str, Reading]) -> Reading:
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


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _content(token: Any) -> str:
    """Returns the text of a token, which tokenizer_config.json stores as a string or a dict."""
    return (token.get("content") if isinstance(token, dict) else token) or ""


def _named_tokens(proto: Any, config: dict[str, Any]) -> dict[str, str]:
    """Returns the texts of `bos_token`, `eos_token` and so on, from config or else model."""
    spec = proto.trainer_spec
    tokens = {f"{name}_token": getattr(spec, f"{name}_piece") for name in _NAMED}
    given = {k: _content(v) for k, v in config.items() if k.endswith("_token")}
    return tokens | {k: text for k, text in given.items() if text}


def _markers(
    proto: Any, config: dict[str, Any], added: dict[str, int], tokens: dict[str, str]
) -> dict[str, _Marker]:
    """Returns the markers by text: control symbols, named tokens, and tokens that HF adds."""
    more = map(_content, config.get("additional_special_tokens") or [])
    control = [p.piece for p in proto.pieces if p.type == _CONTROL]
    special = {*control, *tokens.values(), *more}
    out = {p.piece: _Marker(i, True) for i, p in enumerate(proto.pieces) if p.piece in special}
    out |= {text: _Marker(i, text in special) for text, i in added.items()}
    for i, token in config.get("added_tokens_decoder", {}).items():
        is_special, lstrip, rstrip = (token.get(k, False) for k in ("special", "lstrip", "rstrip"))
        text = token["content"]
        out[text] = _Marker(int(i), is_special or text in special, lstrip, rstrip)
    return out


def _read_model(path: Path) -> tuple[Any, Any]:
    """Returns a `.model` file as a tokenizer of tensorflow-text and as a protobuf message."""
    _, text_library = load_tensorflow_text(f"{path}: reading SentencePiece")
    from google.protobuf.message import DecodeError

    data = path.read_bytes()
    try:
        proto = _messages().ModelProto.FromString(data)
    except DecodeError as error:
        raise UserError(
            f"{path}: truncated or not a SentencePiece file; download it again"
        ) from error
    # The normalizer's settings follow the pieces, so they are missing if the file was cut off.
    if not (proto.pieces and proto.HasField("normalizer_spec")):
        raise UserError(f"{path}: truncated or not a SentencePiece file; download it again")
    return text_library.SentencepieceTokenizer(data), proto


def _messages() -> Any:
    """Returns SentencePiece's protobuf module: its own, or the copy in transformers."""
    from google.protobuf.runtime_version import VersionError
    from transformers.convert_slow_tokenizer import import_protobuf

    try:
        return import_protobuf()
    except VersionError:  # The installed one needs a newer protobuf than other packages allow.
        from transformers.utils import sentencepiece_model_pb2_new

        return sentencepiece_model_pb2_new
