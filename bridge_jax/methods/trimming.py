"""Writes a checkpoint whose vocabulary holds the tokens of a run's data (2305.15020).

A small model consists of its vocabulary to a large part: 63% of Gemma 3 270M, and 21% of
SmolLM2-135M, or 57% if 24 of its 30 layers are removed. Each row of the embedding costs memory for
its gradient and moments, and a product in each step.
"""

import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bridge_jax.config import ModelConfig
from bridge_jax.errors import UserError
from bridge_jax.methods.inputs import Inputs
from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.decoder import count_parameters
from bridge_jax.models.hub import checkpoint, export
from bridge_jax.models.hub.hf_config import from_hf
from bridge_jax.pipeline.artifacts import Role
from bridge_jax.text import tokenizer as tokenizers
from bridge_jax.text import vocabulary
from bridge_jax.text.prompts import Mode
from bridge_jax.text.tokenizer import Tokenizer

_TABLES = ("embedding", "head")  # The leaves that have one row per token.
_MODES: tuple[Mode, ...] = ("reason", "answer", "explain")
_WORD = re.compile(r"\w+|[^\w\s]+")


class Trimmed(NamedTuple):
    """The sizes of a trimmed checkpoint, and of the one that it was made from.

    Attributes:
      tokens, tokens_before: rows of the embedding table.
      params, params_before: parameters; a tied embedding counts once.
    """

    tokens: int
    tokens_before: int
    params: int
    params_before: int


def trim(inputs: Inputs, selected: ModelConfig, role: Role, common: int, out: Path) -> Trimmed:
    """Writes the checkpoint of a role with the tokens that the data of a run needs.

    These are the tokens of prompts and gold answers of pool and dev, of the instructions, of every
    word in them with and without a space before it, and the first `common` of the tokenizer. The
    test split is not read.

    Args:
      inputs: the data and the models of the run.
      selected: the model of `role`; all of its layers are written.
      role: student or assistant.
      common: number of tokens to keep in any case, the most frequent ones of the tokenizer.
      out: the folder to create, which transformers loads.

    Raises:
      UserError: `out` exists, the checkpoint or the data cannot be read, or the tokenizer is not a
        byte-pair encoding.
    """
    if common < 0:
        raise UserError(f"--common={common}: must be 0 tokens or more")
    whole = inputs.model(role).tokenizer
    texts, used = _used(inputs, role, whole)
    hf = checkpoint.cut_hf_config(ModelConfig(selected.checkpoint))
    with export.folder(out) as folder:
        whole.save(folder)
        kept = vocabulary.trim_files(folder, used, common)
        hf |= {"vocab_size": len(kept)} | _renumbered(hf, kept)
        ends = [kept.index(i) for i in whole.end_ids]
        small = tokenizers.load(folder, len(kept), ends)
        _check(whole, small, texts, kept)
        config, params = _cut(selected.checkpoint, hf, kept)
        export.write_model(folder, config, params, hf)
        export.write_generation_config(folder, hf, small.end_ids, small.pad_id)
    before = checkpoint.read_config(ModelConfig(selected.checkpoint))
    counts = (count_parameters(config) for config in (config, before))
    return Trimmed(len(kept), before.vocab_size, *counts)


def _used(inputs: Inputs, role: Role, tokenizer: Tokenizer) -> tuple[list[str], set[int]]:
    """Returns the texts and words of the data, and all ids that prompts, answers and they use."""
    examples = [*inputs.pool, *inputs.dev]
    labelled = [example for example in examples if example.answer is not None]
    rendering = inputs.rendering(role)
    lists: list[Iterable[list[int]]] = [rendering.answers(labelled, "")]
    for mode in _MODES:
        lists.append(rendering.prompts(labelled if mode == "explain" else examples, "", mode))
    texts = {example.question for example in examples} | {example.gold for example in labelled}
    for drawn in inputs.instructions.sequences if role == "student" else ():
        parts = drawn.prompt, [*drawn.rationale, *drawn.answer]
        lists.append(parts)
        texts.update(map(tokenizer.decode, parts))
    words = {word for text in texts for word in _WORD.findall(text)}
    checked = sorted(texts | words | {f" {word}" for word in words})
    lists.append(tokenizer.encode_all(checked))
    return checked, {i for ids in itertools.chain(*lists) for i in ids}


def _renumbered(hf: dict[str, Any], kept: list[int]) -> dict[str, Any]:
    """Returns the entries of a config.json that name tokens, with the new ids."""
    new = {old: at for at, old in enumerate(kept)}
    found: dict[str, Any] = {}
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        old = hf.get(key)
        if isinstance(old, list):
            found[key] = [new[i] for i in old if i in new]
        elif old is not None:
            found[key] = new.get(old)
    return found


def _check(whole: Tokenizer, small: Tokenizer, texts: list[str], kept: list[int]) -> None:
    """Raises a `UserError` if the trimmed tokenizer reads a text differently."""
    for text, ids, new in zip(texts, whole.encode_all(texts), small.encode_all(texts)):
        if ids != [kept[i] for i in new]:
            raise UserError(
                f"the trimmed tokenizer reads {text[:80]!r} differently; train the model as it is"
            )


def _cut(name: str, hf: dict[str, Any], kept: list[int]) -> tuple[DecoderConfig, dict[str, Any]]:
    """Returns the config and the parameters of a checkpoint with the rows of `kept` tokens."""
    dtype = jnp.dtype(hf.get("dtype", "float32"))
    params = checkpoint.load(ModelConfig(name), dtype=dtype)[1]
    rows = np.asarray(kept)
    cut = {name: jnp.take(params[name], rows, axis=0) for name in _TABLES if name in params}
    return from_hf(hf), params | cut
