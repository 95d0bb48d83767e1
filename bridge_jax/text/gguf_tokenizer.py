"""The byte-level BPE tokenizers inside GGUF files, as Hugging Face fast tokenizers."""

from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from bridge_jax.errors import UserError
from bridge_jax.models.hub.gguf_file import open_gguf

# llama.cpp's token types: control for markers such as <|im_end|>, user-defined for those that
# are shown, such as Qwen's <tool_call>.
_CONTROL, _USER_DEFINED = 3, 4


class _Recipe(NamedTuple):
    """The steps of a family before the merges, from its published tokenizer.json.

    Attributes:
      cut: splits the text; merges do not cross.
      normalizer: runs before it. llama.cpp leaves Qwen's NFC out; transformers does not.
      ignore_merges: whether words that are whole in the vocabulary skip the merges.
    """

    cut: Any
    normalizer: Any = None
    ignore_merges: bool = False


def _split(regex: str) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(regex), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


# By the value of `tokenizer.ggml.pre`. The regexes differ in how many digits a token may have.
_RECIPES = {
    "smollm": _Recipe(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
        )
    ),
    "qwen2": _Recipe(
        _split(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        normalizer=normalizers.NFC(),
    ),
    "llama-bpe": _Recipe(
        _split(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        ignore_merges=True,
    ),
}


def read(path: Path) -> Any:
    """Returns the tokenizer in a GGUF file as a transformers fast tokenizer.

    Raises:
      UserError: it is of a kind not in the table above, or damaged.
    """
    from transformers import PreTrainedTokenizerFast

    meta = open_gguf(path).metadata
    kind = (meta.get("tokenizer.ggml.model"), meta.get("tokenizer.ggml.pre"))
    if kind[0] != "gpt2" or not isinstance(kind[1], str) or kind[1] not in _RECIPES:
        raise UserError(f"{path}: tokenizer {kind} is not supported; use a folder of safetensors")
    recipe = _RECIPES[kind[1]]
    tokens: list[str] = _list(path, meta, "tokens", str)
    types: list[int] = _list(path, meta, "token_type", int)
    pairs: list[str] = _list(path, meta, "merges", str)
    if len(types) != len(tokens):
        raise UserError(
            f"{path}: {len(types)} token types for {len(tokens)} tokens; download it again"
        )
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = []
    for pair in pairs:
        left, _, right = pair.partition(" ")
        if not {left, right, left + right} <= vocabulary.keys():
            raise UserError(
                f"{path}: tokenizer.ggml.merges: {pair!r} does not join two tokens to a third; "
                "download it again"
            )
        merges.append((left, right))
    bpe = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=recipe.ignore_merges))
    bpe.pre_tokenizer = recipe.cut
    bpe.decoder = decoders.ByteLevel()
    if recipe.normalizer:
        bpe.normalizer = recipe.normalizer
    typed = list(zip(tokens, types))
    bpe.add_special_tokens([t for t, kind in typed if kind == _CONTROL])
    bpe.add_tokens(
        [tokenizers.AddedToken(t, normalized=False) for t, kind in typed if kind == _USER_DEFINED]
    )

    def named(role: str) -> str | None:
        i = meta.get(f"tokenizer.ggml.{role}_token_id")
        if i is not None and (type(i) is not int or not 0 <= i < len(tokens)):
            raise UserError(
                f"{path}: tokenizer.ggml.{role}_token_id={i!r} is none of the {len(tokens)} "
                "tokens; download it again"
            )
        return None if i is None else tokens[i]

    template = meta.get("tokenizer.chat_template")
    if not isinstance(template, str | None):
        raise UserError(f"{path}: tokenizer.chat_template is no text; download it again")
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=named("bos"),
        eos_token=named("eos"),
        pad_token=named("padding"),
        chat_template=template or _named_templates(path, meta),
    )


def _named_templates(path: Path, meta: dict[str, Any]) -> dict[str, str] | None:
    """Returns the chat templates beside the default one, which the file lacks."""
    prefix = "tokenizer.chat_template."
    found = {k.removeprefix(prefix): v for k, v in meta.items() if k.startswith(prefix)}
    for name, value in found.items():
        if not isinstance(value, str):
            raise UserError(f"{path}: {prefix}{name} is no text; download it again")
    return found or None


def _list(path: Path, meta: dict[str, Any], name: str, kind: type) -> list[Any]:
    value = meta.get(f"tokenizer.ggml.{name}")
    if not isinstance(value, list) or not all(type(item) is kind for item in value):
        raise UserError(
            f"{path}: tokenizer.ggml.{name} must be a list of type {kind.__name__}; download it "
            "again"
        )
    return value
