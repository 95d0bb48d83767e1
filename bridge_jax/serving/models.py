"""Finds the model that is to answer: an exported folder, a checkpoint, or a role of a run."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridge_jax import methods
from bridge_jax.config import MeshConfig, ModelConfig, RunConfig
from bridge_jax.config import io as config_io
from bridge_jax.errors import UserError
from bridge_jax.generation.budgets import Cap
from bridge_jax.models.hub.checkpoint import planned_config, read_config
from bridge_jax.models.hub.files import locate
from bridge_jax.models.layouts import Use, choose
from bridge_jax.parallel import chips
from bridge_jax.pipeline import storage
from bridge_jax.pipeline.artifacts import Role
from bridge_jax.pipeline.content import Hashes
from bridge_jax.pipeline.files import read_json
from bridge_jax.pipeline.models import Model, RoleModel
from bridge_jax.pipeline.storage import Folder
from bridge_jax.serving import asking as asked
from bridge_jax.serving.asking import AskingConfig, BudgetsConfig
from bridge_jax.text.thinking import TAGS, thinking_of
from bridge_jax.text.tokenizer import Tokenizer

_USUAL = 1024  # Tokens of a prompt, where nothing says how long they are; only the layout asks.


@dataclasses.dataclass(frozen=True)
class TrainedRole:
    """The model of a role as a run has trained and tested it.

    Attributes:
      made: the folder of the stage that trained it last.
      asking: how the run's tests ask it.
    """

    config: RunConfig
    made: Folder
    asking: AskingConfig


def trained(workdir: Path, role: Role) -> TrainedRole:
    """Returns the model of a role in a workdir; nothing is loaded.

    Raises:
      UserError: there is no run, its method has no such model, or it is not trained yet.
    """
    if not (workdir / "config.json").is_file():
        raise UserError(f"{workdir}: holds no run; pass the folder that launch.run wrote")
    config = config_io.read(RunConfig, workdir / "config.json")
    plan = {stage.name: stage for stage in methods.stages(config)}
    tests = (stage for stage in plan.values() if stage.artifact.work == "evaluate")
    test = next(
        (t for t in tests if t.artifact.measured and t.artifact.measured.name == role), None
    )
    if test is None:
        raise UserError(f"{workdir}: method={config.method} leaves no {role}")
    made = plan[test.reads["made"]]
    if not storage.finished(workdir, made.name):
        raise UserError(
            f"{workdir}: the stage {made.name} is not done with this run's config; finish the run"
        )
    asking = asked.of_run(config, role, test.params.mode)
    return TrainedRole(config, Folder(workdir / made.name, made.artifact), asking)


@dataclasses.dataclass(frozen=True)
class FoundModel:
    """A model that can answer, not yet loaded.

    Attributes:
      role: in its run; a checkpoint that comes from none is a student.
      selected: its checkpoint.
      made: the folder of the stage of a run that trained it; None for a checkpoint as it is.
      asking: how it is asked, as far as that is known.
      where: its name in messages.
    """

    role: Role
    selected: ModelConfig
    made: Folder | None
    asking: AskingConfig
    where: str

    def load(self, asking: AskingConfig, devices: Sequence[Any] | None = None) -> Model:
        """Returns the model on the devices, by default all.

        Args:
          asking: its `matmul` and `generation` decide dtypes and layout.
          devices: where it goes.
        """
        chips.keep_freed_memory()
        selected = dataclasses.replace(self.selected, matmul=asking.matmul)
        planned = planned_config(selected, devices[0] if devices else None)
        longest = (asking.max_prompt_tokens or _USUAL) + asking.generation.max_new_tokens
        use = Use(asking.generation.batch_size, min(longest, planned.max_positions))
        meshes = choose(planned, MeshConfig(), devices, use)
        loader = RoleModel(self.role, selected, meshes.training, asking.seed, meshes.generation)
        return loader.load(self.made)

    def identity(self, hashes: Hashes) -> dict[str, str]:
        """Returns what tells this model from others: hashes of what it was made from."""
        if self.made is not None:
            made = storage.manifest(self.made.path)
            assert made, "a finished stage has a manifest"
            return {"stage": self.made.artifact.name, "key": made["key"], "of": made["content"]}
        return {"of": hashes.of_place(Path(self.selected.checkpoint))}


def find(place: str, role: Role | None = None) -> FoundModel:
    """Returns the model that a flag names.

    Args:
      place: an exported folder, a run's workdir, or a checkpoint as in `ModelConfig`.
      role: of the run; by default its student.

    Raises:
      UserError: there is no such model, it is not trained yet, or a role is named of what is no
        workdir.
    """
    path = Path(place)
    config = read_json(path / "config.json") or {}
    if "assistant" in config and "student" in config:
        role = role or "student"
        of_run = trained(path, role)
        selected: ModelConfig = getattr(of_run.config, role)
        return FoundModel(role, selected, of_run.made, of_run.asking, f"the {role} of {place}")
    if role:
        raise UserError(f"--role={role}: {place} is no workdir of a run; leave the flag out")
    located = locate(place)
    selected = ModelConfig(str(located))
    read_config(selected)  # Its faults are told before those of settings.
    return FoundModel("student", selected, None, asked.read(located), place)


def cap(tokenizer: Tokenizer, budgets: BudgetsConfig, budget: int, where: str) -> tuple[Cap, str]:
    """Returns where thinking is cut off at a budget, and a note for the user, or "".

    Args:
      budgets: what the model was trained at.
      budget: tokens of thinking.
      where: the model's name in messages.
    """
    form, note = budgets.form, ""
    if not budgets.levels:
        note = "this model was not trained at budgets: it is told this one, and cut off at it"
        form = "plain" if None in map(tokenizer.marker, TAGS) else "tags"
    thinking = thinking_of(tokenizer, form, where)
    closing = tokenizer.encode(budgets.closing)
    return Cap(budget, thinking, budgets.answer_tokens, closing), note
