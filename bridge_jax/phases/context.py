"""What every stage of a run is given: config, data, models by role, and the mesh."""

import dataclasses
import functools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from bridge_jax import config_io, timing
from bridge_jax.config import (
    DataConfig,
    InstructConfig,
    LoraConfig,
    ModelConfig,
    RationalesConfig,
    RunConfig,
    TeacherConfig,
    TrainConfig,
)
from bridge_jax.errors import UserError
from bridge_jax.generation.engine import Engine, check_context
from bridge_jax.models import checkpoint, decoder, generation_config, lora
from bridge_jax.models.config import DecoderConfig, compute_dtype, computing_on
from bridge_jax.models.files import locate
from bridge_jax.parallel import hosts, preemption
from bridge_jax.parallel.sharding import make_mesh
from bridge_jax.phases.files import read_rows, write_json
from bridge_jax.selection.strategies import noise_count
from bridge_jax.tasks import instructions, rouge, sources, task
from bridge_jax.tasks.example import Example, Splits
from bridge_jax.tasks.practice.instructions import generate_instructions
from bridge_jax.teachers import replay
from bridge_jax.teachers.servers import server_of
from bridge_jax.text import prompts, tokenizer
from bridge_jax.text.chat import UnwrittenError
from bridge_jax.text.instructions import Drawn, draw
from bridge_jax.training import metrics
from bridge_jax.training.checkpoints import STATE, load_params, save_params
from bridge_jax.training.loop import train

Role = Literal["assistant", "student"]

_SPEED = (
    *("concurrency", "requests_per_minute", "tokens_per_minute", "timeout"),
    *("batch", "batch_share", "batch_poll_seconds", "free", "allow_http"),
)


@dataclasses.dataclass(frozen=True)
class Model:
    """A role's model as some stage left it."""

    config: DecoderConfig
    params: Any
    tokenizer: tokenizer.Tokenizer


