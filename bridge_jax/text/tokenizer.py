"""The tokenizer and chat template of a checkpoint."""

import functools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bridge_jax.errors import UserError
from bridge_jax.text import bulk, markers
from bridge_jax.text.chat import Chat, default_template


class Tokenizer(Protocol):
    """Text to ids and back.

    Attributes:
      end_id: ends an assistant's turn, as its chat template writes it; it is what is trained.
      end_ids: `end_id` and every other token at which generation stops.
      pad_id: fills rows; never trained on.
      notes: what a user should know of how prompts are made, in words.
    """

    end_id: int
    end_ids: tuple[int, ...]
    pad_id: int
    notes: list[str]

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`, nothing added; a marker in it is text like any other."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids` without special tokens."""
        ...

    def name(self, token: int) -> str:
        """Returns how a token is written, special or not."""
        ...

    def render_chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Returns the ids of the messages, up to where the assistant begins to write.

        The template alone makes special tokens; what the messages hold is text.

        Raises:
          UserError: the template fails, or does not write the messages as they are.
        """
        ...

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns what `encode` returns for each; several threads may call it."""
        ...

    def render_all(self, chats: Sequence[Sequence[dict[str, str]]]) -> list[list[int]]:
        """Returns what `render_chat` returns for each; several threads may call it.

        Raises:
          UserError: as `render_chat`, for one of them.
        """
        ...

    def save(self, folder: Path) -> None:
        """Writes the tokenizer's files, chat template included, so that transformers loads them."""
        ...


class Ends(NamedTuple):
    """The tokens that end and fill; as in `Tokenizer`."""

    end_ids: tuple[int, ...]
    pad_id: int
    notes: list[str]


def settle(
    end: int, others: Sequence[int | None], pad: int | None, rows: int | None, name: Any
) -> Ends:
    """Compares the tokens that end and fill with the model's embedding table.

    Args:
      end: ends a turn in the chat template.
      others: end a text elsewhere.
      pad: fills; None is `end`.
      rows: of the embedding table; None is not compared.
      name: id -> how it is written.

    Raises:
      UserError: the table has no row for `end`.
    """
    rows = rows or max([end, pad or 0, *(i or 0 for i in others)]) + 1
    if end >= rows:
        raise UserError(
            f"the token that ends a turn, {name(end)!r}, has the id {end}, and the model's "
            f"embedding table has {rows:,} rows; use the tokenizer that belongs to the checkpoint, "
            "or give the table a row for each token"
        )
    notes = []
    if pad is not None and not 0 <= pad < rows:
        notes.append(
            f"the pad token {name(pad)!r} has the id {pad}, and the embedding table {rows:,} rows; "
            f"{name(end)!r} fills instead"
        )
        pad = None
    more = {i for i in others if i is not None and i < rows} - {end}
    return Ends((end, *sorted(more)), end if pad is None else pad, notes)


