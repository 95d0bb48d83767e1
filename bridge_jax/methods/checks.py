"""Checks the config of a run before its data is read (`methods.input_checks` checks the rest)."""

import dataclasses
import fnmatch
from collections.abc import Iterator, Sequence
from pathlib import Path

from bridge_jax.config import (
    API_TEACHERS,
    PROJECTIONS,
    LoraConfig,
    RunConfig,
    TeacherConfig,
    TrainConfig,
    fields,
)
from bridge_jax.data.example import read_task
from bridge_jax.errors import UserError, require
from bridge_jax.methods import (
    annotation_stages,
    get_method,
    states_budgets,
    teacher_stages,
)
from bridge_jax.methods.filtering import RATIONALES, THRESHOLD
from bridge_jax.methods.fitting import TrainSpec
from bridge_jax.methods.inputs import Inputs
from bridge_jax.methods.selection_parts import LEAST_PART
from bridge_jax.methods.teacher import (
    held_out_count,
    selected_count,
)
from bridge_jax.models.layouts import Meshes
from bridge_jax.pipeline.artifacts import ROLES, Role
from bridge_jax.pipeline.stages import Stage


def trainings(stages: Sequence[Stage]) -> Iterator[tuple[Stage, TrainSpec]]:
    """Yields the training stages, each with its `TrainSpec`."""
    for stage in stages:
        if stage.artifact.work == "train":
            yield stage, stage.params if isinstance(stage.params, TrainSpec) else stage.params.how


def meshes_of(stages: Sequence[Stage], inputs: Inputs) -> dict[Role, Meshes]:
    """Returns the meshes of each role that has a model in a run."""
    return {role: inputs.meshes(role) for role in roles(stages)}


def validate(config: RunConfig, has_data: bool = True) -> RunConfig:
    """Returns `config` after the checks that need no data.

    `has_data=False` allows an empty `data.path`.

    Raises:
      UserError: a field has an invalid value (`config.fields`), or fields contradict each other.
    """
    require(
        isinstance(config, RunConfig),
        f"the config is a {type(config).__name__}, not a RunConfig; get_config() must return one",
    )
    fields.check(config)
    for fault in _faults_of_sources(config, has_data):
        raise UserError(fault)
    read_task(config.data)
    method = get_method(config.method)
    stages = method.stages(config)
    for fault in _faults_of_teacher(config, stages) if teacher_stages(stages) else ():
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
                yield (
                    f"instruct.{name}={value}: {source} reads no file; set instruct.source to the "
                    "kind of the file"
                )
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
    selected = max(1, selected_count(config)) if annotation_stages(stages) else 0
    parts = config.selection.parts
    if annotation_stages(stages) and parts > 1 and selected < parts * LEAST_PART:
        yield (
            f"selection.parts={parts}: {selected} examples are selected, but each part requires "
            f"at least {LEAST_PART} to train an assistant on; lower it"
        )
    held_out_too = held_out_count(config)
    if selected * teacher.samples + held_out_too > budget.queries:
        settings = "evaluation.teacher_test, evaluation.teacher_dev"
        also = f" and {held_out_too} of test and dev ({settings})" if held_out_too else ""
        less = f"selection.size, {settings}" if held_out_too else "selection.size"
        yield (
            f"budget.queries={budget.queries} does not cover {selected} examples at "
            f"teacher.samples={teacher.samples} requests each{also}; lower {less} or "
            "teacher.samples, or raise budget.queries"
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
            f"teacher.kind={teacher.kind} always returns the same reply; use teacher.samples=1 and "
            "teacher.retries=0"
        )
    if is_api and teacher.model in ("", "oracle"):
        yield f"teacher.model={teacher.model}: set it to the vendor's name for the model"
    if is_api and several and teacher.temperature == 0:
        yield "teacher.temperature=0 gives the same reply in every sample and retry; raise it"


def _faults_of_prices(teacher: TeacherConfig) -> Iterator[str]:
    """Yields contradictions between `teacher.free` and the prices.

    If an API seemed free by mistake, no cap in dollars would ever stop it.
    """
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
            f"{values}: nothing would count towards budget.usd; set the vendor's prices, or, for "
            "your own server that charges nothing, teacher.free=true and prices of 0"
        )


