"""Reads the tokenizer in a GGUF file: a byte-level BPE, or Gemma's SentencePiece BPE.

llama.cpp stores the parts of a tokenizer in the file but has its rules in code. Here the rules are
those of each model family, taken from its tokenizer.json. Not supported: SentencePiece models that
put a space before a text (Llama 2), and WordPiece.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from bridge_jax.errors import UserError
from bridge_jax.models.hub.gguf_file import open_gguf

# llama.cpp's token types: control for markers such as <|im_end|>, user-defined for markers that
# are part of the visible text, such as Qwen's <tool_call>.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4
_LONGEST_PIECE = 256  # characters; SentencePiece trains pieces of at most 16

# The pre-tokenizer of each model family, by `tokenizer.ggml.pre`.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CUTS: dict[str, Any] = {
    "smollm": pre_tokenizers.Digits(individual_digits=True),
    "qwen2": pre_tokenizers.Split(tokenizers.Regex(_WORDS.replace("NUMBER", r"\p{N}")), "isolated"),
    "llama-bpe": pre_tokenizers.Split(
        tokenizers.Regex(_WORDS.replace("NUMBER", r"\p{N}{1,3}")), "isolated"
    ),
}


class _Parts(NamedTuple):
    """The tokenizer's keys in the header.

    Attributes:
      path: the file.
      metadata: the header's key-value pairs.
    """

    path: Path
    metadata: dict[str, Any]

    def named(self, name: str) -> Any:
        """Returns the value of a key, or None if there is no such key."""
        return self.metadata.get(f"tokenizer.ggml.{name}")

    def listed(self, name: str, kind: type) -> list[Any]:
        """Returns a list whose items all have the type `kind`."""
        value = self.named(name)
        if not isinstance(value, list) or not all(type(item) is kind for item in value):
            raise self.damaged(f"tokenizer.ggml.{name} must be a list of type {kind.__name__}")
        return value

    def damaged(self, what: str) -> UserError:
        """Returns the error for a file that contradicts itself."""
        return UserError(f"{self.path}: {what}; download it again")


def read(path: Path) -> Any:
    """Returns the tokenizer in a GGUF file as a transformers fast tokenizer.

    Raises:
      UserError: the tokenizer is of an unsupported kind, or damaged.
    """
    from transformers import PreTrainedTokenizerFast

    parts = _Parts(path, open_gguf(path).metadata)
    model, pre = parts.named("model"), parts.named("pre")
    # Without this key, a text is prefixed with a space.
    is_gemma = model == "llama" and parts.named("add_space_prefix") is False
    if not is_gemma and (model != "gpt2" or not isinstance(pre, str) or pre not in _CUTS):
        raise UserError(
            f"{path}: tokenizer {(model, pre)} is not supported; use the safetensors checkpoint"
        )
    tokens, types = parts.listed("tokens", str), parts.listed("token_type", int)
    if len(types) != len(tokens):
        raise parts.damaged(f"{len(types)} token types for {len(tokens)} tokens")
    typed = list(zip(tokens, types))
    bpe = _of_pieces(parts, typed) if is_gemma else _of_bytes(parts, tokens, str(pre))
    bpe.add_special_tokens([t for t, kind in typed if kind in (_CONTROL, _UNKNOWN)])
    # SentencePiece matches them after spaces have become pieces, so one may consist of spaces.
    shown = [t for t, kind in typed if kind == _USER_DEFINED]
    bpe.add_tokens([tokenizers.AddedToken(t, normalized=is_gemma) for t in shown])
    named: dict[str, Any] = {}
    for argument, role in (("bos_token", "bos"), ("eos_token", "eos"), ("pad_token", "padding")):
        i = parts.named(f"{role}_token_id")
        if i is not None and (type(i) is not int or not 0 <= i < len(tokens)):
            raise parts.damaged(
                f"tokenizer.ggml.{role}_token_id={i!r} is not one of the {len(tokens)} tokens"
            )
        named[argument] = None if i is None else tokens[i]
    return PreTrainedTokenizerFast(tokenizer_object=bpe, chat_template=_template(parts), **named)


def _of_bytes(parts: _Parts, tokens: Sequence[str], pre: str) -> tokenizers.Tokenizer:
    """Returns a byte-level BPE with the pre-tokenizer of a model family."""
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = []
    for pair in parts.listed("merges", str):
        left, _, right = pair.partition(" ")
        if not {left, right, left + right} <= vocabulary.keys():
            raise parts.damaged(
                f"tokenizer.ggml.merges: {pair!r} does not join two tokens into a third"
            )
        merges.append((left, right))
    # Llama 3 looks up whole words in the vocabulary before it merges.
    bpe = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=pre == "llama-bpe"))
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre == "smollm")
    bpe.pre_tokenizer = pre_tokenizers.Sequence([_CUTS[pre], to_bytes])
    bpe.decoder = decoders.ByteLevel()
    if pre == "qwen2":  # llama.cpp does not normalize; transformers does.
        bpe.normalizer = normalizers.NFC()
    return bpe


def _of_pieces(parts: _Parts, typed: Sequence[tuple[str, int]]) -> tokenizers.Tokenizer:
    """Returns a BPE of characters that falls back to bytes for unknown ones.

    SentencePiece joins the two neighbours whose combined piece has the highest score. So each way
    to split a piece in two is a merge, and the scores give the order of the merges.
    """
    scores = parts.listed("scores", float)
    if len(scores) != len(typed) or not all(map(math.isfinite, scores)):
        raise parts.damaged(f"tokenizer.ggml.scores must be {len(typed)} finite numbers")
    normal = {token for token, kind in typed if kind == _NORMAL}
    if longest := [token for token in normal if len(token) > _LONGEST_PIECE]:
        raise parts.damaged(f"a token of {len(longest[0]):,} characters is longer than any model's")
    merges = []
    for (token, kind), score in zip(typed, scores):
        for at in range(1, len(token) if kind == _NORMAL else 0):
            left, right = token[:at], token[at:]
            if left in normal and right in normal:
                merges.append((-score, at, left, right))
    merges.sort(key=lambda merge: merge[:2])
    vocabulary = {token: i for i, (token, _) in enumerate(typed)}
    unknown = next((token for token, kind in typed if kind == _UNKNOWN), None)
    pairs = [(left, right) for _, _, left, right in merges]
    model = models.BPE(vocabulary, pairs, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    bpe = tokenizers.Tokenizer(model)
    bpe.normalizer = normalizers.Replace(" ", "▁")
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return bpe


def _template(parts: _Parts) -> Any:
    """Returns the chat template, or several by name if none is the default."""
    key = "tokenizer.chat_template"
    found = {k: v for k, v in parts.metadata.items() if k == key or k.startswith(f"{key}.")}
    for name, value in found.items():
        if not isinstance(value, str):
            raise parts.damaged(f"{name} is not a string")
    others = {name.removeprefix(f"{key}."): text for name, text in found.items()}
    return found.get(key) or others or None
