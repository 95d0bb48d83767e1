"""Removes from a tokenizer the tokens that given texts do not need (2305.15020).

A byte-pair encoding (BPE) joins two tokens at a time, in a fixed order of pairs, its merges. If
every token that a text was joined from is kept, the smaller tokenizer makes the same joins, so it
reads the text as before. A token that is left out is read as the shorter tokens it was joined from.
"""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from bridge_jax.errors import UserError

MULTIPLE = 128  # TPUs pad the vocabulary of a matrix product to this.
_FILE, _CONFIG = "tokenizer.json", "tokenizer_config.json"
_BYTES = {f"<0x{i:02X}>" for i in range(256)}
_PLACEHOLDER = re.compile(r"[<\[|]*(unused|reserved)", re.IGNORECASE)
_MARKS = "end_of_word_suffix", "continuing_subword_prefix", "dropout"


class Vocabulary:
    """The vocabulary of a BPE tokenizer.

    Args:
      tokenizer: the content of its tokenizer.json.
      rows: the number of rows in the model's embedding table; tokens without a row are left out.

    Raises:
      UserError: the tokenizer is not a BPE, or has an unsupported feature.
    """

    def __init__(self, tokenizer: dict[str, Any], rows: int):
        model = tokenizer["model"]
        kind = model.get("type")
        if kind != "BPE":
            raise _unsupported(f"the tokenizer is of type {kind}, and only a BPE")
        if marks := [mark for mark in _MARKS if model.get(mark)]:
            raise _unsupported(f"the tokenizer has the setting {marks[0]}, and only one without it")
        self._json, self._model = tokenizer, model
        self._merges = [(left, right) for left, right in model["merges"]]
        self._pairs: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        for left, right in self._merges:
            self._pairs[left + right].append((left, right))
        self._added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
        ids = model["vocab"] | self._added
        self._ids = {name: i for name, i in ids.items() if i < rows}
        self._names = {i: name for name, i in self._ids.items()}

    def kept(
        self, used: Iterable[int], common: int, named: Iterable[str] = (), multiple: int = MULTIPLE
    ) -> list[int]:
        """Returns the ids of the tokens to keep; the place of each is its new id.

        Kept are the tokens that are used, the most frequent ones, and the tokens that all these are
        joined from; also bytes (or all characters, if there are none), and added tokens except
        unused placeholders. Then further merges are added until the number is a multiple of
        `multiple`.

        Args:
          used: ids that texts use.
          common: the number of frequent tokens: those of the first merges, which were the most
            frequent in the tokenizer's own training data.
          named: names of tokens that are kept too.
          multiple: as above.
        """
        wanted = {self._names[i] for i in used if i in self._names}
        wanted |= {name for name in self._added if not _PLACEHOLDER.match(name)}
        whole = bool(self._model.get("byte_fallback")) and self._ids.keys() >= _BYTES
        wanted |= _BYTES if whole else {name for name in self._ids if len(name) == 1}
        wanted |= {*named, *_of_processor(self._json.get("post_processor"))}
        wanted.add(self._model.get("unk_token"))
        made = list(dict.fromkeys(left + right for left, right in self._merges))
        kept = self._with_parts([*wanted, *made[:common]])
        for name in made[common:]:
            if len(kept) % multiple == 0:
                break
            if name in self._ids and any(kept.issuperset(pair) for pair in self._pairs[name]):
                kept.add(name)
        # The library numbers the added tokens that are not in the model's vocabulary after those
        # that are.
        vocabulary = self._model["vocab"]
        return sorted((self._ids[name] for name in kept), key=lambda i: (
            self._names[i] not in vocabulary, i
        ))  # fmt: skip

    def _with_parts(self, names: list[str]) -> set[str]:
        """Returns the names that have ids, and all tokens that they can be joined from."""
        todo, kept = list(names), set[str]()
        while todo:
            name = todo.pop()
            if name in self._ids and name not in kept:
                kept.add(name)
                todo += (part for pair in self._pairs[name] for part in pair)
        return kept

    def trimmed(self, kept: Collection[int]) -> dict[str, Any]:
        """Returns the tokenizer.json with the tokens `kept` alone, numbered in this order."""
        new = {self._names[old]: at for at, old in enumerate(kept)}
        vocabulary = {name: new[name] for name in self._model["vocab"] if name in new}
        merges = [
            [left, right]
            for left, right in self._merges
            if left in vocabulary and right in vocabulary and left + right in vocabulary
        ]
        added = [
            token | {"id": new[token["content"]]}
            for token in self._json["added_tokens"]
            if token["content"] in new
        ]
        return self._json | {
            "model": self._model | {"vocab": vocabulary, "merges": merges},
            "added_tokens": sorted(added, key=lambda token: token["id"]),
            "post_processor": _renumbered(self._json.get("post_processor"), new),
        }


