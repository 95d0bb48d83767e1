"""Writes a checkpoint with only the tokens that the data of a run needs (2305.15020).

A large part of a small model is its vocabulary: 63% of the parameters of Gemma 3 270M, and 21% of
SmolLM2-135M, or 57% if 24 of its 30 layers are removed. In training, each row of the embedding
takes part in the products of the output head, and has a gradient and two moments.
"""

import dataclasses
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bridge_jax.config import ModelConfig, RunConfig
from bridge_jax.data.answers import format_completion
from bridge_jax.errors import UserError
from bridge_jax.methods.inputs import Inputs
from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.decoder import count_parameters
from bridge_jax.models.hub import checkpoint, export
from bridge_jax.models.hub.files import licence_of, locate
from bridge_jax.models.hub.hf_config import from_hf
from bridge_jax.pipeline.artifacts import Role
from bridge_jax.text import tokenizer as tokenizers
from bridge_jax.text import vocabulary
from bridge_jax.text.prompts import Mode
from bridge_jax.text.rendering import Rendering
from bridge_jax.text.tokenizer import Tokenizer

_TABLES = ("embedding", "head")  # The leaves that have one row per token.
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


def trim(config: RunConfig, inputs: Inputs, role: Role, common: int, out: Path) -> Trimmed:
    """Writes the whole checkpoint of a role, without the tokens that the run does not need.

    It keeps the tokens of prompts and answers of pool and dev, of the instructions, of every word
    in them with and without a space before it, and the `common` most frequent ones. The test split
    and the teacher's rationales are not read. For both roles the same texts are read, so that
    models with one tokenizer still have one after both are trimmed.

    Args:
      config: the config of the run.
      inputs: its data and models.
      role: student or assistant.
      common: the number of frequent tokens (`Vocabulary.kept`).
      out: the folder to create, which transformers loads.

    Raises:
      UserError: `out` exists, `common` is below 0, the checkpoint or the data cannot be read, the
        tokenizer is not a BPE, or no token can be left out.
    """
    if common < 0:
        raise UserError(f"--common={common}: must be 0 tokens or more")
    name = getattr(config, role).checkpoint
    with export.folder(out) as folder:
        whole, hf = inputs.model(role).tokenizer, checkpoint.cut_hf_config(ModelConfig(name))
        before = from_hf(hf)
        texts, used = _used(config, inputs, role, before)
        used |= {*whole.end_ids, whole.pad_id}
        whole.save(folder)
        try:
            rows, end = before.vocab_size, whole.name(whole.end_id)
            kept = vocabulary.trim_files(folder, used, common, rows, end)
            if len(kept) == rows:
                raise UserError(
                    f"the data and --common={common} need all {rows:,} tokens; lower --common"
                )
            ends = [kept.index(i) for i in whole.end_ids if i in kept]
            small = tokenizers.load(folder, len(kept), ends)
            _check(whole, small, texts, kept)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        hf |= {"vocab_size": len(kept)} | _renumbered(hf, kept)
        cut, params = _cut(name, hf, kept)
        export.write_model(folder, cut, params, hf)
        export.write_generation_config(folder, hf, small.end_ids, small.pad_id)
        (folder / "README.md").write_text(_card(name, len(kept)), encoding="utf-8")
    sizes = (count_parameters(model) for model in (cut, before))
    return Trimmed(len(kept), rows, *sizes)


def _used(
    config: RunConfig, inputs: Inputs, role: Role, model: DecoderConfig
) -> tuple[list[str], set[int]]:
    """Returns texts to compare the two tokenizers on, and the ids that they and prompts use."""
    tokenizer = inputs.model(role).tokenizer
    examples = [*inputs.pool, *inputs.dev]
    labelled = [example for example in examples if example.answer is not None]
    checkpoint_name = getattr(config, role).checkpoint
    # The length of prompts is not limited here: a run checks it, or cuts them.
    rendering = Rendering(
        tokenizer,
        table_rows=model.vocab_size,
        checkpoint=checkpoint_name,
        max_prompt_tokens=sys.maxsize,
        on_long_prompt="error",
    )
    modes: dict[Mode, list[Any]] = {"reason": examples, "answer": examples}
    if config.rationales.show_gold:
        modes["explain"] = labelled
    used = {
        i
        for mode, asked in modes.items()
        for ids in rendering.prompts(asked, "", mode)
        for i in ids
    }
    for level in {*config.thinking.levels, *config.reinforcement.levels}:
        stated = dataclasses.replace(examples[0], budget=level)
        used.update(rendering.prompt(stated, "reason"))
    texts = {example.question for example in examples}
    answers = {example.gold for example in labelled}
    answers.update(choice for example in examples for choice in example.choices)
    for answer in answers | {""}:
        texts |= {answer, format_completion("", answer)[1], format_completion("x", answer)[1]}
    decode = inputs.model("student").tokenizer.decode
    for drawn in inputs.instructions.sequences:
        texts |= {decode(drawn.prompt), decode([*drawn.rationale, *drawn.answer])}
    words = {word for text in texts for word in _WORD.findall(text)}
    compared = sorted(texts | words | {f" {word}" for word in words})
    used.update(i for ids in tokenizer.encode_all(compared) for i in ids)
    return compared, used


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


def _check(whole: Tokenizer, small: Tokenizer, texts: Iterable[str], kept: list[int]) -> None:
    """Raises a `UserError` if the trimmed tokenizer names a token, or reads a text, differently."""
    why = "train the model as it is"
    for new, old in enumerate(kept):
        if small.name(new) != whole.name(old):
            raise UserError(f"token {whole.name(old)!r} would not keep its row; {why}")
    if small.name(len(kept)) != str(None):
        raise UserError(f"token {small.name(len(kept))!r} would have no row; {why}")
    texts = list(texts)
    for text, ids, new in zip(texts, whole.encode_all(texts), small.encode_all(texts)):
        if ids != [kept[i] for i in new]:
            raise UserError(f"the trimmed tokenizer would read {text[:80]!r} differently; {why}")


def _cut(name: str, hf: dict[str, Any], kept: list[int]) -> tuple[DecoderConfig, dict[str, Any]]:
    """Returns the config and the parameters of a checkpoint with the rows of `kept` tokens."""
    dtype = jnp.dtype(hf.get("dtype") or "float32")
    params = checkpoint.load(ModelConfig(name), dtype=dtype)[1]
    rows = np.asarray(kept)
    cut = {leaf: jnp.take(params[leaf], rows, axis=0) for leaf in _TABLES if leaf in params}
    return from_hf(hf), params | cut


def _card(name: str, tokens: int) -> str:
    """Returns a model card, with the license if the checkpoint names one."""
    licence = licence_of(locate(name))
    front = f"---\nlicense: {licence}\n---\n" if licence else ""
    # The name may be a folder of this machine, of which only the last part is shown.
    return f"{front}\n{Path(name).name} with {tokens:,} tokens of its vocabulary.\n"
