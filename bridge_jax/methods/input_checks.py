"""Checks the data, models and hosts of a run before anything is trained or paid for."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence

from bridge_jax.config import (
    API_TEACHERS,
    ModelConfig,
    RunConfig,
)
from bridge_jax.data import mathematics
from bridge_jax.data.answers import load_tensorflow_text
from bridge_jax.errors import UserError
from bridge_jax.generation.engine import check_context
from bridge_jax.methods import (
    annotation_stages,
    apprenticeship,
    held_out,
)
from bridge_jax.methods.checks import meshes_of, roles, trainings
from bridge_jax.methods.fitting import TrainSpec
from bridge_jax.methods.inputs import DEV, INSTRUCTIONS, POOL, TEST, Examples, Inputs
from bridge_jax.methods.teacher import (
    Asking,
    CountTokens,
    make_request,
    make_teacher,
    rules_of,
    selected_count,
)
from bridge_jax.models.hub.checkpoint import planned_config
from bridge_jax.models.layouts import Meshes, state_bytes
from bridge_jax.parallel import chips, hosts
from bridge_jax.parallel.chips import GIB
from bridge_jax.parallel.sharding import batch_devices
from bridge_jax.pipeline.artifacts import Role
from bridge_jax.pipeline.stages import Stage
from bridge_jax.selection.strategies import noise_count
from bridge_jax.teachers.protocol import TeacherError
from bridge_jax.teachers.replies import annotation
from bridge_jax.text.prompts import Mode
from bridge_jax.text.rendering import Rendering
from bridge_jax.training import recorder


def notes_on(
    config: RunConfig, stages: Sequence[Stage], meshes: Mapping[Role, Meshes]
) -> Iterator[str]:
    """Yields the notes on each role's meshes, and a note on batches that need empty rows."""
    rows = config.generation.batch_size
    sizes = {}
    for role, (training, generation, notes) in meshes.items():
        if notes:
            yield f"{role}: {'; '.join(notes)}"
        if rows % batch_devices(generation):
            sizes["generation.batch_size"] = rows, batch_devices(generation)
        for stage, spec in trainings(stages):
            if stage.artifact.role == role:
                step = batch_devices(training) * spec.train.accumulate
                sizes[f"{spec.setting}.batch_rows"] = spec.train.batch_rows, step
    uneven = [
        f"{n}={rows} to a multiple of {step}" for n, (rows, step) in sizes.items() if rows % step
    ]
    if uneven:
        yield (
            "these batches do not divide evenly among the devices and are padded with empty rows: "
            f"{', '.join(uneven)}; use larger batches or fewer devices"
        )


def check_meshes(config: RunConfig, stages: Sequence[Stage], inputs: Inputs) -> None:
    """Checks that the model of each trained role fits its training mesh; nothing is loaded.

    Raises:
      UserError: the parameters and optimizer moments of a model do not fit a device.
    """
    memory = chips.memory(inputs.devices[0])
    trained = {stage.artifact.role for stage, _ in trainings(stages)}
    for role, (mesh, _, _) in meshes_of(stages, inputs).items():
        selected: ModelConfig = getattr(config, role)
        model = planned_config(selected, mesh.devices.flat[0])
        needed = state_bytes(model, mesh)
        if role in trained and needed > memory:
            axes = " ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
            adapter = "" if selected.lora.rank else f", or train an adapter ({role}.lora.rank)"
            raise UserError(
                f"{role}: its parameters and moments take {needed / GIB:.1f} GiB per device "
                f"on the mesh {axes}, but a device has {memory / GIB:.1f}; shard over more devices "
                f"(mesh.fsdp, mesh.tensor), add devices{adapter}"
            )


