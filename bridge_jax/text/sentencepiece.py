"""SentencePiece `.model` files (Llama 2, Mistral, Gemma), run by tensorflow-text.

Text is cut at the markers, and what lies between two of them is tokenized as the sentencepiece
library does it alone. So a model that puts a space before a text puts one before each such part,
as the published tokenizer.json of Llama 2 does; transformers' `legacy=False` is left out.

A marker that a user wrote into a message becomes the marker, as with Hugging Face's tokenizers.
"""

import contextlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bridge_jax.errors import UserError
from bridge_jax.text import chat

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # of ModelProto.SentencePiece.Type
_NAMED = ("bos", "eos", "unk", "pad")
_MODEL, _CONFIG, _ADDED, _TEMPLATE = (
    "tokenizer.model",
    "tokenizer_config.json",
    "added_tokens.json",
    "chat_template.jinja",
)


class _Marker(NamedTuple):
    """A text that is one id, and whether it takes the white space beside it."""

    id: int
    special: bool
    lstrip: bool = False
    rstrip: bool = False


class SentencePieceTokenizer:
    """A folder's `tokenizer.model` with its chat template.

    Attributes:
      end_id: the marker after an assistant's message in the chat template, or else `eos`.
      pad_id: `pad`, or `end_id` where there is none.
    """

    def __init__(self, folder: Path):
        """Reads the files in `folder`.

        Raises:
          UserError: tensorflow-text is missing, the model is not whole, or there is no template.
        """
        self._folder = folder
        self._pieces, proto = _read_model(folder / _MODEL)
        self._size = len(proto.pieces)
        normal = (i for i, p in enumerate(proto.pieces) if p.type == _NORMAL and p.piece.strip("▁"))
        self._anchor = next(normal)
        rules = proto.normalizer_spec
        self._leading = " " if rules.add_dummy_prefix or rules.remove_extra_whitespaces else ""
        config = _read_json(folder / _CONFIG)
        tokens = _named_tokens(proto, config)
        self._markers = _markers(proto, config, _read_json(folder / _ADDED), tokens)
        longest_first = sorted(self._markers, key=len, reverse=True)
        self._cut = re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")
        self._hidden = {marker.id for marker in self._markers.values() if marker.special}
        self._added = {m.id: text for text, m in self._markers.items() if m.id >= self._size}

        self._template = chat.compile_template(_template_source(folder, config), tokens)
        texts = {i: p.piece for i, p in enumerate(proto.pieces) if p.type == _USER_DEFINED}
        texts |= {marker.id: text for text, marker in self._markers.items()}
        end = chat.end_of_turn(self._template, self.encode, texts)
        eos, pad = (self._markers.get(tokens[name]) for name in ("eos_token", "pad_token"))
        if end is None and eos:
            end = eos.id
        if end is None:
            raise UserError(f"{folder}: no token ends a turn; name its eos_token in {_CONFIG}")
        self.end_id: int = end
        self.pad_id: int = pad.id if pad else end
        self._hidden.add(self.end_id)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`, nothing added."""
        # Odd parts are markers.
        parts = self._cut.split(text)
        for at in range(1, len(parts), 2):
            marker = self._markers[parts[at]]
            if marker.lstrip:
                parts[at - 1] = parts[at - 1].rstrip()
            if marker.rstrip:
                parts[at + 1] = parts[at + 1].lstrip()
        ids = []
        for at, part in enumerate(parts):
            if at % 2:
                ids.append(self._markers[part].id)
            elif part:
                ids += self._pieces.tokenize(part).numpy().tolist()
        return ids

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

    def _detokenize(self, ids: list[int]) -> str:
        # tensorflow-text drops all leading spaces, sentencepiece only the one that it puts there.
        anchor, text = (
            self._pieces.detokenize([self._anchor, *more]).numpy() for more in ([], ids)
        )
        return text.removeprefix(anchor).decode(errors="replace").removeprefix(self._leading)

    def render_chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Returns the ids of the messages, up to where the assistant begins to write."""
        return self.encode(chat.render_prompt(self._template, messages))

    def save(self, folder: Path) -> None:
        """Writes the tokenizer's files, chat template included, so that transformers loads them."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in (_MODEL, _CONFIG, _ADDED, _TEMPLATE, "special_tokens_map.json"):
            if (self._folder / name).exists():
                shutil.copyfile(self._folder / name, folder / name)


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
) -> dict[str, _Marker]:
    """Returns what the text is cut at: control symbols, named tokens, and those HF adds."""
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


def _template_source(folder: Path, config: dict[str, Any]) -> str:
    file = folder / _TEMPLATE
    source = file.read_text("utf-8") if file.exists() else config.get("chat_template")
    if isinstance(source, list):  # several, by name
        source = {entry["name"]: entry["template"] for entry in source}.get("default")
    if not source:
        raise UserError(
            f"{folder}: no chat template ({_TEMPLATE}, or chat_template in {_CONFIG}); use a chat "
            "model"
        )
    return source


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
