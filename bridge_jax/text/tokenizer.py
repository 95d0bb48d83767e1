"""Loads the tokenizer of a checkpoint, with its chat template.

Checkpoints have a tokenizer.json (or a vocabulary and merges), a GGUF file with a tokenizer inside
(`bridge_jax.text.gguf_tokenizer`), or a SentencePiece model (`bridge_jax.text.sentencepiece`).
"""

import functools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bridge_jax.errors import UserError
from bridge_jax.text import markers
from bridge_jax.text.chat import Chat, default_template
from bridge_jax.text.markers import Marked, Reading, Renamed

_CONFIG = "tokenizer_config.json"


class Tokenizer(Protocol):
    """Converts text to ids and back. Each subclass wraps the tokenizer of a library.

    Attributes:
      end_id: the token that ends an assistant's turn in the chat template, and in training. It is
        `eos` if the template writes no marker.
      end_ids: `end_id` and every other token at which generation stops: `eos`, and those in the
        model's config.
      pad_id: fills rows and is never trained on. It is `end_id` if there is no pad token.
      notes: remarks for the user on how prompts are made.
    """

    end_id: int
    end_ids: tuple[int, ...]
    pad_id: int
    notes: list[str]
    _chat: Chat

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`, with nothing added; a marker in it is ordinary text."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the result of `encode` for each text; thread-safe."""
        whole = [markers.whole_characters(text) for text in texts]
        return self._ids([(text, [(0, len(text))]) for text in whole])

    def marker(self, text: str) -> int | None:
        """Returns the id of a marker such as "<think>"; None unless it is a single token."""
        ids = self._ids([(text, [])])[0]
        return ids[0] if len(ids) == 1 else None

    def render_chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Returns the ids of the messages, up to where the assistant's reply begins.

        Only the template makes special tokens; the content of messages is text.

        Raises:
          UserError: the template fails, or does not render a message unchanged.
        """
        return self.render_all([messages])[0]

    def render_all(self, chats: Sequence[Sequence[dict[str, str]]]) -> list[list[int]]:
        """Returns the result of `render_chat` for each chat; thread-safe.

        Raises:
          UserError: as in `render_chat`, for one of them.
        """
        return self._ids(self._chat.render_all(chats))

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids` without special tokens."""
        ...

    def name(self, token: int) -> str:
        """Returns the text of one token, special or not."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the tokenizer's files, chat template included, so that transformers loads them."""
        ...

    def _ids(self, items: Sequence[Marked]) -> list[list[int]]:
        readings = self._read_all(items)
        return markers.encode_all(items, readings, self._read_texts, lambda: self._renamed)

    def _read_all(self, items: Sequence[Marked]) -> list[Reading]:
        """Returns the ids and markers of texts; a shared prefix may be read once."""
        return self._read_texts([text for text, _ in items])

    def _read_texts(self, texts: Sequence[str]) -> list[Reading]:
        """Returns the ids and markers of texts."""
        ...

    @property
    def _renamed(self) -> Renamed:
        """The markers' random names, and the tokenizer that recognizes them."""
        ...

    def _find_ends(
        self,
        read: Callable[[str], Iterable[int]],
        texts: Mapping[int, str],
        eos: int | None,
        pad: int | None,
        rows: int | None,
        ends: Sequence[int],
    ) -> None:
        """Sets `end_id`, `end_ids`, `pad_id` and `notes`.

        Args:
          read: maps text to ids, each marker to a single id.
          texts: id -> text of the tokens that may end a turn.
          eos, pad: the tokenizer's `eos` and pad tokens.
          rows, ends: as for `load`.

        Raises:
          UserError: no token ends a turn, or the embedding table has no row for it.
        """
        end = self._chat.end_of_turn(read, texts)
        end = eos if end is None else end
        if end is None:
            raise UserError(
                f"the tokenizer has no token that ends a turn; set its eos_token in {_CONFIG}"
            )
        found = settle(end, [eos, *ends], pad, rows, self.name)
        self.end_id, self.end_ids, self.pad_id = found.end_ids[0], found.end_ids, found.pad_id
        self.notes = [*self._chat.notes, *found.notes]


class Ends(NamedTuple):
    """The end tokens, the pad token and the notes of a `Tokenizer`."""

    end_ids: tuple[int, ...]
    pad_id: int
    notes: list[str]


def settle(
    end: int, others: Sequence[int | None], pad: int | None, rows: int | None, name: Any
) -> Ends:
    """Checks the end tokens and the pad token against the rows of the embedding table.

    Args:
      end: the token that ends a turn in the chat template.
      others: further tokens at which generation stops.
      pad: the pad token; None uses `end`.
      rows: the number of rows in the embedding table; None checks nothing.
      name: maps an id to the token's text.

    Raises:
      UserError: the table has no row for `end`.
    """
    rows = rows or max([end, pad or 0, *(i or 0 for i in others)]) + 1
    if end >= rows:
        raise UserError(
            f"the token that ends a turn, {name(end)!r}, has id {end}, but the model's "
            f"embedding table has {rows:,} rows; use the tokenizer that belongs to the checkpoint, "
            "or extend the table to one row for each token"
        )
    notes = []
    if pad is not None and not 0 <= pad < rows:
        notes.append(
            f"the pad token {name(pad)!r} has id {pad}, but the embedding table has {rows:,} rows; "
            f"{name(end)!r} pads instead"
        )
        pad = None
    more = {i for i in others if i is not None and i < rows} - {end}
    return Ends((end, *sorted(more)), end if pad is None else pad, notes)


