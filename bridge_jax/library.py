"""The parts of BRIDGE as plain functions, for a program or a notebook; no workdir, no ledger.

    import bridge_jax as bj

    data = bj.read_data(bj.DataConfig(source="jsonl", path="tickets.jsonl", kind="label"))
    assistant = bj.load_model("HuggingFaceTB/SmolLM2-1.7B-Instruct")
    how = bj.SelectionConfig(strategy="difficulty")
    chosen = bj.select(bj.score(assistant, data.pool), data.pool, budget=40, settings=how)

A run (`run`, or `launch.run`) does the same in stages that are saved and can be resumed, and pays
the teacher through a ledger.
"""

import dataclasses
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from bridge_jax.config import (
    DataConfig,
    GenerationConfig,
    MeshConfig,
    ModelConfig,
    RunConfig,
    SelectionConfig,
    TrainConfig,
)
from bridge_jax.config.fields import check
from bridge_jax.data import sources
from bridge_jax.data.answers import answer_of, is_correct, split_completion
from bridge_jax.data.example import Example, Splits
from bridge_jax.errors import UserError
from bridge_jax.methods.checks import faults_of_training
from bridge_jax.methods.fitting import TrainSpec, dev_measure
from bridge_jax.methods.inputs import Examples
from bridge_jax.models import projection
from bridge_jax.models.hub import checkpoint, export
from bridge_jax.models.hub.checkpoint import planned_config
from bridge_jax.models.layouts import choose
from bridge_jax.parallel import chips
from bridge_jax.pipeline.models import Model, RoleModel
from bridge_jax.selection import scores, strategies
from bridge_jax.selection.scores import Scores
from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import Mode
from bridge_jax.text.rendering import Rendering
from bridge_jax.training import batches, loop
from bridge_jax.training.checkpoints import STATE
from bridge_jax.training.objectives import Objective
from bridge_jax.training.objectives.sft import SFT


def read_data(config: DataConfig, seed: int = 0) -> Splits:
    """Returns the examples of `pool`, `dev` and `test`.

    Args:
      config: the source: a file, `hf`, or `practice`, which needs no file.
      seed: the seed of practice tasks, of dividing rows without a split, and of sampling.

    Raises:
      UserError: the data cannot be read; a `BadRowsError` names the rows.
    """
    check(config)
    return sources.load(config, seed)


def load_model(
    checkpoint: str | ModelConfig, mesh: MeshConfig | None = None, seed: int = 0
) -> Model:
    """Returns a model with its tokenizer, its parameters placed on the devices.

    Args:
      checkpoint: a folder, a .gguf file, an id on the hub or `smollm2-135m`; or a `ModelConfig`,
        which can keep a subset of the layers and add an adapter.
      mesh: how the parameters are split over the devices; by default FSDP over all of them. Sizes
        that the model cannot use are reduced.
      seed: the seed of a new adapter.

    Raises:
      UserError: the checkpoint is missing or of an unsupported family, or `mesh` needs another
        number of devices.
    """
    chips.keep_freed_memory()
    selected = ModelConfig(checkpoint) if isinstance(checkpoint, str) else checkpoint
    check(selected)
    config = planned_config(selected)
    meshes = choose(config, mesh or MeshConfig())
    loader = RoleModel(selected, meshes.training, seed, meshes.generation)
    return loader.trainable() if selected.lora.rank else loader.load()


def score(
    model: Model,
    examples: Sequence[Example],
    batch_tokens: int = SelectionConfig.batch_tokens,
) -> Scores:
    """Scores the gold answers of N examples, and embeds their questions.

    Args:
      model: the assistant; the scores mean more if it was warmed up with `train` on a few labels.
      examples: a pool with gold answers.
      batch_tokens: the most tokens in a batch, padding included.

    Returns:
      nll, entropy (nats) and margin, f32[N], means over the answer's own tokens, without the
        "Answer:" before it and the end token; and embeddings, f32[N, D], L2-normalised.

    Raises:
      UserError: there are no examples, one has no answer, or a prompt cannot be rendered.
    """
    if not examples:
        raise UserError("there are no examples to score")
    if bare := [example.id for example in examples if example.answer is None]:
        raise UserError(f"example {bare[0]!r} has no gold answer to score")
    reading = _rendering(model)
    sequences = reading.own_answers(reading.labelled(examples, ""))
    pad_id = model.tokenizer.pad_id
    return scores.score(model.config, model.params, sequences, batch_tokens, pad_id, model.mesh)