class HFTokenizer:
    """A Hugging Face fast tokenizer with its chat template."""

    def __init__(self, fast: Any, rows: int | None = None, ends: Sequence[int] = ()):
        """Reads the chat template, and compares the tokenizer with its model.

        Args:
          fast: the tokenizer of transformers.
          rows: of the model's embedding table; None is not compared.
          ends: tokens at which the model's config ends a text.

        Raises:
          UserError: there is no chat template, no token that ends a turn, or no row for it.
        """
        where = "the checkpoint's tokenizer"
        self._fast = fast
        if not fast.is_fast:
            raise UserError(f"{where} is not a fast one; put its tokenizer.json beside it")
        backend = fast.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = False
        chat = Chat(default_template(fast.chat_template, where), fast.special_tokens_map)
        self._chat = chat
        if chat.mended:
            named = isinstance(fast.chat_template, dict)
            fast.chat_template = (
                fast.chat_template | {"default": chat.source} if named else chat.source
            )
        # Not only the special ones: Gemma's <end_of_turn> was not one before mid-2024.
        added = {i: token.content for i, token in fast.added_tokens_decoder.items()}
        end = chat.end_of_turn(
            lambda text: backend.encode(text, add_special_tokens=False).ids, added
        )
        end = fast.eos_token_id if end is None else end
        if end is None:
            raise UserError(f"{where} has no token that ends a turn (eos_token)")
        found = settle(end, [fast.eos_token_id, *ends], fast.pad_token_id, rows, self.name)
        self.end_id, self.end_ids, self.pad_id = found.end_ids[0], found.end_ids, found.pad_id
        self.notes = [*chat.notes, *found.notes]
        self._markers = {
            i
            for i, token in fast.added_tokens_decoder.items()
            if i in self.end_ids or markers.is_marker(token.content, token.special)
        }
        self._cuts = bulk.cuts(
            fast.added_tokens_decoder.values(), lambda t: markers.is_marker(t.content, t.special)
        )

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`, nothing added; a marker in it is text like any other."""
        text = markers.whole_characters(text)
        return self._encode(text, [(0, len(text))])

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids` without special tokens."""
        shown = [i for i in ids if i not in self.end_ids]
        # Clean-up would rewrite what the model wrote, " ," to "," and so on.
        return self._fast.decode(
            shown, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def name(self, token: int) -> str:
        """Returns how a token is written, special or not."""
        return str(self._fast.convert_ids_to_tokens(token))

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
        self._fast.save_pretrained(folder)
        file = folder / "tokenizer_config.json"
        config = json.loads(file.read_text())
        # The names in transformers 5 of what 4 calls otherwise; 5 knows both.
        if config.get("tokenizer_class") == "TokenizersBackend":
            config["tokenizer_class"] = "PreTrainedTokenizerFast"
            config["model_input_names"] = ["input_ids", "attention_mask"]
        if isinstance(config.get("extra_special_tokens"), list):
            config["additional_special_tokens"] = config.pop("extra_special_tokens")
        file.write_text(json.dumps(config, indent=2) + "\n")

    def _encode(self, text: str, contents: Sequence[tuple[int, int]]) -> list[int]:
        return markers.encode(text, contents, self._read, lambda: self._renamed)

    def _encode_all(self, items: Sequence[markers.Marked]) -> list[list[int]]:
        readings = bulk.read_all(items, self._read_all, self._cuts)
        return markers.encode_all(items, readings, self._encode)

    def _read(self, text: str) -> markers.Reading:
        backend = self._fast.backend_tokenizer
        return self._found(backend.encode(text, add_special_tokens=False))

    def _read_all(self, texts: list[str]) -> list[markers.Reading]:
        backend = self._fast.backend_tokenizer
        return [self._found(e) for e in backend.encode_batch(texts, add_special_tokens=False)]

    def _found(self, read: Any) -> markers.Reading:
        ids = read.ids  # It is made anew at every access.
        at = [n for n, i in enumerate(ids) if i in self._markers]
        offsets = read.offsets if at else []
        return ids, [markers.Found(ids[n], *offsets[n]) for n in at]

    @functools.cached_property
    def _renamed(self) -> tuple[dict[int, str], Callable[[str], list[int]]]:
        names = markers.aliases(self._markers)
        tokenizer, ids = markers.renamed(self._fast.backend_tokenizer, names)

        def tokenize(text: str) -> list[int]:
            found: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
            return [ids.get(i, i) for i in found]

        return names, tokenize


def load(checkpoint: Path, rows: int | None = None, ends: Sequence[int] = ()) -> Tokenizer:
    """Returns the tokenizer beside (or inside, for GGUF) a checkpoint.

    Args:
      checkpoint: a folder, or a GGUF file.
      rows: of the model's embedding table; None is not compared.
      ends: tokens at which the model's config ends a text.

    Raises:
      UserError: there is none that can be read, or it does not belong to the table.
    """
    try:
        return _load(checkpoint, rows, ends)
    except UserError as error:
        if str(checkpoint) in str(error):
            raise
        raise UserError(f"{checkpoint}: {error}") from error


def _load(checkpoint: Path, rows: int | None, ends: Sequence[int]) -> Tokenizer:
    # Parallel tokenization warns after every fork, and Grain forks.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if checkpoint.suffix == ".gguf":
        from bridge_jax.text import gguf_tokenizer

        return HFTokenizer(gguf_tokenizer.read(checkpoint), rows, ends)
    if (checkpoint / "tokenizer.model").exists() and not (checkpoint / "tokenizer.json").exists():
        from bridge_jax.text.sentencepiece import SentencePieceTokenizer

        return SentencePieceTokenizer(checkpoint, rows, ends)
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
    return HFTokenizer(fast, rows, ends)


def first_difference(a: Tokenizer, b: Tokenizer, size: int) -> int | None:
    """Returns the first id below `size` that is not the same in both; None if all are."""
    if a.end_id != b.end_id:
        return a.end_id
    return next((i for i in range(size) if a.decode([i]) != b.decode([i])), None)
