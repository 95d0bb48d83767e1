"""Checks a run before anything is trained or paid: its config, its data and models, its hosts."""

import asyncio
import dataclasses
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bridge_jax.config import (
    API_TEACHERS,
    PROJECTIONS,
    LoraConfig,
    ModelConfig,
    RunConfig,
    TeacherConfig,
    TrainConfig,
    fields,
)
from bridge_jax.data import mathematics
from bridge_jax.data.answers import load_tensorflow_text
from bridge_jax.data.example import read_task
from bridge_jax.errors import UserError, require
from bridge_jax.generation.engine import check_context
from bridge_jax.methods import (
    apprenticeship,
    asking,
    held_out,
    named,
    paying,
    states_budgets,
)
from bridge_jax.methods.fitting import Fit
from bridge_jax.methods.inputs import DEV, INSTRUCTIONS, POOL, TEST, Examples, Inputs
from bridge_jax.methods.rationales import RATIONALES, THRESHOLD
from bridge_jax.methods.teacher import (
    Asking,
    CountTokens,
    held_out_count,
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
from bridge_jax.pipeline.artifacts import ROLES, Role
from bridge_jax.pipeline.stages import Stage
from bridge_jax.selection.strategies import noise_count
from bridge_jax.teachers.protocol import TeacherError
from bridge_jax.teachers.replies import annotation
from bridge_jax.text.prompts import Mode
from bridge_jax.text.rendering import Rendering
from bridge_jax.training import recorder


def fits(stages: Sequence[Stage]) -> Iterator[tuple[Stage, Fit]]:
    """Yields the stages that train, each with how it does."""
    for stage in stages:
        if stage.artifact.work == "train":
            yield stage, stage.params if isinstance(stage.params, Fit) else stage.params.how


def meshes_of(stages: Sequence[Stage], inputs: Inputs) -> dict[Role, Meshes]:
    """Returns the meshes of each role that has a model in a run."""
    return {role: inputs.meshes(role) for role in roles(stages)}


def notes_on(
    config: RunConfig, stages: Sequence[Stage], meshes: Mapping[Role, Meshes]
) -> Iterator[str]:
    """Yields notes on what of `config.mesh` a role cannot use, and on batches with empty rows."""
    rows = config.generation.batch_size
    sizes = {}
    for role, (training, generation, notes) in meshes.items():
        if notes:
            yield f"{role}: {'; '.join(notes)}"
        if rows % batch_devices(generation):
            sizes["generation.batch_size"] = rows, batch_devices(generation)
        for stage, fit in fits(stages):
            if stage.artifact.role == role:
                step = batch_devices(training) * fit.train.accumulate
                sizes[f"{fit.setting}.batch_rows"] = fit.train.batch_rows, step
    uneven = [
        f"{n}={rows} to a multiple of {step}" for n, (rows, step) in sizes.items() if rows % step
    ]
    if uneven:
        yield (
            "the devices do not divide these batches, which are filled up with empty rows: "
            f"{', '.join(uneven)}; larger batches or fewer devices would do the same for less"
        )


def check_meshes(config: RunConfig, stages: Sequence[Stage], inputs: Inputs) -> None:
    """Checks that each role's model fits its meshes; nothing is loaded.

    Raises:
      UserError: what a training keeps does not fit a device.
    """
    memory = chips.memory(inputs.devices[0])
    trained = {stage.artifact.role for stage, _ in fits(stages)}
    for role, (mesh, _, _) in meshes_of(stages, inputs).items():
        selected: ModelConfig = getattr(config, role)
        model = planned_config(selected, mesh.devices.flat[0])
        needed = state_bytes(model, mesh)
        if role in trained and needed > memory:
            axes = " ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
            adapter = "" if selected.lora.rank else f", or train an adapter ({role}.lora.rank)"
            raise UserError(
                f"{role}: its parameters and moments take {needed / GIB:.1f} GiB of each device "
                f"on the mesh {axes}, which has {memory / GIB:.1f}; cut them into more parts "
                f"(mesh.fsdp, mesh.tensor), take more devices{adapter}"
            )


def validate(config: RunConfig, has_data: bool = True) -> RunConfig:
    """Returns `config` after the checks that need no data; `has_data=False` if there is none.

    Raises:
      UserError: a field has a value that it does not take (`config.fields`), or two do not fit.
    """
    require(
        isinstance(config, RunConfig),
        f"the config is a {type(config).__name__}, not a RunConfig; get_config() has to return one",
    )
    fields.check(config)
    for fault in _faults_of_sources(config, has_data):
        raise UserError(fault)
    read_task(config.data)
    method = named(config.method)
    stages = method.stages(config)
    for fault in _faults_of_teacher(config, stages) if paying(stages) else ():
        raise UserError(fault)
    method.check(config)
    for fault in _faults_of_models(config, stages):
        raise UserError(fault)
    return config


def _faults_of_sources(config: RunConfig, has_data: bool) -> Iterator[str]:
    data, instruct = config.data, config.instruct
    if data.min_steps > data.max_steps:
        yield f"data.min_steps={data.min_steps} is above data.max_steps={data.max_steps}"
    if data.source != "practice" and not data.path and has_data:
        yield (
            f"data.path is empty, but data.source={data.source} reads from it: pass --data.path=..."
        )
    if data.source == "practice" and data.test_path:
        yield f"data.test_path={data.test_path}: data.source=practice reads no file"
    source = f"instruct.source={instruct.source}"
    if instruct.source == "generated":
        for name in ("path", "columns"):
            if value := getattr(instruct, name):
                yield f"instruct.{name}={value}: {source} reads no file; set it to that of the file"
    elif not instruct.path:
        yield f"instruct.path is empty, but {source} reads from it"
    elif instruct.source != "hf" and not Path(instruct.path).is_file():
        yield f"instruct.path={instruct.path}: no such file"


def _faults_of_teacher(config: RunConfig, stages: Sequence[Stage]) -> Iterator[str]:
    teacher, data, budget = config.teacher, config.data, config.budget
    is_api, replay = teacher.kind in API_TEACHERS, teacher.replay_from
    if budget.queries <= 0:
        yield f"budget.queries={budget.queries}: ask the teacher at least once"
    if budget.usd <= 0:
        yield f"budget.usd={budget.usd}: the cap must be above 0 US dollars"
    if replay and not Path(replay).is_file():
        yield f"teacher.replay_from={replay}: no such file; name a ledger or a JSONL file"
    if data.source == "practice" and teacher.kind == "replay" and not replay:
        yield (
            "teacher.kind=replay has nothing recorded for practice tasks: use teacher.kind=oracle, "
            "or name a ledger or a JSONL file with teacher.replay_from"
        )
    if data.source != "practice" and teacher.kind == "oracle":
        yield f"teacher.kind=oracle knows practice tasks only, not data.source={data.source}"
    low, high = teacher.min_rationale_tokens, teacher.max_rationale_tokens
    if high and low > high:
        yield f"teacher.min_rationale_tokens={low} is above teacher.max_rationale_tokens={high}"
    if teacher.min_agreement and teacher.samples == 1:
        yield f"teacher.min_agreement={teacher.min_agreement} needs teacher.samples above 1"
    selected = max(1, selected_count(config)) if asking(stages) else 0
    held_out_too = held_out_count(config)
    if selected * teacher.samples + held_out_too > budget.queries:
        settings = "evaluation.teacher_test, evaluation.teacher_dev"
        also = f" and {held_out_too} of test and dev ({settings})" if held_out_too else ""
        less = f"selection.size, {settings}" if held_out_too else "selection.size"
        yield (
            f"budget.queries={budget.queries} does not pay for {selected} examples at "
            f"teacher.samples={teacher.samples} requests each{also}; lower {less} or "
            "teacher.samples, or raise it"
        )
    if teacher.batch and not is_api:
        yield f"teacher.batch: teacher.kind={teacher.kind} has no batch mode"
    if teacher.batch and teacher.backend != "google-genai":
        yield f"teacher.backend={teacher.backend} has no batch mode: use google-genai"
    if is_api and not replay:
        yield from _faults_of_prices(teacher)
    several = teacher.samples > 1 or teacher.retries > 0
    if not is_api and several:
        yield (
            f"teacher.samples={teacher.samples}, teacher.retries={teacher.retries}: "
            f"teacher.kind={teacher.kind} always says the same"
        )
    if is_api and teacher.model in ("", "oracle"):
        yield f"teacher.model={teacher.model}: give the vendor's name of the model"
    if is_api and several and teacher.temperature == 0:
        yield "teacher.temperature=0 says the same in every sample and retry; raise it"


def _faults_of_prices(teacher: TeacherConfig) -> Iterator[str]:
    """Finds an API that would cost nothing by mistake: no cap in dollars would ever stop it."""
    prices = ["usd_per_million_input", "usd_per_million_output"]
    paid = [name for name in prices if getattr(teacher, name) > 0]
    unpaid = [name for name in prices if name not in paid]
    if teacher.batch and not teacher.batch_share:
        unpaid.append("batch_share")
    wrong = paid if teacher.free else unpaid
    values = ", ".join(f"teacher.{name}={getattr(teacher, name)}" for name in wrong)
    if wrong and teacher.free:
        yield f"teacher.free=true, but {values}; set the prices to 0, or free=false"
    elif wrong:
        yield (
            f"{values}: nothing would count towards budget.usd; write the vendor's price, or, for "
            "a server of your own that bills nobody, teacher.free=true and prices of 0"
        )


def _faults_of_models(config: RunConfig, stages: Sequence[Stage]) -> Iterator[str]:
    longest = config.max_prompt_tokens + config.generation.max_new_tokens
    for stage, fit in fits(stages):
        load, tokens = stage.load, fit.train.row_tokens
        is_short = not load or load.of == "instructions" or load.text == "answer"
        if not is_short and longest > tokens:  # Found here, not after the teacher has been paid.
            yield (
                f"{fit.setting}.row_tokens={tokens} is too short for a prompt of "
                f"max_prompt_tokens={config.max_prompt_tokens} and a rationale of "
                f"generation.max_new_tokens={config.generation.max_new_tokens}"
            )
    yield from _faults_of_rationales(config, stages)
    if not config.data.labelled and (faults := list(_faults_of_unlabelled(config, stages))):
        yield f"data.labelled=false: {'; '.join(faults)}"
    weight = config.logits.weight
    if weight and RATIONALES.name not in {stage.name for stage in stages}:
        yield (
            f"logits.weight={weight}: method={config.method} has no assistant that writes; set it "
            "to 0"
        )
    mesh = config.mesh
    if (mesh.data, mesh.fsdp, mesh.tensor).count(-1) > 1:
        yield (
            f"mesh.data={mesh.data}, mesh.fsdp={mesh.fsdp}, mesh.tensor={mesh.tensor}: -1 for one "
            "of them at most"
        )
    for role in ROLES:
        lora: LoraConfig = getattr(config, role).lora
        for pattern in lora.targets if lora.rank else ():
            if not fnmatch.filter(PROJECTIONS, pattern):
                yield f"{role}.lora.targets={pattern}: matches none of {', '.join(PROJECTIONS)}"
        if lora.base and not lora.rank:
            yield (
                f"{role}.lora.base={lora.base}: a base that is trained cannot be of integers; set "
                f"{role}.lora.rank"
            )
        if not lora.targets:
            yield f"{role}.lora.targets is empty: name a projection"
    for stage, fit in fits(stages):
        train, setting = fit.train, fit.setting
        if stage.load and stage.load.as_long_as:  # The other training says how long.
            train = dataclasses.replace(train, epochs=1)
        yield from faults_of_training(train, setting + ".")
        if train.dev_every and "dev" not in stage.reads:
            yield (
                f"{setting}.dev_every={train.dev_every}: the dev split does not measure what this "
                "training is for; leave it at 0"
            )


def _faults_of_rationales(config: RunConfig, stages: Sequence[Stage]) -> Iterator[str]:
    how = config.rationales
    if how.filter == "consistency" and how.samples < 2:
        yield f"rationales.samples={how.samples}: 2 or more"
    if how.filter == "consistency" and how.temperature <= 0:
        yield f"rationales.temperature={how.temperature}: above 0, or all samples are the same"
    if how.retries and how.retry_temperature <= 0:
        yield (
            f"rationales.retry_temperature={how.retry_temperature}: above 0, or all retries are "
            "the same"
        )
    if how.corruption and (how.retries or how.rounds):
        name = "retries" if how.retries else "rounds"
        yield (
            f"rationales.corruption={how.corruption}: {name} would change what the corrupted "
            f"rationales do; set rationales.{name}=0"
        )
    if how.least_right and how.filter != "confidence":
        yield (
            f"rationales.least_right={how.least_right} chooses a threshold of confidence, and "
            f"rationales.filter={how.filter}; set it to 0, or rationales.filter=confidence"
        )
    if how.least_right and THRESHOLD.name not in {stage.name for stage in stages}:
        yield (
            f"rationales.least_right={how.least_right}: method={config.method} has no assistant "
            "that writes; set it to 0"
        )
    if how.least_right and how.rounds:
        yield (
            f"rationales.least_right={how.least_right}: the assistant of each round would need a "
            "threshold of its own; set rationales.rounds=0"
        )
    if how.least_right and how.show_gold and config.data.labelled:
        yield (
            f"rationales.least_right={how.least_right}: an assistant that is shown the answers is "
            "always right; set rationales.show_gold=false"
        )
    if config.evaluation.teacher_dev and not how.least_right:
        yield (
            f"evaluation.teacher_dev={config.evaluation.teacher_dev}: only rationales.least_right "
            "reads bought answers of the dev split; set one of them"
        )
    if how.retries and RATIONALES.name not in {stage.name for stage in stages}:
        yield (
            f"rationales.retries={how.retries}: method={config.method} has no assistant that "
            "writes; set it to 0"
        )
    after = config.thinking.after if states_budgets(config.method) else config.method
    if how.rounds and after != "bridge":
        yield (
            f"rationales.rounds={how.rounds}: method={config.method} trains no assistant in "
            "rounds; set it to 0"
        )


def faults_of_training(train: TrainConfig, prefix: str = "") -> Iterator[str]:
    """Finds settings of a training that contradict each other.

    Args:
      train: the settings.
      prefix: what stands before a field's name in a message.
    """
    if not (train.epochs or train.steps):
        yield f"{prefix}epochs=0 and {prefix}steps=0: nothing would be trained; set one of them"
    if train.batch_rows % train.accumulate:
        yield (
            f"{prefix}accumulate={train.accumulate} does not divide batch_rows={train.batch_rows}"
        )
    if not train.dev_every and (train.keep_best or train.patience):
        name = "keep_best" if train.keep_best else "patience"
        yield f"{prefix}{name} needs measurements on the dev split; set {prefix}dev_every"


def _faults_of_unlabelled(config: RunConfig, stages: Sequence[Stage]) -> Iterator[str]:
    """Finds what would read a gold answer of the pool after the warm-up.

    All of it is in one message: who has no labels has to change several settings.
    """
    how = config.rationales
    if how.filter == "gold" and RATIONALES.name in {stage.name for stage in stages}:
        yield "rationales.filter=gold needs labels; use none, confidence or consistency"
    if how.corruption and how.corruption_kind == "wrong_answer":
        yield (
            "rationales.corruption_kind=wrong_answer has to know the right one; use wrong_reasoning"
        )
    if not asking(stages):
        return
    if not config.teacher.keep_wrong:
        yield (
            "teacher.keep_wrong=false compares the teacher's answers with labels; use "
            "teacher.keep_wrong=true"
        )
    if config.teacher.show_gold:
        yield "teacher.show_gold shows them to the teacher; use teacher.show_gold=false"
    if config.selection.difficulty == "nll" and config.selection.strategy != "random":
        yield "selection.difficulty=nll is of the gold answer; use entropy"


def roles(stages: Sequence[Stage]) -> list[Role]:
    """Returns the roles that have a model in a run."""
    found = {stage.artifact.role for stage in stages}
    return [role for role in ROLES if role in found]


def check_inputs(config: RunConfig, stages: Sequence[Stage], inputs: Inputs) -> None:
    """Checks data and models, before anything is trained or paid.

    Raises:
      UserError: the budget exceeds the pool; a question of test or dev has no gold answer to
        measure with; a prompt exceeds max_prompt_tokens or, with its completion, the model's
        context; a chat template does not write what it is given; a token has no row in the
        embedding table; the warm-up's domains are not in the pool; the instructions are too few or
        too long; a gold answer does not fit a row; no recorded rationale would be kept; a
        checkpoint is missing or lacks a layer to keep; or a library for `curves` or for ROUGE is
        not installed.
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
    for stage, fit in fits(stages):
        if "dev" in stage.reads and not inputs.dev:
            raise UserError(
                f"{fit.setting}.dev_every={fit.train.dev_every}: the data has no dev split; add "
                "one (data.dev, data.splits), or leave it at 0"
            )
        if "dev" in stage.reads:
            _check_gold_of_dev(fit, inputs.dev)
        role, load = stage.artifact.role, stage.load
        if role and load and (load.of, load.text) == ("pool", "answer"):
            _check_row(fit, inputs.rendering(role), pool)
    if asking(stages):
        _check_size(config, len(pool))
    if warmup := by_name.get(apprenticeship.WARMUP.name):
        params = warmup.params
        apprenticeship.drawn(pool, params.fraction, params.domains, config.seed)
    for role in roles(stages):
        modes = _modes(stages, role) if POOL in read else []
        _check_prompts(config, role, modes, inputs, inputs.dev if DEV in read else None)
    if INSTRUCTIONS in read:
        _ = inputs.instructions
    asks = asking(stages)
    if asks and config.teacher.kind not in API_TEACHERS and not config.teacher.replay_from:
        _check_recorded(asks.params, pool, inputs.count, config.data.labelled)
    for stage in stages:
        if stage.check:
            stage.check(config, inputs)


def _check_gold_of_dev(fit: Fit, dev: Examples) -> None:
    """Raises a `UserError` if a training is to be measured on questions without a gold answer."""
    if bare := sum(example.answer is None for example in dev):
        raise UserError(
            f"{fit.setting}.dev_every={fit.train.dev_every}: {bare:,} of {len(dev):,} dev "
            "questions have no answer to measure with; give them answers, or leave it at 0"
        )


def _check_row(fit: Fit, reading: Rendering, pool: Examples) -> None:
    """Raises a `UserError` if a question with its gold answer is longer than a row."""
    found = reading.labelled(pool, pool.digest)
    lengths = found.prompts.lengths + found.answers.lengths
    longest = int(lengths.argmax())
    if lengths[longest] > fit.train.row_tokens:
        raise UserError(
            f"{fit.setting}.row_tokens={fit.train.row_tokens}: example {pool[longest].id!r} has "
            f"{lengths[longest]} tokens with its answer; raise it, or cut long questions "
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
    """Checks that the pool has a recorded rationale which the student would learn from.

    Raises:
      UserError: there is none.
    """
    name, kind = params.variant, params.teacher.kind
    recorded = [example for example in pool if name in example.rationales]
    if not recorded:
        others = sorted({other for example in pool for other in example.rationales})
        way_out = f"set data.rationale to {' or '.join(others)}" if others else "add a column"
        raise UserError(
            f"teacher.kind={kind}: no example of the pool has a recorded rationale {name!r}; "
            f"{way_out}, or ask a teacher"
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
            first = first or f"that of {example.id!r}: {row['reason'] or 'no answer that parses'}"
            has_answer = has_answer or row["answer"] is not None
    way_out = "mend the data, or loosen the settings of `teacher` that reject them"
    if not has_answer:
        way_out = (
            "if a column of the file has the teacher's answers, name it with "
            "--config.data.columns=teacher_answer:COLUMN"
        )
        if labelled and not params.teacher.keep_wrong:
            way_out += "; or learn them with the gold answers (--config.teacher.keep_wrong=true)"
    raise UserError(
        f"teacher.kind={kind}: none of the {len(recorded):,} recorded rationales {name!r} of the "
        f"pool would be kept ({first}); {way_out}"
    )


def _modes(stages: Sequence[Stage], role: Role) -> list[Mode]:
    """Returns the modes, other than `answer`, in which a role's model is asked about the pool."""
    loads = [stage.load for stage in stages if stage.artifact.role == role and stage.load]
    found = {mode for load in loads if load.of != "test" for mode in load.modes}
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
        reading.answers(pool, pool.digest)  # An answer may have tokens that the prompt lacks.
    longest = max(int(part.lengths.max(initial=0)) for part in found)
    check_context(longest, config.generation.max_new_tokens, model.config.max_positions)


def cut_prompts(stages: Sequence[Stage], inputs: Inputs) -> dict[Role, tuple[int, int]]:
    """Returns for each role how many questions are cut to fit its prompts, and of how many."""
    read = {name for stage in stages for name in stage.reads.values()}
    splits = {POOL: inputs.pool, DEV: inputs.dev, TEST: inputs.test}
    asked = [splits[name] for name in splits if name in read]
    found: dict[Role, tuple[int, int]] = {}
    for role in roles(stages):
        reading = inputs.rendering(role)
        cut = [reading.prompts(part, part.digest, "reason").cut for part in asked]
        found[role] = sum(cut), sum(map(len, asked))
    return found


def compare_hosts(stages: Sequence[Stage], inputs: Inputs, deep: Mapping[str, str]) -> None:
    """Checks that all hosts would run the same, before anything is trained or paid.

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
