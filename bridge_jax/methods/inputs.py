"""What a run reads from outside: data, models by role, rendering, the mesh. Each is opened once.

Stages are not given this object but the single things that they name (`methods.names`).
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge_jax import config_io
from bridge_jax.config import DataConfig, InstructConfig, ModelConfig, RunConfig
from bridge_jax.errors import UserError
from bridge_jax.methods import names
from bridge_jax.models.files import locate
from bridge_jax.parallel.sharding import make_mesh
from bridge_jax.pipeline import keys
from bridge_jax.pipeline.artifacts import Role
from bridge_jax.pipeline.content import Hashes, of_value
from bridge_jax.pipeline.examples import Examples
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.pipeline.stages import Input
from bridge_jax.tasks import cached, instructions, task
from bridge_jax.tasks.example import Splits
from bridge_jax.tasks.practice.instructions import generate_instructions
from bridge_jax.teachers import replay
from bridge_jax.text.instructions import Drawn, draw
from bridge_jax.text.rendering import Rendering

CACHE = "cache"  # The folder of a workdir, or of a study, for what can be made again.
_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth")
_OF_MODELS = (".json", ".safetensors", ".model", ".jinja", ".txt", ".gguf")


class Inputs:
    """The inputs of a run, by name in `table`.

    Args:
      config: of the run.
      workdir: of the run.
      cache: where what was read and rendered is kept; None keeps nothing.
      hashes: of files.
      devices: of the mesh, by default all.

    Attributes:
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
        config = dataclasses.replace(config, data=task.with_text(config.data))
        self._config, self._hashes, self._cache = config, hashes, cache
        self.mesh = make_mesh(config.mesh, devices)
        mine = self.table = {
            names.MESH: Input(lambda: self.mesh),
            names.WORKDIR: Input(lambda: workdir),
            names.POOL: Input(lambda: self.pool, lambda: self.digests["pool"], self._data_files),
            names.TEST: Input(lambda: self.test, lambda: self.digests["test"], self._data_files),
            # What is recorded lies in the examples themselves.
            names.RECORDED: Input(str, lambda: self.digests["pool_recorded"], self._data_files),
            names.REPLAY: Input(str, self._replayed),
            names.COUNT: Input(lambda: self.count, lambda: self._tokenizer_key("student")),
            names.INSTRUCTIONS: Input(
                lambda: self.instructions, self._instructions_key, self._instructions_files
            ),
        }
        roles: tuple[tuple[Role, str, str], ...] = (
            ("assistant", names.ASSISTANT, names.TO_ASSISTANT),
            ("student", names.STUDENT, names.TO_STUDENT),
        )
        for role, model, reading in roles:
            files = functools.partial(self._model_files, role)
            mine[model] = Input(
                functools.partial(self.model, role), functools.partial(self._model_key, role), files
            )
            mine[reading] = Input(
                functools.partial(self.rendering, role),
                functools.partial(self._rendering_key, role),
                files,
            )

    @functools.cached_property
    def splits(self) -> Splits:
        """The examples."""
        data = json.dumps(config_io.to_json(self._config.data))
        folder = self._cache and self._cache / "data"
        return _load(data, self._config.seed, folder, self._data_content)

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """What the splits are known by."""
        return cached.digests(self.splits)

    @functools.cached_property
    def pool(self) -> Examples:
        """The training examples."""
        return Examples(self.splits.pool, self.digests["pool"])

    @functools.cached_property
    def test(self) -> Examples:
        """The test examples."""
        return Examples(self.splits.test, self.digests["test"])

    @functools.cache  # noqa: B019 - it lives as long as its run
    def model(self, role: Role) -> RoleModel:
        """Returns the model of a role."""
        return RoleModel(role, self._selected(role), self.mesh, self._config.seed)

    @functools.cache  # noqa: B019 - it lives as long as its run
    def rendering(self, role: Role) -> Rendering:
        """Returns what renders examples for a role."""
        model, config = self.model(role), self._config
        return Rendering(
            model.tokenizer,
            table_rows=model.config.vocab_size,
            checkpoint=model.selected.checkpoint,
            max_prompt_tokens=config.max_prompt_tokens,
            on_long_prompt=config.on_long_prompt,
            folder=self._cache and self._cache / "prompts",
            key=self._rendering_key(role),
        )

    def count(self, text: str) -> int:
        """Returns how many tokens of the student a text has."""
        return len(self.model("student").tokenizer.encode(text))

    @functools.cached_property
    def instructions(self) -> Drawn:
        """The sequences of the student's instruction warm-up."""
        return self.draw_instructions(self._config.instruct.examples)

    def draw_instructions(self, count: int) -> Drawn:
        """Returns the first `count` sequences of the student's instruction warm-up.

        Raises:
          UserError: they cannot be read, there are fewer, or a generated one is longer than a row.
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
            return Drawn(drawn)
        if not count:
            return Drawn([])
        source = instructions.read(config, seed)
        longest = min(longest, self.model("student").config.max_positions)
        drawn = draw(source.rows, self.model("student").tokenizer, count, longest)
        if len(drawn.sequences) < count:
            raise UserError(
                f"instruct.examples={count}: {config.path} has {len(drawn.sequences):,} "
                f"instructions of at most {longest} tokens ({drawn.left_out:,} are longer); set "
                f"instruct.examples={len(drawn.sequences)} or less, add data, or make longer ones "
                "fit with instruct.train.row_tokens"
            )
        for sequence in drawn.sequences:
            ids = [*sequence.prompt, *sequence.rationale, *sequence.answer]
            reading.renderer.check_ids(f"an instruction of {config.path}", ids)
        return drawn._replace(skipped=len(source.bad.rows))

    def _selected(self, role: Role) -> ModelConfig:
        return getattr(self._config, role)

    # What each is known by.

    @functools.cached_property
    def _data_content(self) -> str:
        """The content of the file or folder behind the data; "" where there is none here."""
        found, folder = self._data_files(), Path(self._config.data.path)
        named = {str(Path(path).relative_to(folder)): digest for path, digest in found.items()}
        return of_value(named) if found else ""

    def _data_files(self) -> dict[str, str]:
        data = self._config.data
        return {} if data.source == "practice" else _files(data.path, self._hashes)

    def _replayed(self) -> str:
        return replay.digest(Path(self._config.teacher.replay_from))

    def _model_files(self, role: Role) -> dict[str, str]:
        path = locate(self._selected(role).checkpoint)
        return _files(str(path), self._hashes, _OF_MODELS)

    def _content(self, role: Role, keep: Callable[[str], bool] = bool) -> list[Any]:
        """Returns what a role's checkpoint is known by: a commit of the hub, or its files."""
        path = locate(self._selected(role).checkpoint)
        if path.parent.name == "snapshots":  # The hub's cache: the folder is named by the commit.
            return [path.parent.parent.name, path.name]
        if path.is_file():
            return [self._hashes.of_file(path)]
        inside = sorted(each for each in path.iterdir() if each.suffix in _OF_MODELS)
        return [[each.name, self._hashes.of_file(each)] for each in inside if keep(each.name)]

    @functools.cache  # noqa: B019 - it lives as long as its run
    def _model_key(self, role: Role) -> str:
        return of_value([keys.plain(self._selected(role)), self._content(role)])

    @functools.cache  # noqa: B019 - it lives as long as its run
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
            content = sorted(self._instructions_files().values()) or config.path
            drawn += [content, keys.plain(_columns(config))]
        return of_value([*drawn, self._rendering_key("student")])

    def _instructions_files(self) -> dict[str, str]:
        config = self._config.instruct
        return {} if config.source == "generated" else _files(config.path, self._hashes)


@functools.lru_cache(maxsize=8)  # The runs of a study read the same data.
def _load(data: str, seed: int, folder: Path | None, content: str) -> Splits:
    return cached.load(config_io.from_json(DataConfig, json.loads(data)), seed, folder, content)


def _columns(config: InstructConfig) -> list[Any]:
    return [dict(config.columns), config.on_bad_row]


def _files(path: str, hashes: Hashes, endings: tuple[str, ...] = ()) -> dict[str, str]:
    """Returns the SHA-256 of a file, or of the files in a folder, by path; {} if there is none."""
    place = Path(path)
    if not path or not place.exists():
        return {}
    inside = [place] if place.is_file() else sorted(place.rglob("*"))
    return {
        str(each): hashes.of_file(each)
        for each in inside
        if each.is_file() and (not endings or each.suffix in endings)
    }