class HFTokenizer(Tokenizer):
    """A Hugging Face fast tokenizer with its chat template."""

    def __init__(self, fast: Any, rows: int | None = None, ends: Sequence[int] = ()):
        """Reads the chat template, and checks the tokenizer against its model.

        Args:
          fast: the tokenizer of transformers.
          rows, ends: as for `load`.

        Raises:
          UserError: the tokenizer is not a fast one, there is no chat template, no token ends a
            turn, or the embedding table has no row for it.
        """
        where = "the checkpoint's tokenizer"
        if not fast.is_fast:
            raise UserError(f"{where} is not a fast one; add its tokenizer.json")
        self._fast, backend = fast, fast.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = False
        chat = Chat(default_template(fast.chat_template, where), fast.special_tokens_map)
        self._chat = chat
        if chat.repaired:
            if isinstance(fast.chat_template, dict):
                fast.chat_template |= {"default": chat.source}
            else:
                fast.chat_template = chat.source
        # All added tokens, because Gemma's <end_of_turn> was not special before mid-2024.
        added = fast.added_tokens_decoder
        self._find_ends(
            lambda text: backend.encode(text, add_special_tokens=False).ids,
            {i: token.content for i, token in added.items()},
            fast.eos_token_id,
            fast.pad_token_id,
            rows,
            ends,
        )

        def is_marker(token: Any) -> bool:
            return markers.is_marker(token.content, token.special)

        self._markers = {i for i, t in added.items() if i in self.end_ids or is_marker(t)}
        self._cuts = markers.cuts(added.values(), is_marker)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids` without special tokens."""
        shown = [i for i in ids if i not in self.end_ids]
        # Clean-up would change the model's text, for example " ," to ",".
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return self._fast.decode(shown, **options)

    def name(self, token: int) -> str:
        """Returns the text of one token, special or not."""
        return str(self._fast.convert_ids_to_tokens(token))

    def save(self, folder: Path) -> None:
        """Writes the tokenizer's files, chat template included, so that transformers loads them."""
        self._fast.save_pretrained(folder)
        file = folder / _CONFIG
        config = json.loads(file.read_text())
        # Use the names of transformers 4, which version 5 also reads.
        if config.get("tokenizer_class") == "TokenizersBackend":
            config["tokenizer_class"] = "PreTrainedTokenizerFast"
            config["model_input_names"] = ["input_ids", "attention_mask"]
        if isinstance(config.get("extra_special_tokens"), list):
            config["additional_special_tokens"] = config.pop("extra_special_tokens")
        file.write_text(json.dumps(config, indent=2) + "\n")

    def _read_all(self, items: Sequence[Marked]) -> list[Reading]:
        return markers.read_all(items, self._read_texts, self._cuts)

    def _read_texts(self, texts: Sequence[str]) -> list[Reading]:
        readings = []
        for read in self._fast.backend_tokenizer.encode_batch(texts, add_special_tokens=False):
            ids = read.ids  # Each access creates a new list.
            at = [n for n, i in enumerate(ids) if i in self._markers]
            offsets = read.offsets if at else []
            readings.append((ids, [markers.Found(ids[n], *offsets[n]) for n in at]))
        return readings

    @functools.cached_property
    def _renamed(self) -> Renamed:
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
      rows: the number of rows in the model's embedding table; None checks nothing.
      ends: the end tokens in the model's config.

    Raises:
      UserError: there is no readable tokenizer, or it does not match the embedding table.
    """
    try:
        return _load(checkpoint, rows, ends)
    except UserError as error:
        if str(checkpoint) in str(error):
            raise
        raise UserError(f"{checkpoint}: {error}") from error


def _load(checkpoint: Path, rows: int | None, ends: Sequence[int]) -> Tokenizer:
    # The library warns about its threads after every fork, and Grain forks.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if checkpoint.suffix == ".gguf":
        return _of_gguf(checkpoint, rows, tuple(ends))
    if (checkpoint / "tokenizer.model").exists() and not (checkpoint / "tokenizer.json").exists():
        from bridge_jax.text.sentencepiece import SentencePieceTokenizer

        return SentencePieceTokenizer(checkpoint, rows, ends)
    import transformers

    try:
        if (checkpoint / "tokenizer.json").exists():  # Read directly, without torch.
            fast = transformers.PreTrainedTokenizerFast.from_pretrained(checkpoint)
        else:
            fast = transformers.AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        if not isinstance(fast.model_max_length, int | float):
            raise TypeError(f"model_max_length={fast.model_max_length!r} is not a number")
    except Exception as error:  # tokenizers raises a bare Exception for a damaged tokenizer.json
        raise UserError(
            f"{checkpoint}: has no readable tokenizer ({str(error)[:200]}); put "
            "the checkpoint's tokenizer.json and tokenizer_config.json there"
        ) from error
    return HFTokenizer(fast, rows, ends)


@functools.lru_cache(maxsize=4)
def _of_gguf(path: Path, rows: int | None, ends: tuple[int, ...]) -> Tokenizer:
    """Returns the tokenizer in a file, parsed once: assistant and student may share it."""
    # This imports JAX, which takes a second; launchers read their flags first.
    from bridge_jax.text import gguf_tokenizer

    return HFTokenizer(gguf_tokenizer.read(path), rows, ends)


def first_difference(a: Tokenizer, b: Tokenizer, size: int) -> int | None:
    """Returns the first id below `size` that two tokenizers decode differently, or None."""
    if a.end_id != b.end_id:
        return a.end_id
    return next((i for i in range(size) if a.decode([i]) != b.decode([i])), None)
