"""Checks a config before any data is read."""

import fnmatch
from collections.abc import Iterator, Sequence
from pathlib import Path

from bridge_jax.config import (
    API_TEACHERS,
    PROJECTIONS,
    InstructConfig,
    LoraConfig,
    RationalesConfig,
    RunConfig,
    TeacherConfig,
    fields,
)
from bridge_jax.data.example import read_task
from bridge_jax.errors import UserError
from bridge_jax.methods import asking, named
from bridge_jax.methods.fitting import Fit
from bridge_jax.methods.rationales import RATIONALES
from bridge_jax.methods.teacher import selected_count
from bridge_jax.pipeline.stages import Stage


def require(ok: bool, message: str) -> None:
    """Raises a `UserError` unless `ok`."""
    if not ok:
        raise UserError(message)


def fits(stages: Sequence[Stage]) -> Iterator[tuple[Stage, Fit]]:
    """Yields the stages that train, each with how it does."""
    for stage in stages:
        if stage.artifact.work == "train":
            yield stage, stage.params if isinstance(stage.params, Fit) else stage.params.how


def idle_rows(config: RunConfig, stages: Sequence[Stage], parts: int) -> str:
    """Returns a note on batches that data x fsdp = `parts` devices do not divide; "" if none."""
    sizes = {"generation.batch_size": (config.generation.batch_size, parts)} | {
        f"{fit.setting}.batch_rows": (fit.train.batch_rows, parts * fit.train.accumulate)
        for _, fit in fits(stages)
    }
    uneven = [
        f"{name}={rows} to a multiple of {step}"
        for name, (rows, step) in sizes.items()
        if rows % step
    ]
    if not uneven:
        return ""
    return (
        f"{parts} devices do not divide these batches, which are filled up with empty rows: "
        f"{', '.join(uneven)}; larger batches or fewer devices would do the same for less"
    )


def _check_teacher(config: RunConfig) -> None:
    teacher, data, budget = config.teacher, config.data, config.budget
    require(budget.queries > 0, f"budget.queries={budget.queries}: ask the teacher at least once")
    require(budget.usd > 0, f"budget.usd={budget.usd}: the cap must be above 0 US dollars")
    has_replay = bool(teacher.replay_from)
    require(
        not has_replay or Path(teacher.replay_from).is_file(),
        f"teacher.replay_from={teacher.replay_from}: no such file; name a ledger or a JSONL file",
    )
    require(
        data.source != "practice" or teacher.kind != "replay" or has_replay,
        "teacher.kind=replay has nothing recorded for practice tasks: use teacher.kind=oracle, or "
        "name a ledger or a JSONL file with teacher.replay_from",
    )
    require(
        data.source == "practice" or teacher.kind != "oracle",
        f"teacher.kind=oracle knows practice tasks only, not data.source={data.source}",
    )
    low, high = teacher.min_rationale_tokens, teacher.max_rationale_tokens
    require(
        not high or low <= high,
        f"teacher.min_rationale_tokens={low} is above teacher.max_rationale_tokens={high}",
    )
    require(
        teacher.samples > 1 or not teacher.min_agreement,
        f"teacher.min_agreement={teacher.min_agreement} needs teacher.samples above 1",
    )
    selected = max(1, selected_count(config))
    needed = selected * teacher.samples
    require(
        needed <= config.budget.queries,
        f"budget.queries={config.budget.queries} does not pay for {selected} "
        f"examples at teacher.samples={teacher.samples} requests each; lower selection.size or "
        "teacher.samples, or raise it",
    )
    require(
        not teacher.batch or teacher.kind in API_TEACHERS,
        f"teacher.batch: teacher.kind={teacher.kind} has no batch mode",
    )
    require(
        not teacher.batch or teacher.backend == "google-genai",
        f"teacher.backend={teacher.backend} has no batch mode: use google-genai",
    )
    _check_prices(teacher)
    several = teacher.samples > 1 or teacher.retries > 0
    if teacher.kind not in API_TEACHERS:
        require(
            not several,
            f"teacher.samples={teacher.samples}, teacher.retries={teacher.retries}: "
            f"teacher.kind={teacher.kind} always says the same",
        )
        return
    require(
        teacher.model not in ("", "oracle"),
        f"teacher.model={teacher.model}: give the vendor's name of the model",
    )
    require(
        not several or teacher.temperature != 0,
        "teacher.temperature=0 says the same in every sample and retry; raise it",
    )


def _check_prices(teacher: TeacherConfig) -> None:
    """Refuses an API that would cost nothing by mistake: no cap in dollars would ever hold it."""
    if teacher.kind not in API_TEACHERS or teacher.replay_from:
        return
    prices = ["usd_per_million_input", "usd_per_million_output"]
    paid = [name for name in prices if getattr(teacher, name) > 0]
    if teacher.free:
        require(
            not paid,
            f"teacher.free=true, but {_values(teacher, paid)}; set the prices to 0, or free=false",
        )
        return
    unpaid = [name for name in prices if name not in paid]
    if teacher.batch and not teacher.batch_share:
        unpaid.append("batch_share")
    require(
        not unpaid,
        f"{_values(teacher, unpaid)}: nothing would count towards budget.usd; write the vendor's "
        "price, or, for a server of your own that bills nobody, teacher.free=true and prices of 0",
    )