def select(
    scored: Scores,
    examples: Sequence[Example],
    budget: int,
    settings: SelectionConfig,
    seed: int = 0,
) -> list[int]:
    """Returns the indices of the examples to ask the teacher about, best first.

    Args:
      scored: the scores of the pool, from `score`.
      examples: the pool.
      budget: number of examples. The selection for a smaller budget is a prefix of this one.
      settings: the strategy and the measure of difficulty.
      seed: the seed of random orders and draws.

    Raises:
      UserError: the budget is below 1 or exceeds the pool, or the strategy needs gradients
        (`badge`).
    """
    if budget < 1:
        raise UserError(f"budget={budget}: must be 1 example or more")
    check(settings)
    if settings.strategy == "badge":
        raise UserError("strategy='badge': requires gradients, which only a run computes")
    if len(scored.nll) != len(examples):
        raise UserError(
            f"scores of {len(scored.nll)} examples do not match {len(examples)} examples"
        )
    labels = [(example.answer or "") if example.kind == "label" else "" for example in examples]
    difficulty, embeddings = getattr(scored, settings.difficulty), scored.embeddings
    return strategies.select(difficulty, embeddings, budget, settings, seed, labels).chosen


def generate(
    model: Model,
    prompts: Sequence[str | Example],
    settings: GenerationConfig | None = None,
    mode: Mode = "reason",
    seed: int = 0,
) -> list[str]:
    """Returns the completion of each prompt, in order.

    Args:
      model: the model that generates.
      prompts: texts, each sent to the model as a user message; or examples, which are asked as in
        training.
      settings: length, temperature and batch size.
      mode: for examples: to `reason` before the answer, to `answer` alone, or to `explain` the gold
        answer, which the prompt then shows.
      seed: the seed of sampling.

    Raises:
      UserError: a prompt and its completion exceed the model's context.
    """
    settings = settings or GenerationConfig()
    check(settings)
    reading = _rendering(model)
    asked = []
    for prompt in prompts:
        if isinstance(prompt, Example):
            asked.append(reading.prompt(prompt, mode))
        else:
            asked.append(model.tokenizer.render_chat([{"role": "user", "content": prompt}]))
    written = model.engine(settings, seed).complete_all(asked)
    return [model.tokenizer.decode(completion.ids) for completion in written]


def is_right(text: str, example: Example) -> bool:
    """Returns whether the answer in a text, after the last `Answer:`, is the gold one."""
    return is_correct(answer_of(text, example), example)


def rationale_of(text: str) -> str:
    """Returns the rationale in a text: everything before the last `Answer:`, or the whole text."""
    return split_completion(text)[0]


