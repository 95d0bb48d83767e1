"""The tokenizer and chat template of a checkpoint."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from bridge_jax.errors import UserError
from bridge_jax.text import chat

# Llama 3's template writes the day it is rendered on; a prompt must not depend on that.
DATE = "26 Jul 2024"


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

    def save(self, folder: Path) -> None:
        """Writes the tokenizer's files, chat template included, so that transformers loads them."""
        ...


class HFTokenizer:
    """A Hugging Face fast tokenizer with its chat template."""

    def __init__(self, fast: Any):
        if not fast.chat_template:
            raise UserError("the checkpoint's tokenizer has no chat template; use a chat model")
        self._fast = fast
        # Not only the special ones: Gemma's <end_of_turn> was not one before mid-2024.
        added = {i: token.content for i, token in fast.added_tokens_decoder.items()}
        end = chat.end_of_turn(self._template, self.encode, added)
        end = fast.eos_token_id if end is None else end
        if end is None:
            raise UserError("the checkpoint's tokenizer has no token that ends a turn (eos_token)")
        self.end_id = int(end)
        self.pad_id = int(fast.pad_token_id if fast.pad_token_id is not None else self.end_id)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`, nothing added."""
        return self._fast.encode(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids` without special tokens."""
        shown = [i for i in ids if i != self.end_id]
        # Clean-up would rewrite what the model wrote, " ," to "," and so on.
        return self._fast.decode(
            shown, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def render_chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Returns the ids of the messages, up to where the assistant begins to write."""
        return self.encode(chat.render_prompt(self._template, messages))

    def save(self, folder: Path) -> None:
        """Writes the tokenizer's files, chat template included, so that transformers loads them."""
        self._fast.save_pretrained(folder)
        file = folder / "tokenizer_config.json"
        config = json.loads(file.read_text())
        if config.get("tokenizer_class") == "TokenizersBackend":
            # The name in transformers 5 of what 4 calls otherwise; 5 knows both.
            config["tokenizer_class"] = "PreTrainedTokenizerFast"
            config["model_input_names"] = ["input_ids", "attention_mask"]
            file.write_text(json.dumps(config, indent=2) + "\n")

    def _template(self, messages: chat.Messages, open_turn: bool) -> str:
        return self._fast.apply_chat_template(
            list(messages), add_generation_prompt=open_turn, tokenize=False, date_string=DATE
        )


def load(checkpoint: Path) -> Tokenizer:
    """Returns the tokenizer beside (or inside, for GGUF) a checkpoint."""
    # Parallel tokenization warns after every fork, and Grain forks.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if checkpoint.suffix == ".gguf":
        from bridge_jax.text import gguf_tokenizer

        return HFTokenizer(gguf_tokenizer.read(checkpoint))
    if (checkpoint / "tokenizer.model").exists() and not (checkpoint / "tokenizer.json").exists():
        from bridge_jax.text.sentencepiece import SentencePieceTokenizer

        return SentencePieceTokenizer(checkpoint)
    import transformers

    try:
        if (checkpoint / "tokenizer.json").exists():  # Read as it is, and without torch.
            fast = transformers.PreTrainedTokenizerFast.from_pretrained(checkpoint)
        else:
            fast = transformers.AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        if not isinstance(fast.model_max_length, int | float):
            raise TypeError(f"model_max_length={fast.model_max_length!r} is no number")
    except Exception as error:  # tokenizers raises a bare one for a damaged tokenizer.json
        raise UserError(
            f"{checkpoint}: has no tokenizer that can be read ({str(error)[:200]}); put "
            "the checkpoint's tokenizer.json and tokenizer_config.json there"
        ) from error
    return HFTokenizer(fast)


def first_difference(a: Tokenizer, b: Tokenizer, size: int) -> int | None:
    """Returns the first id below `size` that is not the same in both; None if all are."""
    if a.end_id != b.end_id:
        return a.end_id
    return next((i for i in range(size) if a.decode([i]) != b.decode([i])), None)