def check_inputs(config: RunConfig, stages: Sequence[Stage], inputs: Inputs) -> None:
    """Checks data and models before anything is trained or paid for.

    Raises:
      UserError: more examples would be selected than the pool has; a question of test or dev has
        no gold answer to measure with, or there is no dev split to measure on; a prompt exceeds
        max_prompt_tokens or, with its completion, the model's context; a chat template alters a
        message; a token has no row in the embedding table; the pool has too few examples with
        gold answers in the warm-up's domains; there are too few instructions, or one is too long; a
        question with its gold answer does not fit a row; no recorded rationale would be kept; a
        checkpoint is missing or lacks a layer to keep; a library for `curves`, ROUGE or
        mathematics is not installed; or a stage's own check fails.
    """
    by_name = {stage.name: stage for stage in stages}
    read = {name for stage in stages for name in stage.reads.values()}
    recorder.check(config.curves)
    if config.data.kind == "math":
        mathematics.check_installed()
    pool, test = inputs.pool, inputs.test
    if any(example.kind == "text" for example in test):
        load_tensorflow_text()
    if TEST in read:
        held_out.check_gold(config, test)
    for stage, spec in trainings(stages):
        if "dev" in stage.reads and not inputs.dev:
            raise UserError(
                f"{spec.setting}.dev_every={spec.train.dev_every}: the data has no dev split; add "
                "one (data.dev, data.splits), or set it to 0"
            )
        if "dev" in stage.reads:
            _check_gold_of_dev(spec, inputs.dev)
        role, workload = stage.artifact.role, stage.workload
        if role and workload and (workload.of, workload.text) == ("pool", "answer"):
            _check_row(spec, inputs.rendering(role), pool)
    if annotation_stages(stages):
        _check_size(config, len(pool))
    if warmup := by_name.get(apprenticeship.WARMUP.name):
        params = warmup.params
        apprenticeship.drawn(pool, params.fraction, params.domains, config.seed)
    for role in roles(stages):
        modes = _modes(stages, role) if POOL in read else []
        _check_prompts(config, role, modes, inputs, inputs.dev if DEV in read else None)
    if INSTRUCTIONS in read:
        _ = inputs.instructions
    asks = annotation_stages(stages)
    if asks and config.teacher.kind not in API_TEACHERS and not config.teacher.replay_from:
        _check_recorded(asks[-1].params, pool, inputs.count, config.data.labelled)
    for stage in stages:
        if stage.check:
            stage.check(config, inputs)


def _check_gold_of_dev(spec: TrainSpec, dev: Examples) -> None:
    """Raises a `UserError` if a training would be measured on questions without a gold answer."""
    if bare := sum(example.answer is None for example in dev):
        raise UserError(
            f"{spec.setting}.dev_every={spec.train.dev_every}: {bare:,} of {len(dev):,} dev "
            "questions have no answer to measure with; give them answers, or set it to 0"
        )


def _check_row(spec: TrainSpec, reading: Rendering, pool: Examples) -> None:
    """Raises a `UserError` if a question and its gold answer together are longer than a row."""
    found = reading.labelled(pool, pool.digest)
    lengths = found.prompts.lengths + found.answers.lengths
    longest = int(lengths.argmax())
    if lengths[longest] > spec.train.row_tokens:
        raise UserError(
            f"{spec.setting}.row_tokens={spec.train.row_tokens}: example {pool[longest].id!r} has "
            f"{lengths[longest]} tokens with its answer; raise it, or truncate long questions "
            "(on_long_prompt, max_prompt_tokens)"
        )


def _check_size(config: RunConfig, pool: int) -> None:
    selected, noisy = selected_count(config), noise_count(pool, config.selection)
    if selected > pool - noisy:
        less = f" less {noisy} set aside by selection.noise_fraction" if noisy else ""
        size = config.selection.size
        name = f"selection.size={size}" if size else f"budget.queries={selected}"
        raise UserError(f"{name} exceeds the pool of {pool:,} examples{less}; lower it or add data")