def _faults_of_models(config: RunConfig, stages: Sequence[Stage]) -> Iterator[str]:
    longest = config.max_prompt_tokens + config.generation.max_new_tokens
    for stage, spec in trainings(stages):
        workload, tokens = stage.workload, spec.train.row_tokens
        is_short = not workload or workload.of == "instructions" or workload.text == "answer"
        # A stage that sets its own reply length checks it itself.
        if workload and workload.replies:
            is_short = workload.replies.generation != config.generation
        if not is_short and longest > tokens:  # Found now, not after the teacher was paid.
            yield (
                f"{spec.setting}.row_tokens={tokens} is too short for a prompt of "
                f"max_prompt_tokens={config.max_prompt_tokens} and a rationale of "
                f"generation.max_new_tokens={config.generation.max_new_tokens}"
            )
    yield from _faults_of_rationales(config, stages)
    if not config.data.labelled and (faults := list(_faults_of_unlabelled(config, stages))):
        yield f"data.labelled=false: {'; '.join(faults)}"
    weight = config.logits.weight
    if weight and RATIONALES.name not in {stage.name for stage in stages}:
        yield (
            f"logits.weight={weight}: method={config.method} has no assistant that writes "
            "rationales; set it to 0"
        )
    mesh = config.mesh
    if (mesh.data, mesh.fsdp, mesh.tensor).count(-1) > 1:
        yield (
            f"mesh.data={mesh.data}, mesh.fsdp={mesh.fsdp}, mesh.tensor={mesh.tensor}: at most "
            "one of them may be -1"
        )
    for role in ROLES:
        lora: LoraConfig = getattr(config, role).lora
        for pattern in lora.targets if lora.rank else ():
            if not fnmatch.filter(PROJECTIONS, pattern):
                yield f"{role}.lora.targets={pattern}: matches none of {', '.join(PROJECTIONS)}"
        if lora.base and not lora.rank:
            yield (
                f"{role}.lora.base={lora.base}: an integer base cannot be trained; set "
                f"{role}.lora.rank to train an adapter"
            )
        if not lora.targets:
            yield f"{role}.lora.targets is empty: name a projection"
    for stage, spec in trainings(stages):
        train, setting = spec.train, spec.setting
        if stage.workload and stage.workload.as_long_as:  # Another training determines how long.
            train = dataclasses.replace(train, epochs=1)
        yield from faults_of_training(train, setting + ".")
        if train.dev_every and "dev" not in stage.reads:
            yield (
                f"{setting}.dev_every={train.dev_every}: the dev split does not measure what this "
                "training optimizes; set it to 0"
            )


def _faults_of_rationales(config: RunConfig, stages: Sequence[Stage]) -> Iterator[str]:
    how = config.rationales
    if how.filter == "consistency" and how.samples < 2:
        yield f"rationales.samples={how.samples}: rationales.filter=consistency requires 2 or more"
    if how.filter == "consistency" and how.temperature <= 0:
        yield (
            f"rationales.temperature={how.temperature}: must be above 0, or all samples are the "
            "same"
        )
    if how.retries and how.retry_temperature <= 0:
        yield (
            f"rationales.retry_temperature={how.retry_temperature}: must be above 0, or all "
            "retries are the same"
        )
    if how.corruption and (how.retries or how.rounds):
        name = "retries" if how.retries else "rounds"
        yield (
            f"rationales.corruption={how.corruption}: {name} would change the effect of the "
            f"corrupted rationales; set rationales.{name}=0"
        )
    if how.least_right and how.filter != "confidence":
        yield (
            f"rationales.least_right={how.least_right} chooses a confidence threshold, but "
            f"rationales.filter={how.filter}; set it to 0, or set rationales.filter=confidence"
        )
    if how.least_right and THRESHOLD.name not in {stage.name for stage in stages}:
        yield (
            f"rationales.least_right={how.least_right}: method={config.method} has no assistant "
            "that writes rationales; set it to 0"
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
            "uses answers bought for the dev split; set it, or set evaluation.teacher_dev=0"
        )
    after = config.thinking.after if states_budgets(config.method) else config.method
    if how.rounds and after != "bridge":
        yield (
            f"rationales.rounds={how.rounds}: method={config.method} trains no assistant in "
            "rounds; set it to 0"
        )


def faults_of_training(train: TrainConfig, prefix: str = "") -> Iterator[str]:
    """Yields faults in the settings of a training, such as contradictions.

    Args:
      train: the settings.
      prefix: the prefix of field names in messages.
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
    """Yields the settings that would read gold answers of the pool after the warm-up.

    They go into one message, because a user without labels has to change several settings.
    """
    how = config.rationales
    if how.filter == "gold" and RATIONALES.name in {stage.name for stage in stages}:
        yield "rationales.filter=gold needs labels; use none, confidence or consistency"
    if how.corruption and how.corruption_kind == "wrong_answer":
        yield (
            "rationales.corruption_kind=wrong_answer requires the right answer; use wrong_reasoning"
        )
    if not annotation_stages(stages):
        return
    if not config.teacher.keep_wrong:
        yield (
            "teacher.keep_wrong=false compares the teacher's answers with labels; use "
            "teacher.keep_wrong=true"
        )
    if config.teacher.show_gold:
        yield "teacher.show_gold shows them to the teacher; use teacher.show_gold=false"
    if config.selection.difficulty == "nll" and config.selection.strategy != "random":
        yield "selection.difficulty=nll requires gold answers; use entropy"


def roles(stages: Sequence[Stage]) -> list[Role]:
    """Returns the roles that have a model in a run."""
    found = {stage.artifact.role for stage in stages}
    return [role for role in ROLES if role in found]