def train(
    model: Model,
    taught: Sequence[tuple[Example, str | None]],
    settings: TrainConfig | None = None,
    objective: Objective | None = None,
    mode: Mode = "reason",
    dev: Sequence[Example] = (),
    seed: int = 0,
    folder: Path | str | None = None,
) -> Model:
    """Returns the model after supervised fine-tuning; the arrays of `model` are donated.

    Args:
      model: trained as a whole, in f32, or only its adapter if it has one.
      taught: examples with the rationale that the model learns to write before the gold answer;
        None if it learns the answer alone.
      settings: batches, steps and rates.
      objective: by default cross-entropy, weighted by `settings.rationale_weight`.
      mode: the prompt that asks for a rationale, as in `generate`.
      dev: the examples that `settings.dev_every` measures.
      seed: the seed of the batch order and of dropout.
      folder: for metrics.jsonl and, until training ends, checkpoints: after an interruption the
        same call continues from the last one. By default nothing is kept.

    Raises:
      UserError: settings contradict each other, a sequence is longer than `settings.row_tokens`, or
        a loss is not finite.
    """
    settings = settings or TrainConfig()
    check(settings)
    for fault in faults_of_training(settings):
        raise UserError(fault)
    if bool(settings.dev_every) != bool(dev):
        raise UserError(
            f"dev_every={settings.dev_every}, but `dev` has {len(dev)} examples: pass examples and "
            "set dev_every above 0, or do neither"
        )
    reading = _rendering(model)
    sequences = reading.sequences(
        [(example, rationale, None) for example, rationale in taught], mode
    )
    config, params = model.config, model.params
    if not config.lora:
        config = dataclasses.replace(config, param_dtype=jnp.float32)
        params = jax.tree.map(lambda a: a.astype(jnp.float32), params)
    objective = objective or SFT(settings.rationale_weight)
    rows = pack(sequences, settings.row_tokens, model.tokenizer.pad_id)
    measure = None
    if dev:
        writes = settings.dev_metric == "accuracy"
        spec = TrainSpec(settings, seed, objective, mode, GenerationConfig() if writes else None)
        measure = dev_measure(spec, model, reading, Examples(dev, digest=""))
    steps = batches.steps_of(rows, settings)
    with tempfile.TemporaryDirectory(prefix="bridge-jax-") as temporary:
        out = Path(folder or temporary)
        out.mkdir(parents=True, exist_ok=True)
        trained = loop.train(
            out,
            "training",
            config,
            params,
            objective,
            batches.Shuffled(rows, settings.batch_rows, steps, seed),
            steps=steps,
            config=settings,
            seed=seed,
            mesh=model.mesh,
            measure=measure,
        )
        shutil.rmtree(out / STATE, ignore_errors=True)
    if config.lora:
        trained = projection.combine(projection.split(params)[1], trained)
    return dataclasses.replace(model, config=config, params=trained)


def save(model: Model, folder: Path | str, dtype: str | None = None) -> None:
    """Writes a folder that transformers loads: config.json, safetensors, and the tokenizer's files.

    Args:
      model: an adapter is merged into it.
      folder: must not exist yet.
      dtype: of the weights, such as "bfloat16"; None keeps that of the checkpoint.

    Raises:
      UserError: the folder exists, or the disk is full.
    """
    tokenizer = model.tokenizer
    hf_config = checkpoint.cut_hf_config(model.selected)
    with export.folder(Path(folder)) as out:
        export.write_model(out, model.config, model.params, hf_config, dtype)
        export.write_generation_config(out, hf_config, tokenizer.end_ids, tokenizer.pad_id)
        tokenizer.save(out)


def run(config: RunConfig | Path | str, workdir: Path | str) -> dict[str, Any]:
    """Runs a config in a workdir, or resumes it; returns the report, as in report.json.

    Progress is printed. The teacher is paid through the workdir's ledger, within `config.budget`,
    without asking first: the call is the consent. (`launch.run` asks, or takes `--yes`.)

    Args:
      config: a config, or a Python file with `get_config()`.
      workdir: the folder of the run.

    Raises:
      UserError: the run cannot work; what was trained and paid is kept.
    """
    # Imported here, because the functions above need neither teachers nor report pages.
    from rich.console import Console

    from bridge_jax.config.io import load
    from bridge_jax.pipeline import storage
    from bridge_jax.runs import Run

    made = config if isinstance(config, RunConfig) else load(str(config))
    prepared = Run(made, storage.local(str(workdir), "workdir"))
    return prepared.run(Console(highlight=False), prepared.heading)


def _rendering(model: Model) -> Rendering:
    return Rendering(
        model.tokenizer,
        table_rows=model.config.vocab_size,
        checkpoint=model.selected.checkpoint,
        max_prompt_tokens=model.config.max_positions,
        on_long_prompt="error",
    )