def _values(teacher: TeacherConfig, names: list[str]) -> str:
    return ", ".join(f"teacher.{name}={getattr(teacher, name)}" for name in names)


def _check_unlabelled(config: RunConfig, stages: Sequence[Stage]) -> None:
    """Refuses what would read a gold answer of the pool after the warm-up."""
    teacher, why = config.teacher, "data.labelled=false: "
    names = {stage.name for stage in stages}
    by_gold = RATIONALES.name in names and config.rationales.filter == "gold"
    require(
        not by_gold, f"{why}rationales.filter=gold needs them; use none, confidence or consistency"
    )
    require(
        not config.rationales.noise or config.rationales.noise_kind != "wrong_answer",
        f"{why}rationales.noise_kind=wrong_answer has to know the right one; use wrong_reasoning",
    )
    if asking(stages):
        require(
            teacher.keep_wrong,
            f"{why}teacher.keep_wrong=false compares the teacher's answers with them; set it",
        )
        require(not teacher.show_gold, f"{why}teacher.show_gold shows them to the teacher")
        require(
            config.selection.difficulty != "nll" or config.selection.strategy == "random",
            f"{why}selection.difficulty=nll is of the gold answer; use entropy",
        )


def _check_rationales(config: RationalesConfig) -> None:
    if config.filter == "consistency":
        require(config.samples > 1, f"rationales.samples={config.samples}: 2 or more")
        require(
            config.temperature > 0,
            f"rationales.temperature={config.temperature}: above 0, or all samples are the same",
        )


def _check_rows(config: RunConfig, stages: Sequence[Stage]) -> None:
    """Finds rows that would turn out too short once the teacher has been paid."""
    longest = config.max_prompt_tokens + config.generation.max_new_tokens
    for stage, fit in fits(stages):
        load = stage.load
        if not load or load.of == "instructions" or load.text == "answer":
            continue
        tokens = fit.train.row_tokens
        require(
            longest <= tokens,
            f"{fit.setting}.row_tokens={tokens} is too short for a prompt of "
            f"max_prompt_tokens={config.max_prompt_tokens} and a rationale of "
            f"generation.max_new_tokens={config.generation.max_new_tokens}",
        )


def _check_instruct(config: InstructConfig) -> None:
    source = f"instruct.source={config.source}"
    if config.source == "generated":
        for name in ("path", "columns"):
            value = getattr(config, name)
            require(
                not value, f"instruct.{name}={value}: {source} reads no file; set it to jsonl or hf"
            )
        return
    require(bool(config.path), f"instruct.path is empty, but {source} reads from it")
    require(
        config.source != "jsonl" or Path(config.path).is_file(),
        f"instruct.path={config.path}: no such file",
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
    data = config.data
    require(
        data.min_steps <= data.max_steps,
        f"data.min_steps={data.min_steps} is above data.max_steps={data.max_steps}",
    )
    require(
        data.source == "practice" or bool(data.path) or not has_data,
        f"data.path is empty, but data.source={data.source} reads from it: pass --data.path=...",
    )
    read_task(data)
    _check_instruct(config.instruct)
    method = named(config.method)
    stages = method.stages(config)
    names = {stage.name for stage in stages}
    if asking(stages):
        _check_teacher(config)
    method.check(config)
    _check_rows(config, stages)
    _check_rationales(config.rationales)
    if not config.data.labelled:
        _check_unlabelled(config, stages)
    weight = config.logits.weight
    require(
        RATIONALES.name in names or not weight,
        f"logits.weight={weight}: method={config.method} has no assistant that writes; set it to 0",
    )
    mesh = (config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    require(
        mesh.count(-1) <= 1,
        "mesh.data={}, mesh.fsdp={}, mesh.tensor={}: -1 for one of them at most".format(*mesh),
    )
    for role in ("assistant", "student"):
        lora: LoraConfig = getattr(config, role).lora
        for pattern in lora.targets if lora.rank else ():
            require(
                any(fnmatch.fnmatch(name, pattern) for name in PROJECTIONS),
                f"{role}.lora.targets={pattern}: matches none of {', '.join(PROJECTIONS)}",
            )
        require(bool(lora.targets), f"{role}.lora.targets is empty: name a projection")
    for _, fit in fits(stages):
        rows, parts = fit.train.batch_rows, fit.train.accumulate
        require(
            rows % parts == 0,
            f"{fit.setting}.accumulate={parts} does not divide batch_rows={rows}",
        )
    return config
