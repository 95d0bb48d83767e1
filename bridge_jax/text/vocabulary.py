"""Removes tokens from a tokenizer that texts do not need (vocabulary trimming, 2305.15020).

A byte-pair encoding (BPE) joins two tokens at a time, in a fixed order of pairs, its merges. If
every token that a text was joined from is kept, the smaller tokenizer makes the same joins, so it
reads the text as before. It reads any other text too, in shorter tokens: single bytes at worst.
"""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from bridge_jax.errors import UserError

MULTIPLE = 128  # TPUs pad the vocabulary of a matrix product to this.
_FILE, _CONFIG = "tokenizer.json", "tokenizer_config.json"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_PLACEHOLDER = re.compile(r"unused|reserved", re.IGNORECASE)


class Vocabulary:
    """The vocabulary of a BPE tokenizer.

    Args:
      tokenizer: the content of its tokenizer.json.

    Raises:
      UserError: the tokenizer is not a BPE.
    """

    def __init__(self, tokenizer: dict[str, Any]):
        model = tokenizer["model"]
        if model.get("type", "BPE") != "BPE" or "merges" not in model:
            raise UserError(
                f"the tokenizer is of type {model.get('type')}, and only the vocabulary of a BPE "
                "can be trimmed; train the model as it is"
            )
        self._json, self._model = tokenizer, model
        self._ids: dict[str, int] = dict(model["vocab"])
        added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
        self._names = {i: name for name, i in (self._ids | added).items()}
        self._merges = [
            tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge)
            for merge in model["merges"]
        ]
        self._pairs: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        for left, right in self._merges:
            self._pairs[left + right].append((left, right))

    def kept(self, used: Iterable[int], common: int, multiple: int = MULTIPLE) -> list[int]:
        """Returns the ids of the tokens to keep, in their order.

        These are the tokens used, the first `common` tokens that the merges make, which were the
        most frequent ones in the tokenizer's own training data, the tokens that all these are
        joined from, bytes (or characters, if there are none), and every added token but unused
        placeholders. Further merges fill up their number.

        Args:
          used: ids that texts use.
          common: as above.
          multiple: the number of tokens is a multiple of this, if there are enough.
        """
        kept = {self._names[i] for i in used}
        for token in self._json["added_tokens"]:
            if not _PLACEHOLDER.search(token["content"]):
                kept.add(token["content"])
        bytes_only = bool(self._model.get("byte_fallback"))
        kept |= {n for n in self._ids if (_BYTE.fullmatch(n) if bytes_only else len(n) == 1)}
        kept |= {self._model["unk_token"]} & self._ids.keys()
        made = list(dict.fromkeys(left + right for left, right in self._merges))
        self._close(kept, [*kept, *made[:common]])
        for name in made[common:]:
            if len(kept) % multiple == 0:
                break
            if name not in kept and any(kept.issuperset(pair) for pair in self._pairs[name]):
                kept.add(name)
        return sorted(i for i, name in self._names.items() if name in kept)

    def _close(self, kept: set[str], names: list[str]) -> None:
        """Adds tokens to `kept`, and all tokens that they can be joined from."""
        todo, seen = list(names), set[str]()
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                kept.add(name)
                todo += (part for pair in self._pairs[name] for part in pair)

    def trimmed(self, kept: Collection[int]) -> dict[str, Any]:
        """Returns the tokenizer.json in which the tokens `kept` have the ids 0, 1, 2 and so on."""
        new = {self._names[old]: at for at, old in enumerate(sorted(kept))}
        vocab = {name: new[name] for name in self._ids if name in new}
        merges = [
            [left, right]
            for left, right in self._merges
            if left in vocab and right in vocab and left + right in vocab
        ]
        added = [
            token | {"id": new[token["content"]]}
            for token in self._json["added_tokens"]
            if token["content"] in new
        ]
        return self._json | {
            "model": self._model | {"vocab": vocab, "merges": merges},
            "added_tokens": sorted(added, key=lambda token: token["id"]),
            "post_processor": _renumbered(self._json.get("post_processor"), new),
        }


def trim_files(folder: Path, used: Iterable[int], common: int) -> list[int]:
    """Trims the tokenizer whose files are in a folder, and returns the ids of the kept tokens.

    The token at place i of the result has the new id i.

    Args:
      folder: has tokenizer.json and tokenizer_config.json.
      used: ids that texts use.
      common: as for `Vocabulary.kept`.

    Raises:
      UserError: the tokenizer is not a BPE, or has no tokenizer.json.
    """
    file, config = folder / _FILE, folder / _CONFIG
    if not file.exists():
        raise UserError("the checkpoint's tokenizer has no tokenizer.json; convert it to one")
    vocabulary = Vocabulary(json.loads(file.read_text(encoding="utf-8")))
    kept = vocabulary.kept(used, common)
    trimmed = json.dumps(vocabulary.trimmed(kept), ensure_ascii=False)
    file.write_text(trimmed, encoding="utf-8")
    # transformers 4 repeats the added tokens there, by their old ids.
    read = json.loads(config.read_text(encoding="utf-8"))
    read.pop("added_tokens_decoder", None)
    config.write_text(json.dumps(read, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return kept


def _renumbered(processor: Any, new: dict[str, int]) -> Any:
    """Returns a post-processor with the new ids of the tokens that it adds."""
    if not isinstance(processor, dict):
        return processor
    if processor.get("type") == "Sequence":
        parts = [_renumbered(part, new) for part in processor["processors"]]
        return processor | {"processors": parts}
    if processor.get("type") != "TemplateProcessing":
        return processor
    special = {
        name: token | {"ids": [new[part] for part in token["tokens"]]}
        for name, token in processor["special_tokens"].items()
    }
    return processor | {"special_tokens": special}