def trim_files(folder: Path, used: Iterable[int], common: int, rows: int, end: str) -> list[int]:
    """Trims the tokenizer whose files are in a folder; returns the ids of the kept tokens.

    Args:
      folder: has tokenizer.json and tokenizer_config.json.
      used, common: as for `Vocabulary.kept`.
      rows: as for `Vocabulary`.
      end: the token that pads if the pad token has no row in the table.

    Raises:
      UserError: as by `Vocabulary`, or the tokenizer has no tokenizer.json.
    """
    file, config = folder / _FILE, folder / _CONFIG
    if not file.exists():
        raise UserError(
            "the tokenizer has no tokenizer.json; write one with transformers: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    settings = json.loads(config.read_text(encoding="utf-8"))
    # transformers 4 repeats the added tokens here, by their old ids.
    settings.pop("added_tokens_decoder", None)
    vocabulary = Vocabulary(json.loads(file.read_text(encoding="utf-8")), rows)
    named = {key: list(_contents(value)) for key, value in settings.items() if "token" in key}
    kept = vocabulary.kept(used, common, (name for names in named.values() for name in names))
    trimmed = vocabulary.trimmed(kept)
    there = {*trimmed["model"]["vocab"], *(token["content"] for token in trimmed["added_tokens"])}
    # A special token that has no row would be added again when the files are loaded.
    for key, names in named.items():
        if key.endswith("_token") and not there.issuperset(names):
            settings[key] = end if key == "pad_token" else None
        elif isinstance(settings[key], list):
            settings[key] = [v for v in settings[key] if there.issuperset(_contents(v))]
    file.write_text(json.dumps(trimmed, ensure_ascii=False), encoding="utf-8")
    config.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return kept


def _unsupported(what: str) -> UserError:
    return UserError(f"{what} can be trimmed; train the model as it is")


def _contents(value: Any) -> Iterator[str]:
    """Yields the names of the tokens in an entry of tokenizer_config.json."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        if isinstance(value.get("content"), str):
            yield value["content"]
    elif isinstance(value, list):
        for item in value:
            yield from _contents(item)


def _of_processor(processor: Any) -> Iterator[str]:
    """Yields the names of the tokens that a post-processor adds.

    Raises:
      UserError: the post-processor is of an unknown type.
    """
    kind = processor["type"] if processor else "ByteLevel"
    if kind == "Sequence":
        for part in processor["processors"]:
            yield from _of_processor(part)
    elif kind == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            yield from token["tokens"]
    elif kind in ("BertProcessing", "RobertaProcessing"):
        yield from (processor["sep"][0], processor["cls"][0])
    elif kind != "ByteLevel":
        raise _unsupported(f"the tokenizer has a {kind}, and only one without it")


def _renumbered(processor: Any, new: dict[str, int]) -> Any:
    """Returns a post-processor with the new ids of the tokens that it adds."""
    kind = processor["type"] if processor else "ByteLevel"
    if kind == "Sequence":
        parts = [_renumbered(part, new) for part in processor["processors"]]
        return processor | {"processors": parts}
    if kind == "TemplateProcessing":
        special = {
            name: token | {"ids": [new[part] for part in token["tokens"]]}
            for name, token in processor["special_tokens"].items()
        }
        return processor | {"special_tokens": special}
    if kind in ("BertProcessing", "RobertaProcessing"):
        ends = {key: [processor[key][0], new[processor[key][0]]] for key in ("sep", "cls")}
        return processor | ends
    return processor