class Run:
    """One run.

    Attributes:
      config: validated, with the text of its task file in place of the file.
      workdir: where the stages' folders are.
      mesh: of the devices given, by default of all.
    """

    def __init__(self, config: RunConfig, workdir: Path, devices: Any = None):
        self.config = dataclasses.replace(config, data=task.with_text(config.data))
        self.workdir = workdir
        self.mesh = make_mesh(config.mesh, devices)

    @functools.cached_property
    def splits(self) -> Splits:
        """The examples."""
        return sources.load(self.config.data, self.config.seed)

    @functools.cached_property
    def pool_by_id(self) -> dict[str, Example]:
        """The pool."""
        return {example.id: example for example in self.splits.pool}

    def warmup_examples(self) -> list[Example]:
        """Returns the labelled examples that the assistant begins with, in a random order.

        Raises:
          UserError: their domains have fewer than the share of the pool that was asked for.
        """
        pool, config = self.splits.pool, self.config.warmup
        count = max(1, round(config.fraction * len(pool)))
        shuffled = np.random.default_rng(self.config.seed).permutation(len(pool))
        drawn = [pool[i] for i in shuffled]
        if config.domains:
            drawn = [example for example in drawn if example.domain in config.domains]
        if len(drawn) < count:
            raise UserError(
                f"warmup.domains={','.join(config.domains)}: {len(drawn)} examples of the pool, "
                f"where warmup.fraction={config.fraction} asks for {count}; the pool has "
                f"{', '.join(sorted({example.domain or 'none' for example in pool}))}"
            )
        return drawn[:count]

    @functools.cache  # noqa: B019 - a run lives as long as its process
    def tokenizer(self, role: Role) -> tokenizer.Tokenizer:
        """Returns the tokenizer of a role's checkpoint, compared with its embedding table."""
        path, rows = locate(getattr(self.config, role).checkpoint), self._rows(role)
        return tokenizer.load(path, rows, generation_config.read_end_ids(path, rows))

    def prompt(self, role: Role, example: Example, mode: prompts.Mode) -> list[int]:
        """Returns the ids that ask a role's model about `example`."""
        try:
            ids = prompts.render_prompt(
                self.tokenizer(role),
                example,
                mode,
                self.config.max_prompt_tokens,
                self.config.on_long_prompt,
            )
        except UnwrittenError as error:
            raise UserError(f"example {example.id!r}: {error}") from error
        self._check_ids(role, f"example {example.id!r}", ids)
        return ids

    def sequence(
        self,
        role: Role,
        example: Example,
        rationale: str | None,
        answer: str | None = None,
        mode: prompts.Mode = "reason",
    ) -> prompts.Sequence:
        """Returns what a role learns from `example`: rationale and answer, or the answer alone.

        The answer is the gold one, unless another is given; `mode` is how a rationale is asked for.
        """
        prompt = self.prompt(role, example, mode if rationale else "answer")
        answer = example.answer if answer is None else answer
        sequence = prompts.training_sequence(self.tokenizer(role), prompt, rationale, answer)
        self._check_ids(role, f"example {example.id!r}", [*sequence.rationale, *sequence.answer])
        return sequence

    def _check_ids(self, role: Role, what: str, ids: list[int]) -> None:
        """Raises a `UserError` if a token of `what` has no row in a role's embedding table."""
        selected, rows = getattr(self.config, role), self._rows(role)
        if (largest := max(ids, default=0)) >= rows:
            raise UserError(
                f"{what}: its token {self.tokenizer(role).name(largest)!r} has the "
                f"id {largest}, and the embedding table of {selected.checkpoint} has {rows:,} "
                "rows; use the tokenizer that belongs to the checkpoint, or give the table a row "
                "for each token"
            )

    @functools.cache  # noqa: B019 - a run lives as long as its process
    def _rows(self, role: Role) -> int:
        """Returns how many rows the embedding table of a role's checkpoint has."""
        return checkpoint.read_config(getattr(self.config, role)).vocab_size

    def notes(self) -> dict[str, list[Role]]:
        """Returns notes on how prompts are made, each with the roles that it concerns."""
        found: dict[str, list[Role]] = {}
        for role in self.roles():
            for note in self.tokenizer(role).notes:
                found.setdefault(note, []).append(role)
        return found

    def roles(self) -> tuple[Role, ...]:
        """Returns the roles that this run has."""
        return ("assistant", "student") if self.config.needs_assistant else ("student",)

    @functools.cache  # noqa: B019 - a run lives as long as its process
    def instructions(self, count: int) -> Drawn:
        """Returns the first `count` sequences of the student's instruction warm-up.

        Raises:
          UserError: they cannot be read, there are fewer, or a generated one is longer than a row.
        """
        config, seed = self.config.instruct, self.config.seed
        longest = config.train.row_tokens
        if config.source == "generated":
            examples = generate_instructions(seed, count)
            drawn = [self.sequence("student", e, e.rationales.get("medium")) for e in examples]
            needed = max((sequence.length for sequence in drawn), default=0)
            if needed > longest:
                raise UserError(
                    f"instruct.train.row_tokens={longest}: the longest generated instruction has "
                    f"{needed} tokens; raise it"
                )
            return Drawn(drawn)
        if not count:
            return Drawn([])
        source = instructions.read(config, seed)
        longest = min(longest, checkpoint.read_config(self.config.student).max_positions)
        drawn = draw(source.rows, self.tokenizer("student"), count, longest)
        if len(drawn.sequences) < count:
            raise UserError(
                f"instruct.examples={count}: {config.path} has {len(drawn.sequences):,} "
                f"instructions of at most {longest} tokens ({drawn.left_out:,} are longer); set "
                f"instruct.examples={len(drawn.sequences)} or less, add data, or make longer ones "
                "fit with instruct.train.row_tokens"
            )
        for sequence in drawn.sequences:
            ids = [*sequence.prompt, *sequence.rationale, *sequence.answer]
            self._check_ids("student", f"an instruction of {config.path}", ids)
        return drawn._replace(skipped=len(source.bad.rows))

    def model(self, role: Role, stage: str | None, dtype: Any = None) -> Model:
        """Returns a role's model after `stage`, or its checkpoint as it was pretrained.

        Its parameters are of `dtype`, or of the compute dtype, which is enough to run it.
        """
        selected: ModelConfig = getattr(self.config, role)
        dtype = dtype or compute_dtype()
        if stage is None:
            config, params = checkpoint.load(selected, self.mesh, dtype)
        elif selected.lora.rank:
            config, base = checkpoint.load(selected, self.mesh, dtype)
            config = dataclasses.replace(config, lora=selected.lora)
            like = lora.split(decoder.abstract(config, self.mesh))[0]
            params = lora.join(base, load_params(self.workdir / stage / "params", like))
        else:
            config = dataclasses.replace(checkpoint.read_config(selected), param_dtype=dtype)
            params = load_params(
                self.workdir / stage / "params", decoder.abstract(config, self.mesh)
            )
        config = computing_on(config, selected.attention)
        return Model(config, params, self.tokenizer(role))

    def trainable(self, role: Role, stage: str | None) -> Model:
        """Returns `model` with what is trained in f32: all of it, or an adapter, new at first."""
        adapter: LoraConfig = getattr(self.config, role).lora
        model = self.model(role, stage, None if adapter.rank else jnp.float32)
        if stage is not None or not adapter.rank:
            return model
        config = dataclasses.replace(model.config, lora=adapter)
        drawn = lora.draw(config, self.mesh, jax.random.key(self.config.seed))
        return Model(config, lora.join(model.params, drawn), model.tokenizer)

    def engine(self, model: Model, **settings: Any) -> Engine:
        """Returns what writes completions with `model`; `settings` replace those of the config."""
        tok = model.tokenizer
        return Engine(
            model.config,
            model.params,
            tok.end_ids,
            tok.pad_id,
            dataclasses.replace(self.config.generation, **settings),
            self.mesh,
            self.config.seed,
        )

    def train(
        self,
        out: Path,
        name: str,
        model: Model,
        sequences: Sequence[prompts.Sequence],
        config: TrainConfig,
    ) -> None:
        """Trains `model` (its parameters are consumed) and writes `out/params`."""
        trained, frozen = lora.split(model.params) if model.config.lora else (model.params, {})
        sizes = {"trained": _size_of(trained), "frozen": _size_of(frozen)}
        write_json(out / "parameters.json", sizes)
        # It is there when a run was killed right after it had written it.
        if not hosts.agree((out / "params").is_dir()):
            with preemption.deferred():  # A notice in the last step waits for the parameters.
                params = train(
                    out,
                    name,
                    model.config,
                    model.params,
                    sequences,
                    config,
                    self.config.seed,
                    model.tokenizer.pad_id,
                    self.mesh,
                    self.config.tensorboard,
                    self.config.logits.weight,
                )
                with timing.span("checkpoint"):
                    save_params(out / "params", params)
        if hosts.is_first():
            shutil.rmtree(out / STATE, ignore_errors=True)

    def rows(self, file: str) -> list[dict[str, Any]]:
        """Returns the rows of a finished stage's JSONL file."""
        return read_rows(self.workdir / file)

    def describe(self, key: str) -> Any:
        """Returns the config under `key`, with the size or hash of the files it names.

        `task` is what the data say of the task; None where they say nothing.
        """
        if key == "task":
            said = task.read(self.config.data)
            return dataclasses.asdict(said) if said.is_said else None
        value = functools.reduce(getattr, key.split("."), self.config)
        if isinstance(value, DataConfig):
            # What uses the labels of the pool reads "data.labelled", what a model is told "task".
            values = config_io.to_json(value)
            for name in ("labelled", "instruction", "label_descriptions", "task_file"):
                del values[name]
            return values | _content(value.path)
        if isinstance(value, InstructConfig):
            values = config_io.to_json(value)
            if value.source == "generated":
                return {name: values[name] for name in ("examples", "train")}
            return values | _content(value.path)
        if isinstance(value, TeacherConfig):
            # How it is asked changes nothing of what it says.
            values = {k: v for k, v in config_io.to_json(value).items() if k not in _SPEED}
            # Where the SDK asks another server than the config names.
            values["base_url"] = value.base_url or server_of(value)
            if value.replay_from:
                content = replay.digest(Path(value.replay_from))
                values |= {"replay_from": "", "content": content}
            return values
        if isinstance(value, RationalesConfig):
            # What is made by an assistant that is shown gold answers reads "shows_gold".
            return {k: v for k, v in config_io.to_json(value).items() if k != "show_gold"}
        if isinstance(value, ModelConfig):
            return config_io.to_json(value) | {"files": _sizes(locate(value.checkpoint))}
        return config_io.to_json(value) if dataclasses.is_dataclass(value) else value

    def check_inputs(self) -> None:
        """Finds before anything is trained or paid what would stop the run later.

        Raises:
          UserError: the budget exceeds the pool, a prompt exceeds max_prompt_tokens or, with what
            is written after it, the model's context, a chat template does not write what it is
            given, a token has no row in the embedding table, the warm-up's domains are not in the
            pool, its instructions are too few or too long, a checkpoint is missing or lacks a layer
            to keep, or TensorBoard's writer or what scores free texts is not installed.
        """
        metrics.check(self.config.tensorboard)
        if any(example.kind == "text" for example in self.splits.test):
            rouge.check()
        pool, selected = self.splits.pool, self.config.selected
        noisy = noise_count(len(pool), self.config.selection)
        if selected > len(pool) - noisy:
            less = f" less {noisy} set aside by selection.noise_fraction" if noisy else ""
            size = self.config.selection.size
            name = f"selection.size={size}" if size else f"budget.queries={selected}"
            raise UserError(
                f"{name} exceeds the pool of {len(pool):,} examples{less}; lower it or add data"
            )
        if self.config.needs_assistant:
            self.warmup_examples()
        for role in self.roles():
            context = checkpoint.read_config(getattr(self.config, role)).max_positions
            asked = [self.prompt(role, example, "reason") for example in (*pool, *self.splits.test)]
            if role == "assistant" and self.config.shows_gold:
                asked += [self.prompt(role, example, "explain") for example in pool]
            for example in pool:  # An answer may have tokens that the prompt lacks.
                answer = self.tokenizer(role).encode(example.answer or "")
                self._check_ids(role, f"example {example.id!r}", answer)
            longest = max(map(len, asked))
            check_context(longest, self.config.generation.max_new_tokens, context)
        self.instructions(self.config.instruct.examples)


def _content(path: str) -> dict[str, str]:
    """Returns what stands for a file: where it lies does not matter, what is in it does."""
    found = sources.content(path)
    return {"path": "", "content": found} if found else {}


def _size_of(params: Any) -> dict[str, int]:
    leaves = jax.tree.leaves(params)
    return {
        "parameters": sum(leaf.size for leaf in leaves),
        "bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
    }


def _sizes(path: Path) -> dict[str, int]:
    files = [path] if path.is_file() else sorted(path.glob("*"))
    return {f.name: f.stat().st_size for f in files if f.is_file()}
