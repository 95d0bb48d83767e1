"""Loads the model of a role, from its checkpoint or from a stage, and writes its completions."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from bridge_jax.config import GenerationConfig, ModelConfig
from bridge_jax.data.example import Example
from bridge_jax.generation.engine import Completion, Engine, Request
from bridge_jax.models import decoder, projection
from bridge_jax.models.config import DecoderConfig, computing_on
from bridge_jax.models.hub import checkpoint
from bridge_jax.models.hub.files import locate, read_end_ids
from bridge_jax.parallel import hosts, preemption
from bridge_jax.pipeline import files
from bridge_jax.pipeline.artifacts import PARAMS
from bridge_jax.pipeline.storage import Folder
from bridge_jax.progress import Advance, track
from bridge_jax.text import tokenizer
from bridge_jax.training.checkpoints import load_params

REQUEST = "request"  # A field of rows until the file is complete: the index of the prompt.


@dataclasses.dataclass(frozen=True)
class Model:
    """A model in memory.

    Attributes:
      params: the parameters, on `mesh`.
      tokenizer: the tokenizer of its checkpoint.
      mesh: the mesh of the parameters.
      generation_mesh: the mesh of the parameters and the cache that generation uses.
      selected: the checkpoint that the model came from.
    """

    config: DecoderConfig
    params: Any
    tokenizer: tokenizer.Tokenizer
    mesh: Mesh
    generation_mesh: Mesh
    selected: ModelConfig

    def engine(self, settings: GenerationConfig, seed: int) -> Engine:
        """Returns the engine that generates completions with the model."""
        ends, pad_id, mesh = self.tokenizer.end_ids, self.tokenizer.pad_id, self.generation_mesh
        return Engine(self.config, self.params, ends, pad_id, settings, mesh, seed)


class RoleModel:
    """The model of a role, not yet loaded.

    Attributes:
      selected: the checkpoint, and the layers that are kept of it.
      mesh: the mesh for the parameters.
      generation_mesh: the mesh for generation; by default the same.
    """

    def __init__(
        self,
        selected: ModelConfig,
        mesh: Mesh,
        seed: int,
        generation_mesh: Mesh | None = None,
    ):
        self.selected, self.mesh, self._seed = selected, mesh, seed
        self.generation_mesh = generation_mesh or mesh

    @functools.cached_property
    def config(self) -> DecoderConfig:
        """The config of the checkpoint, cut to the layers that are kept."""
        return checkpoint.read_config(self.selected)

    @functools.cached_property
    def tokenizer(self) -> tokenizer.Tokenizer:
        """The tokenizer of the checkpoint, checked against the size of its embedding table."""
        path, rows = locate(self.selected.checkpoint), self.config.vocab_size
        return tokenizer.load(path, rows, read_end_ids(path, rows))

    def load(self, made: Folder | None = None, dtype: Any = None) -> Model:
        """Returns the model that a stage has trained, or by default the untrained checkpoint.

        Its parameters have `dtype`, by default that of matrix products, which suffices to run it.
        """
        selected, mesh = self.selected, self.mesh
        dtype = dtype or computing_on(self.config, selected).matmul_dtype
        if made is None:
            config, params = checkpoint.load(selected, mesh, dtype)
        elif selected.lora.rank:
            config, base = checkpoint.load(selected, mesh, dtype)
            config = dataclasses.replace(config, lora=selected.lora)
            adapter, kept = projection.split(decoder.abstract(config, mesh))
            trained = load_params(made.path / PARAMS.name, adapter)
            params = projection.combine(projection.quantized_base(base, kept), trained)
        else:
            config = dataclasses.replace(self.config, param_dtype=dtype)
            params = load_params(made.path / PARAMS.name, decoder.abstract(config, mesh))
        config = computing_on(config, selected)
        return Model(config, params, self.tokenizer, mesh, self.generation_mesh, selected)

    def trainable(self, made: Folder | None = None) -> Model:
        """Returns the model with the parameters to train in f32: all of them, or only an adapter.

        The adapter is newly initialized if `made` is None.
        """
        adapter = self.selected.lora
        model = self.load(made, None if adapter.rank else jnp.float32)
        if made is not None or not adapter.rank:
            return model
        config = dataclasses.replace(model.config, lora=adapter)
        drawn = decoder.init_adapter(config, self.mesh, jax.random.key(self._seed))
        kept = projection.quantized_base(
            model.params, projection.split(decoder.abstract(config, self.mesh))[1]
        )
        return dataclasses.replace(model, config=config, params=projection.combine(kept, drawn))


def write_completions(
    out: Folder,
    file: str,
    name: str,
    engine: Engine,
    examples: Sequence[Example],
    prompts: Sequence[list[int] | Request],
    to_row: Callable[[Example, Completion], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Writes a row for each example to a file of a stage, as `complete_rows`, and shows progress.

    Args:
      out: the folder of the stage.
      file: its JSON Lines file.
      name: for the progress bar.
      engine, examples, prompts, to_row: as for `complete_rows`.
    """
    path = out.path / file
    left = len(prompts) - len(hosts.broadcast(files.read_appended(path)))
    with track(name, left, "examples") as advance:
        return complete_rows(path, engine, examples, prompts, to_row, advance)


def complete_rows(
    path: Path,
    engine: Engine,
    examples: Sequence[Example],
    prompts: Sequence[list[int] | Request],
    to_row: Callable[[Example, Completion], dict[str, Any]],
    advance: Advance,
) -> list[dict[str, Any]]:
    """Writes a row for each example, and returns them in order, on every host.

    Rows are appended as completions end, each with the index of its request. After an interruption
    these rows are kept and the others are generated; the result is the same as without it. At the
    end the rows are put in the order of the examples.

    Args:
      path: the JSON Lines file.
      engine: generates the completions.
      examples: one for each prompt.
      prompts: token ids, or requests with settings of their own.
      to_row: returns the row for an example and its completion.
      advance: called with the number of rows that were appended.
    """
    lines = hosts.broadcast(files.read_appended(path))
    done = {row.get(REQUEST, line): row for line, row in enumerate(lines)}
    kept = sorted(done)
    files.write_rows(path, [done[index] | {REQUEST: index} for index in kept])
    for ended in engine.complete(prompts, done=kept):
        new = {index: to_row(examples[index], completion) for index, completion in ended}
        files.append_rows(path, [row | {REQUEST: index} for index, row in new.items()])
        done |= new
        advance(len(ended))
        preemption.stop_together()
    in_order = (done[index] for index in sorted(done))
    rows = [{k: v for k, v in row.items() if k != REQUEST} for row in in_order]
    files.write_rows(path, rows)
    return rows
