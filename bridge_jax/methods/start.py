"""Checks a run against its data and models before anything is trained or paid."""

from collections.abc import Mapping, Sequence

from bridge_jax.config import RunConfig
from bridge_jax.data import rouge
from bridge_jax.errors import UserError
from bridge_jax.generation.engine import check_context
from bridge_jax.methods import apprenticeship, asking, logits, names
from bridge_jax.methods.inputs import Inputs
from bridge_jax.methods.logits import LOGITS
from bridge_jax.methods.teacher import selected_count
from bridge_jax.parallel import hosts
from bridge_jax.pipeline.artifacts import ROLES, Role
from bridge_jax.pipeline.stages import Stage
from bridge_jax.selection.strategies import noise_count
from bridge_jax.text.prompts import Mode
from bridge_jax.training import metrics


def roles(stages: Sequence[Stage]) -> list[Role]:
    """Returns the roles that have a model in a run."""
    found = {stage.artifact.role for stage in stages}
    return [role for role in ROLES if role in found]


def check(config: RunConfig, stages: Sequence[Stage], inputs: Inputs) -> None:
    """Finds before anything is trained or paid what would stop the run later.

    Raises:
      UserError: the budget exceeds the pool, a prompt exceeds max_prompt_tokens or, with what
        is written after it, the model's context, a chat template does not write what it is
        given, a token has no row in the embedding table, the warm-up's domains are not in the
        pool, its instructions are too few or too long, a checkpoint is missing or lacks a layer
        to keep, or TensorBoard's writer or what scores free texts is not installed.
    """
    by_name = {stage.name: stage for stage in stages}
    read = {name for stage in stages for name in stage.reads.values()}
    metrics.check(config.tensorboard)
    pool, test = inputs.pool, inputs.test
    if any(example.kind == "text" for example in test):
        rouge.check()
    if asking(stages):
        _check_size(config, len(pool))
    if warmup := by_name.get(apprenticeship.WARMUP.name):
        params = warmup.params
        apprenticeship.drawn(pool, params.fraction, params.domains, config.seed)
    for role in roles(stages):
        modes = _modes(stages, role) if names.POOL in read else []
        _check_prompts(config, role, modes, inputs)
    if names.INSTRUCTIONS in read:
        _ = inputs.instructions
    if LOGITS.name in by_name:
        logits.check(
            config,
            pool,
            inputs.model("assistant"),
            inputs.model("student"),
            inputs.rendering("assistant"),
            inputs.rendering("student"),
        )


def _check_size(config: RunConfig, pool: int) -> None:
    selected, noisy = selected_count(config), noise_count(pool, config.selection)
    if selected > pool - noisy:
        less = f" less {noisy} set aside by selection.noise_fraction" if noisy else ""
        size = config.selection.size
        name = f"selection.size={size}" if size else f"budget.queries={selected}"
        raise UserError(f"{name} exceeds the pool of {pool:,} examples{less}; lower it or add data")


def _modes(stages: Sequence[Stage], role: Role) -> list[Mode]:
    """Returns the modes, other than `answer`, in which a role's model is asked about the pool."""
    loads = [stage.load for stage in stages if stage.artifact.role == role and stage.load]
    found = {mode for load in loads if load.of != "test" for mode in load.modes}
    wanted: tuple[Mode, ...] = ("reason", "explain")
    return [mode for mode in wanted if mode in found or mode == "reason"]


def _check_prompts(config: RunConfig, role: Role, modes: list[Mode], inputs: Inputs) -> None:
    reading, model = inputs.rendering(role), inputs.model(role)
    pool, test = inputs.pool, inputs.test
    found = [reading.prompts(pool, pool.digest, mode) for mode in modes]
    found.append(reading.prompts(test, test.digest, "reason"))
    if modes:
        reading.answers(pool, pool.digest)  # An answer may have tokens that the prompt lacks.
    longest = max(int(part.lengths.max(initial=0)) for part in found)
    check_context(longest, config.generation.max_new_tokens, model.config.max_positions)


def compare_hosts(stages: Sequence[Stage], inputs: Inputs, deep: Mapping[str, str]) -> None:
    """Finds hosts that would not run the same, before anything is trained or paid.

    Raises:
      UserError: a file differs, or else a stage's key; names the host and the file.
    """
    everyone = hosts.gather(dict(deep))
    if all(keys == everyone[0] for keys in everyone):
        return
    read = {name for stage in stages for name in (*stage.reads.values(), *stage.keyed_by)}
    files: dict[str, str] = {}
    listed = set()  # Several inputs may come from one file.
    for name in sorted(read & inputs.table.keys()):
        for path, digest in inputs.table[name].files().items():
            if (path, digest) not in listed:
                files[f"{path} ({name})"] = digest
            listed.add((path, digest))
    first, *others = hosts.gather(files)
    for number, theirs in enumerate(others, 1):
        if differ := sorted(path for path in first | theirs if first.get(path) != theirs.get(path)):
            more = f" and {len(differ) - 1} more" if len(differ) > 1 else ""
            raise UserError(
                f"host {number} has another {differ[0]}{more} than host 0; give all hosts the same "
                "files"
            )
    number = next(n for n, keys in enumerate(everyone) if keys != everyone[0])
    stage = next(name for name in deep if everyone[number].get(name) != everyone[0][name])
    raise UserError(
        f"host {number} would run another {stage} than host 0; start all hosts with the same "
        "config, flags and version of the program"
    )