def _check_recorded(params: Asking, pool: Examples, count: CountTokens, labelled: bool) -> None:
    """Checks that the pool has a recorded rationale that the student would learn from.

    Raises:
      UserError: the pool has none.
    """
    name, kind = params.variant, params.teacher.kind
    recorded = [example for example in pool if name in example.rationales]
    if not recorded:
        others = sorted({other for example in pool for other in example.rationales})
        hint = f"set data.rationale to {' or '.join(others)}" if others else "add a column"
        raise UserError(
            f"teacher.kind={kind}: no example in the pool has a recorded rationale {name!r}; "
            f"{hint}, or ask a teacher"
        )
    teacher, rules = make_teacher(params, pool, count), rules_of(params.teacher, count)
    first, has_answer = "", False
    with asyncio.Runner() as loop:
        for example in recorded:
            try:
                reply = loop.run(teacher.ask(make_request(params, example)))
                row = annotation(example, [reply] * rules.samples, rules)
            except TeacherError as error:
                row = {"kept": False, "answer": "", "reason": str(error)}
            if row["kept"] and (labelled or row["answer"] is not None):
                return
            first = first or f"example {example.id!r}: {row['reason'] or 'no answer that parses'}"
            has_answer = has_answer or row["answer"] is not None
    hint = "fix the data, or relax the settings of `teacher` that reject them"
    if not has_answer:
        hint = (
            "if a column of the file has the teacher's answers, name it with "
            "--config.data.columns=teacher_answer:COLUMN"
        )
        if labelled and not params.teacher.keep_wrong:
            hint += "; or train on them with the gold answers (--config.teacher.keep_wrong=true)"
    raise UserError(
        f"teacher.kind={kind}: none of the {len(recorded):,} recorded rationales {name!r} of the "
        f"pool would be kept ({first}); {hint}"
    )


def _modes(stages: Sequence[Stage], role: Role) -> list[Mode]:
    """Returns `reason`, and `explain` if a role's model is prompted to explain."""
    loads = [stage.workload for stage in stages if stage.artifact.role == role and stage.workload]
    found = {mode for workload in loads if workload.of != "test" for mode in workload.modes}
    wanted: tuple[Mode, ...] = ("reason", "explain")
    return [mode for mode in wanted if mode in found or mode == "reason"]


def _check_prompts(
    config: RunConfig, role: Role, modes: list[Mode], inputs: Inputs, dev: Examples | None
) -> None:
    reading, model = inputs.rendering(role), inputs.model(role)
    pool, test = inputs.pool, inputs.test
    found = [reading.prompts(pool, pool.digest, mode) for mode in modes]
    found.append(reading.prompts(test, test.digest, "reason"))
    if dev is not None:
        found.append(reading.prompts(dev, dev.digest, "reason"))
    if modes:
        reading.answers(pool, pool.digest)  # Checks the tokens that occur only in answers.
    longest = max(int(part.lengths.max(initial=0)) for part in found)
    check_context(longest, config.generation.max_new_tokens, model.config.max_positions)


def compare_hosts(stages: Sequence[Stage], inputs: Inputs, deep: Mapping[str, str]) -> None:
    """Checks that all hosts would run the same stages, before anything is trained or paid for.

    Raises:
      UserError: a file differs between hosts, or, if all files agree, the key of a stage does. The
        message names the host, and the file or stage.
    """
    everyone = hosts.all_gather(dict(deep))
    if all(keys == everyone[0] for keys in everyone):
        return
    read = {name for stage in stages for name in (*stage.reads.values(), *stage.keyed_by)}
    files: dict[str, str] = {}
    listed = set()  # Several inputs may read the same file.
    for name in sorted(read & inputs.table.keys()):
        for path, digest in inputs.table[name].files().items():
            if (path, digest) not in listed:
                files[f"{path} ({name})"] = digest
            listed.add((path, digest))
    first, *others = hosts.all_gather(files)
    for number, theirs in enumerate(others, 1):
        if differ := sorted(path for path in first | theirs if first.get(path) != theirs.get(path)):
            more = f" and {len(differ) - 1} more" if len(differ) > 1 else ""
            raise UserError(
                f"host {number} and host 0 have different versions of {differ[0]}{more}; give all "
                "hosts the same files"
            )
    number = next(n for n, keys in enumerate(everyone) if keys != everyone[0])
    stage = next(name for name in deep if everyone[number].get(name) != everyone[0][name])
    raise UserError(
        f"host {number} would run a different {stage} than host 0; start all hosts with the same "
        "config, flags and version of the program"
    )
