"""Opens the external inputs of a run: data, models, tokenizers and the mesh.

Data, models and renderings are opened once and kept. The `run` function of a stage receives only
the inputs that the stage names, not the whole object.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import jax

from bridge_jax.config import DataConfig, MeshConfig, RunConfig
from bridge_jax.config import io as config_io
from bridge_jax.data import sources
from bridge_jax.data.example import Example, Splits, with_task_text
from bridge_jax.data.practice.instructions import generate_instructions
from bridge_jax.data.sources import Instructions, read_instructions
from bridge_jax.errors import UserError
from bridge_jax.models.hub.checkpoint import planned_config
from bridge_jax.models.hub.files import locate
from bridge_jax.models.layouts import Meshes, Use, choose
from bridge_jax.parallel.sharding import axis_sizes, make_mesh
from bridge_jax.pipeline.artifacts import ROLES, Role
from bridge_jax.pipeline.content import Hashes, of_value
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.pipeline.stages import Input, keyed_values
from bridge_jax.teachers import recorded
from bridge_jax.text.prompts import DrawnInstructions, draw_instructions
from bridge_jax.text.rendering import Rendering

CACHE = "cache"  # Folder in a workdir or a study for files that can be recomputed.

# The names of the inputs.
POOL, DEV, TEST = "data/pool", "data/dev", "data/test"
RECORDED = "data/recorded"  # Answers of a recorded or programmatic teacher to the pool's questions.
DEV_RECORDED, TEST_RECORDED = "data/dev_recorded", "data/test_recorded"  # Likewise for dev, test.
REPLAY = "teacher/replay"  # A recorded run whose replies stand in for the teacher's.
INSTRUCTIONS = "data/instructions"
ASSISTANT, STUDENT = "models/assistant", "models/student"
TO_ASSISTANT, TO_STUDENT = "rendering/assistant", "rendering/student"  # Render examples for a role.
MESH = "mesh"
WORKDIR = "workdir"  # Its ledger pays the teacher.
COUNT = "tokenizers/student"  # Counts the tokens of a text with the student's tokenizer.
# Methods that train a model on replies that it generates between training steps.
_WRITE_IN_TRAINING = ("bard", "on_policy")
# The `reads` (argument -> input) of stages that run a model on examples of the pool.
POOL_TO_ASSISTANT = {"pool": POOL, "assistant": ASSISTANT, "reading": TO_ASSISTANT}
POOL_TO_STUDENT = {"pool": POOL, "student": STUDENT, "reading": TO_STUDENT}

_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS = (".safetensors", ".gguf")
_OF_MODELS = (".json", ".safetensors", ".model", ".jinja", ".gguf", "merges.txt", "vocab.txt")


class Examples(tuple[Example, ...]):
    """The examples of one split, in order.

    Attributes:
      digest: the SHA-256 of the fields that models read.
      by_id: the examples by id.
    """

    digest: str
    by_id: dict[str, Example]

    def __new__(cls, rows: Iterable[Example], digest: str) -> "Examples":
        """Returns the rows as a tuple that has a digest and an index by id."""
        self = super().__new__(cls, rows)
        self.digest, self.by_id = digest, {example.id: example for example in self}
        return self


class Inputs:
    """The inputs of a run, by name in `table`.

    Args:
      cache: the folder where parsed data and rendered prompts are cached; None caches nothing on
        disk.
      hashes: computes the hashes of files.
      devices: the devices for the meshes; all by default.

    Attributes:
      devices: the devices for the meshes.
      table: name -> input.
    """

    def __init__(
        self,
        config: RunConfig,
        workdir: Path,
        cache: Path | None,
        hashes: Hashes,
        devices: Any = None,
    ):
        config = dataclasses.replace(config, data=with_task_text(config.data))
        self._config, self._hashes, self._cache = config, hashes, cache
        self.devices = list(jax.devices() if devices is None else devices)
        axis_sizes(config.mesh, len(self.devices))  # Reports wrong mesh sizes first.
        self._meshes: dict[Role, Meshes] = {}
        self._models: dict[Role, RoleModel] = {}
        self._renderings: dict[Role, Rendering] = {}
        self.table = {
            # The selection splits the pool over all devices.
            MESH: Input(lambda: make_mesh(MeshConfig(data=-1, fsdp=1), self.devices)),
            WORKDIR: Input(lambda: workdir),
            POOL: Input(lambda: self.pool, lambda: self.digests["pool"], self._data_files),
            DEV: Input(lambda: self.dev, lambda: self.digests["dev"], self._data_files),
            TEST: Input(lambda: self.test, lambda: self.digests["test"], self._data_files),
            # These only enter keys: the examples themselves hold the recorded answers.
            RECORDED: Input(str, lambda: self.digests["pool_recorded"], self._data_files),
            DEV_RECORDED: Input(str, lambda: self.digests["dev_recorded"], self._data_files),
            TEST_RECORDED: Input(str, lambda: self.digests["test_recorded"], self._data_files),
            REPLAY: Input(str, lambda: self._replayed, self._replay_files),
            COUNT: Input(lambda: self.count, lambda: self._tokenizer_key("student")),
            INSTRUCTIONS: Input(
                lambda: self.instructions, self._instructions_key, self._instructions_files
            ),
        }
        for role in ROLES:
            model, model_key = partial(self.model, role), partial(self._model_key, role)
            reading, reading_key = partial(self.rendering, role), partial(self._rendering_key, role)
            files = partial(self._model_files, role)
            self.table[f"models/{role}"] = Input(model, model_key, files)
            self.table[f"rendering/{role}"] = Input(reading, reading_key, files)

    @functools.cached_property
    def splits(self) -> Splits:
        """The examples of all splits."""
        data = json.dumps(config_io.to_json(self._config.data))
        folder = self._cache and self._cache / "data"
        return _load(data, self._config.seed, folder, self._data_content)

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of each split (`data.sources.digests`)."""
        return sources.digests(self.splits)

    @functools.cached_property
    def pool(self) -> Examples:
        """The training examples."""
        return Examples(self.splits.pool, self.digests["pool"])

    @functools.cached_property
    def dev(self) -> Examples:
        """The dev examples, on which choices such as a threshold are made."""
        return Examples(self.splits.dev, self.digests["dev"])

    @functools.cached_property
    def test(self) -> Examples:
        """The test examples."""
        return Examples(self.splits.test, self.digests["test"])

    def model(self, role: Role) -> RoleModel:
        """Returns the model of a role, not yet loaded."""
        if role not in self._models:
            selected, meshes = getattr(self._config, role), self.meshes(role)
            seed = self._config.seed
            self._models[role] = RoleModel(selected, meshes.training, seed, meshes.generation)
        return self._models[role]

    def meshes(self, role: Role) -> Meshes:
        """Returns the meshes of a role's model, without opening its weights."""
        if role not in self._meshes:
            config = self._config
            model = planned_config(getattr(config, role), self.devices[0])
            trainings = config.trainings().values()
            measured = any(
                train.dev_every and train.dev_metric == "accuracy" for train in trainings
            )
            use = Use(
                config.generation.batch_size,
                config.max_prompt_tokens + config.generation.max_new_tokens,
                measured or config.method in _WRITE_IN_TRAINING,
            )
            self._meshes[role] = choose(model, config.mesh, self.devices, use)
        return self._meshes[role]

    def rendering(self, role: Role) -> Rendering:
        """Returns the `Rendering` that turns examples into token ids for a role's model."""
        if role not in self._renderings:
            model, config = self.model(role), self._config
            self._renderings[role] = Rendering(
                model.tokenizer,
                table_rows=model.config.vocab_size,
                checkpoint=model.selected.checkpoint,
                max_prompt_tokens=config.max_prompt_tokens,
                on_long_prompt=config.on_long_prompt,
                folder=self._cache and self._cache / "prompts",
                key=self._rendering_key(role),
            )
        return self._renderings[role]

    def count(self, text: str) -> int:
        """Returns the number of tokens that the student's tokenizer makes of a text."""
        return len(self.model("student").tokenizer.encode(text))

    @functools.cached_property
    def instructions(self) -> DrawnInstructions:
        """The sequences of the student's instruction warm-up."""
        return self.draw_instructions(self._config.instruct.examples)

    def draw_instructions(self, count: int) -> DrawnInstructions:
        """Returns the first `count` sequences of the student's instruction warm-up.

        Raises:
          UserError: they cannot be read, there are too few, a generated one is longer than a row,
            or a token has no row in the embedding table.
        """
        config, seed = self._config.instruct, self._config.seed
        reading, longest = self.rendering("student"), config.train.row_tokens
        if config.source == "generated":
            examples = generate_instructions(seed, count)
            drawn = [reading.sequence(e, e.rationales.get("medium")) for e in examples]
            needed = max((sequence.length for sequence in drawn), default=0)
            if needed > longest:
                raise UserError(
                    f"instruct.train.row_tokens={longest}: the longest generated instruction has "
                    f"{needed} tokens; raise it"
                )
            return DrawnInstructions(drawn)
        if not count:
            return DrawnInstructions([])
        source = self._instruction_rows
        longest = min(longest, self.model("student").config.max_positions)
        drawn = draw_instructions(source.rows, self.model("student").tokenizer, count, longest)
        if len(drawn.sequences) < count:
            raise UserError(
                f"instruct.examples={count}: {config.path} has {len(drawn.sequences):,} "
                f"instructions of at most {longest} tokens ({drawn.left_out:,} are longer); set "
                f"instruct.examples={len(drawn.sequences)} or less, add data, or make longer ones "
                "fit with instruct.train.row_tokens"
            )
        for sequence in drawn.sequences:
            ids = [*sequence.prompt, *sequence.rationale, *sequence.answer]
            reading.check_ids(f"an instruction of {config.path}", ids)
        return drawn._replace(skipped=len(source.bad.rows))

    @functools.cached_property
    def _instruction_rows(self) -> Instructions:
        """The instructions of a file or a dataset, in random order."""
        return read_instructions(self._config.instruct, self._config.seed)

    # Content hashes of the inputs, for the keys of stages.

    @functools.cached_property
    def _data_content(self) -> str:
        """The hashes of the data's local files or folders; "" if any of the data is on the hub."""
        found = [self._hashes.of_place(Path(path)) for path in self._data_paths]
        return " ".join(found) if all(found) else ""

    @property
    def _data_paths(self) -> list[str]:
        data = self._config.data
        paths = [] if data.source == "practice" else [data.path, data.test_path]
        return [path for path in paths if path]

    def _data_files(self) -> dict[str, str]:
        names = ("", "test_path/")  # Both files may have the same name.
        return {
            f"{prefix}{name}": digest
            for prefix, path in zip(names, self._data_paths)
            for name, digest in _files(path, self._hashes).items()
        }

    @functools.cached_property
    def _replayed(self) -> str:
        return recorded.digest(Path(self._config.teacher.replay_from))

    def _replay_files(self) -> dict[str, str]:
        return {Path(self._config.teacher.replay_from).name: self._replayed}

    def _content(self, role: Role, keep: Callable[[str], bool] = bool) -> list[Any]:
        """Returns what identifies a role's checkpoint: its commit on the hub, or file hashes."""
        path = locate(getattr(self._config, role).checkpoint)
        repository, snapshots, name = ("", "", *path.parts)[-3:]
        is_of_hub = repository.startswith("models--") and snapshots == "snapshots"
        if is_of_hub and _COMMIT.fullmatch(name):  # The hub's cache names snapshots by commit.
            return [repository, name]
        if path.is_file():
            return [self._hashes.of_file(path)]
        found = self._hashes.of_files(path, _OF_MODELS)
        return [[name, digest] for name, digest in found.items() if keep(name)]

    def _model_files(self, role: Role) -> dict[str, str]:
        path = locate(getattr(self._config, role).checkpoint)
        return _files(str(path), self._hashes, _OF_MODELS)

    def _model_key(self, role: Role) -> str:
        return of_value([keyed_values(getattr(self._config, role)), self._content(role)])

    def _tokenizer_key(self, role: Role) -> str:
        return of_value(self._content(role, lambda name: not name.endswith(_WEIGHTS)))

    def _rendering_key(self, role: Role) -> str:
        config = self._config
        settings = [config.max_prompt_tokens, config.on_long_prompt]
        return of_value([self._tokenizer_key(role), *settings])

    def _instructions_key(self) -> str:
        config = self._config.instruct
        drawn = [config.source, config.examples, config.train.row_tokens, self._config.seed]
        if config.source != "generated":
            drawn.append([list(row) for row in self._instruction_rows.rows])
        return of_value([*drawn, self._rendering_key("student")])

    def _instructions_files(self) -> dict[str, str]:
        config = self._config.instruct
        return {} if config.source == "generated" else _files(config.path, self._hashes)


@functools.lru_cache(maxsize=8)  # The runs of a study read the same data.
def _load(data: str, seed: int, folder: Path | None, content: str) -> Splits:
    return sources.load_cached(
        config_io.from_json(DataConfig, json.loads(data)), seed, folder, content
    )


def _files(path: str, hashes: Hashes, endings: tuple[str, ...] = ("",)) -> dict[str, str]:
    """Returns the SHA-256 of a file, or of the files in a folder, by name; {} if there is none."""
    place = Path(path)
    if path and place.is_file():
        return {place.name: hashes.of_file(place)}
    found = hashes.of_files(place, endings) if path and place.is_dir() else {}
    return {f"{place.name}/{name}": digest for name, digest in found.items()}
