"""The tokenizer and chat template of a checkpoint."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from bridge_jax.errors import UserError


class Tokenizer(Protocol):
    """Text to ids and back.

    Attributes:
      end_id: ends an assistant's turn; generation stops at it.
      pad_id: fills rows; never trained on.
    """

    end_id: int
    pad_id: int

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`, nothing added."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids` without special tokens."""
        ...

    def render_chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Returns the ids of the messages, up to where the assistant begins to write."""
        ...


class HFTokenizer:
    """A Hugging Face fast tokenizer with its chat template."""

    def __init__(self, fast: Any):
        if not fast.chat_template:
            raise UserError("the checkpoint's tokenizer has no chat template; use a chat model")
        self._fast = fast
        self.end_id = int(fast.eos_token_id)
        self.pad_id = int(fast.pad_token_id if fast.pad_token_id is not None else self.end_id)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`, nothing added."""
        return self._fast.encode(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids` without special tokens."""
        return self._fast.decode(ids, skip_special_tokens=True)

    def render_chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Returns the ids of the messages, up to where the assistant begins to write."""
        text = self._fast.apply_chat_template(
            list(messages), add_generation_prompt=True, tokenize=False
        )
        return self.encode(text)


def load(checkpoint: Path) -> HFTokenizer:
    """Returns the tokenizer beside (or inside, for GGUF) a checkpoint."""
    # Parallel tokenization warns after every fork, and Grain forks.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if checkpoint.suffix == ".gguf":
        return HFTokenizer(_from_gguf(checkpoint))
    from transformers import AutoTokenizer

    return HFTokenizer(AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False))


def _from_gguf(path: Path) -> Any:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from bridge_jax.models.gguf_file import open_gguf

    meta = open_gguf(path).metadata
    kind = (meta["tokenizer.ggml.model"], meta.get("tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise UserError(f"{path}: tokenizer {kind} is not supported; use a folder of safetensors")
    tokens = meta["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in meta["tokenizer.ggml.merges"]]
    bpe = tokenizers.Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    bpe.decoder = decoders.ByteLevel()
    control = 3  # llama.cpp's token type of markers such as <|im_end|>
    types = meta["tokenizer.ggml.token_type"]
    bpe.add_special_tokens([t for t, kind in zip(tokens, types) if kind == control])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=tokens[meta["tokenizer.ggml.eos_token_id"]],
        pad_token=tokens[meta["tokenizer.ggml.padding_token_id"]],
        chat_template=meta["tokenizer.chat_template"],
    )
