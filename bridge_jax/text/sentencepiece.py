"""SentencePiece `.model` files (Llama 2, Mistral, Gemma), run by tensorflow-text.

Text is cut at the markers, and what lies between two of them is tokenized as the sentencepiece
library does it alone. So a model that puts a space before a text puts one before each such part,
as the published tokenizer.json of Llama 2 does; transformers' `legacy=False` is left out.

A marker that a user wrote into a message is text, as everywhere (`bridge_jax.text.markers`).
"""

import contextlib
import functools
import itertools
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bridge_jax.errors import UserError
from bridge_jax.text import markers
from bridge_jax.text.chat import Chat, default_template
from bridge_jax.text.pieces import Marker, Reader
from bridge_jax.text.tokenizer import settle

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # of ModelProto.SentencePiece.Type
_NAMED = ("bos", "eos", "unk", "pad")
_MODEL, _CONFIG, _ADDED, _TEMPLATE = (
    "tokenizer.model",
    "tokenizer_config.json",
    "added_tokens.json",
    "chat_template.jinja",
)


class SentencePieceTokenizer:
    """A folder's `tokenizer.model` with its chat template.

    Attributes:
      end_id: the marker after an assistant's message in the chat template, or else `eos`.
      end_ids: `end_id`, `eos`, and those of the model's config.
      pad_id: `pad`, or `end_id` where there is none.
      notes: what a user should know of how prompts are made.
    """

    def __init__(self, folder: Path, rows: int | None = None, ends: Sequence[int] = ()):
        """Reads the files in `folder`.

        Args:
          folder: the checkpoint.
          rows: of the model's embedding table; None is not compared.
          ends: tokens at which the model's config ends a text.

        Raises:
          UserError: tensorflow-text is missing, the model is not whole, there is no template, or
            the table has no row for the token that ends a turn.
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

        self._chat = Chat(_template_source(folder, config), tokens)
        texts = {i: p.piece for i, p in enumerate(proto.pieces) if p.type == _USER_DEFINED}
        texts |= {marker.id: text for text, marker in self._cut_at.items()}
        end = self._chat.end_of_turn(
            lambda text: Reader(self._pieces, self._cut_at, ()).read(text)[0], texts
        )
        eos, pad = (
            found and found.id
            for found in (self._cut_at.get(tokens[name]) for name in ("eos_token", "pad_token"))
        )
        end = eos if end is None else end
        if end is None:
            raise UserError(f"{folder}: no token ends a turn; name its eos_token in {_CONFIG}")
        found = settle(end, [eos, *ends], pad, rows, self.name)
        self.end_id, self.end_ids, self.pad_id = found.end_ids[0], found.end_ids, found.pad_id
        self.notes = [*self._chat.notes, *found.notes]
        self._hidden.update(self.end_ids)
        self._watched = {
            i: text
            for i, text in texts.items()
            if i in self.end_ids or markers.is_marker(text, i in self._hidden)
        }
        self._reader = Reader(self._pieces, self._cut_at, tuple(self._watched))

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`, nothing added; a marker in it is text like any other."""
        text = markers.whole_characters(text)
        return self._encode(text, [(0, len(text))])

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids` without special tokens."""
        shown = [int(i) for i in ids if i not in self._hidden]
        text = ""
        for inside, run in itertools.groupby(shown, lambda i: i < self._size):
            if inside:
                text += self._detokenize(list(run))
            else:  # a model may have more rows than its tokenizer has ids
                text += "".join(self._added.get(i, "") for i in run)
        return text

    def name(self, token: int) -> str:
        """Returns how a token is written, special or not."""
        inside = token < self._size
        return self._proto.pieces[token].piece if inside else self._added.get(token, "")

    def render_chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Returns the ids of the messages, up to where the assistant begins to write."""
        return self._encode(*self._chat.render(messages))

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns what `encode` returns for each; several threads may call it."""
        whole = [markers.whole_characters(text) for text in texts]
        return self._encode_all([(text, [(0, len(text))]) for text in whole])

    def render_all(self, chats: Sequence[Sequence[dict[str, str]]]) -> list[list[int]]:
        """Returns what `render_chat` returns for each; several threads may call it."""
        return self._encode_all(self._chat.render_all(chats))

    def save(self, folder: Path) -> None:
        """Writes the tokenizer's files, chat template included, so that transformers loads them."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in (_MODEL, _CONFIG, _ADDED, _TEMPLATE, "special_tokens_map.json"):
            if (self._folder / name).exists():
                shutil.copyfile(self._folder / name, folder / name)
        if self._chat.mended:
            (folder / _TEMPLATE).write_text(self._chat.source, "utf-8")

    def _encode(self, text: str, contents: Sequence[tuple[int, int]]) -> list[int]:
        return markers.encode(text, contents, self._reader.read, lambda: self._renamed)

    def _encode_all(self, items: Sequence[markers.Marked]) -> list[list[int]]:
        readings = self._reader.read_all([text for text, _ in items])
        return markers.encode_all(items, readings, self._encode)

    @functools.cached_property
    def _renamed(self) -> tuple[dict[int, str], Callable[[str], list[int]]]:
        """The markers' other names, and the tokenizer that knows them by those."""
        import tensorflow_text  # pyright: ignore[reportMissingImports]

        names = markers.aliases(self._watched)
        proto = type(self._proto)()
        proto.CopyFrom(self._proto)
        for i, piece in enumerate(proto.pieces):
            if piece.type == _USER_DEFINED and i in names:
                piece.piece = names[i]
        pieces = tensorflow_text.SentencepieceTokenizer(proto.SerializeToString())
        cut_at = {names.get(m.id, text): m for text, m in self._cut_at.items()}
        reader = Reader(pieces, cut_at, ())
        return names, lambda text: reader.read(text)[0]

    def _detokenize(self, ids: list[int]) -> str:
        # tensorflow-text drops all leading spaces, sentencepiece only the one that it puts there.
        anchor, text = (
            self._pieces.detokenize([self._anchor, *more]).numpy() for more in ([], ids)
        )
        return text.removeprefix(anchor).decode(errors="replace").removeprefix(self._leading)


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _content(token: Any) -> str:
    """Returns the text of a token, which tokenizer_config.json writes as text or as a dict."""
    return (token.get("content") if isinstance(token, dict) else token) or ""


def _named_tokens(proto: Any, config: dict[str, Any]) -> dict[str, str]:
    """Returns the texts of `bos_token` and its like: those of the config, else of the model."""
    spec = proto.trainer_spec
    tokens = {f"{name}_token": getattr(spec, f"{name}_piece") for name in _NAMED}
    given = {k: _content(v) for k, v in config.items() if k.endswith("_token")}
    return tokens | {k: text for k, text in given.items() if text}


def _markers(
    proto: Any, config: dict[str, Any], added: dict[str, int], tokens: dict[str, str]
) -> dict[str, Marker]:
    """Returns what the text is cut at: control symbols, named tokens, and those HF adds."""
    more = map(_content, config.get("additional_special_tokens") or [])
    control = [p.piece for p in proto.pieces if p.type == _CONTROL]
    special = {*control, *tokens.values(), *more}
    out = {p.piece: Marker(i, True) for i, p in enumerate(proto.pieces) if p.piece in special}
    out |= {text: Marker(i, text in special) for text, i in added.items()}
    for i, token in config.get("added_tokens_decoder", {}).items():
        is_special, lstrip, rstrip = (token.get(k, False) for k in ("special", "lstrip", "rstrip"))
        text = token["content"]
        out[text] = Marker(int(i), is_special or text in special, lstrip, rstrip)
    return out


def _template_source(folder: Path, config: dict[str, Any]) -> str:
    file = folder / _TEMPLATE
    source = file.read_text("utf-8") if file.exists() else config.get("chat_template")
    return default_template(source, str(folder))


def _read_model(path: Path) -> tuple[Any, Any]:
    """Returns a `.model` file as tensorflow-text's tokenizer and as a message."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # else it reports each absent GPU
    try:
        import tensorflow as tf  # pyright: ignore[reportMissingImports]
        import tensorflow_text  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise UserError(
            f"{path}: reading SentencePiece needs the tensorflow-text package: "
            "pip install 'bridge-jax[tf-text]'"
        ) from None
    from google.protobuf.message import DecodeError

    # TensorFlow would take the memory of the GPUs that JAX runs on.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
    data = path.read_bytes()
    try:
        proto = _messages().ModelProto.FromString(data)
    except DecodeError as error:
        raise UserError(f"{path}: not a whole SentencePiece file; download it again") from error
    # The normalizer's settings stand after the pieces: without them the end of the file is missing.
    if not (proto.pieces and proto.HasField("normalizer_spec")):
        raise UserError(f"{path}: not a whole SentencePiece file; download it again")
    return tensorflow_text.SentencepieceTokenizer(data), proto


def _messages() -> Any:
    """Returns the protobuf messages of SentencePiece: its own, or the copy in transformers."""
    from google.protobuf.runtime_version import VersionError
    from transformers.convert_slow_tokenizer import import_protobuf

    try:
        return import_protobuf()
    except VersionError:  # Its own are newer than the protobuf that other packages allow.
        from transformers.utils import sentencepiece_model_pb2_new

        return sentencepiece_model_pb2_new
