"""The checks of a config that need no data, made before anything is run."""

import fnmatch
from pathlib import Path

from bridge_jax.config import (
    API_TEACHERS,
    PROJECTIONS,
    InstructConfig,
    LoraConfig,
    RationalesConfig,
    RunConfig,
    TeacherConfig,
    TrainConfig,
    address,
)
from bridge_jax.errors import UserError
from bridge_jax.tasks import task
from bridge_jax.tasks.instructions import FIELDS


def require(ok: bool, message: str) -> None:
    """Raises a `UserError` unless `ok`."""
    if not ok:
        raise UserError(message)


def trainings(config: RunConfig) -> dict[str, TrainConfig]:
    """Returns the config of each training stage, by its key."""
    return {
        "warmup.train": config.warmup.train,
        "assistant_training": config.assistant_training,
        "instruct.train": config.instruct.train,
        "student_training": config.student_training,
        "direct_training": config.direct_training,
    }


def idle_rows(config: RunConfig, parts: int) -> str:
    """Returns a note on batches that data x fsdp = `parts` devices do not divide; "" if none."""
    sizes = {"generation.batch_size": (config.generation.batch_size, parts)} | {
        f"{name}.batch_rows": (train.batch_rows, parts * train.accumulate)
        for name, train in trainings(config).items()
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
    positive = ("max_output_tokens", "concurrency", "attempts", "samples", "batch_poll_seconds")
    for name in (*positive, "timeout"):
        value = getattr(teacher, name)
        require(value > 0, f"teacher.{name}={value}: above 0")
    address.check(teacher.base_url)
    lengths = ("min_rationale_tokens", "max_rationale_tokens")
    for name in ("requests_per_minute", "tokens_per_minute", "retries", *lengths):
        value = getattr(teacher, name)
        require(value >= 0, f"teacher.{name}={value}: 0 or more")
    low, high = (getattr(teacher, name) for name in lengths)
    require(
        not high or low <= high,
        f"teacher.min_rationale_tokens={low} is above teacher.max_rationale_tokens={high}",
    )
    require(
        0 <= teacher.min_agreement <= 1, f"teacher.min_agreement={teacher.min_agreement}: 0 to 1"
    )
    require(
        teacher.samples > 1 or not teacher.min_agreement,
        f"teacher.min_agreement={teacher.min_agreement} needs teacher.samples above 1",
    )
    require(config.selection.size >= 0, f"selection.size={config.selection.size}: 0 or more")
    needed = max(1, config.selected) * teacher.samples
    require(
        needed <= config.budget.queries,
        f"budget.queries={config.budget.queries} does not pay for {max(1, config.selected)} "
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
    require(
        0 <= teacher.batch_share <= 1,
        f"teacher.batch_share={teacher.batch_share}: 0 to 1, a share of the list price",
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


def _check_unlabelled(config: RunConfig) -> None:
    """Refuses what would read a gold answer of the pool after the warm-up."""
    teacher, why = config.teacher, "data.labelled=false: "
    require(config.method != "labels", f"{why}method=labels trains on gold answers")
    by_gold = config.has_rationales and config.rationales.filter == "gold"
    require(
        not by_gold, f"{why}rationales.filter=gold needs them; use none, confidence or consistency"
    )
    require(
        not config.rationales.noise or config.rationales.noise_kind != "wrong_answer",
        f"{why}rationales.noise_kind=wrong_answer has to know the right one; use wrong_reasoning",
    )
    if config.asks_teacher:
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
    for name in ("noise", "min_agreement"):
        value = getattr(config, name)
        require(0 <= value <= 1, f"rationales.{name}={value}: 0 to 1")
    for name in ("min_mean_logprob", "min_step_logprob"):
        value = getattr(config, name)
        require(value <= 0, f"rationales.{name}={value}: a log-probability, 0 or less")
    if config.filter == "consistency":
        require(config.samples > 1, f"rationales.samples={config.samples}: 2 or more")
        require(
            config.temperature > 0,
            f"rationales.temperature={config.temperature}: above 0, or all samples are the same",
        )


def _check_rows(config: RunConfig) -> None:
    """Finds rows that would turn out too short once the teacher has been paid."""
    longest = config.max_prompt_tokens + config.generation.max_new_tokens
    used = {
        "assistant_training": config.method == "bridge",
        "student_training": config.has_rationales,
        "direct_training": config.method == "direct" or config.compare_direct,
    }
    for name in (name for name, is_used in used.items() if is_used):
        tokens = getattr(config, name).row_tokens
        require(
            longest <= tokens,
            f"{name}.row_tokens={tokens} is too short for a prompt of "
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
    for field, column in config.columns.items():
        require(
            field in FIELDS,
            f"instruct.columns={field}:{column}: {field!r} is none of {', '.join(FIELDS)}",
        )


def validate(config: RunConfig, has_data: bool = True) -> RunConfig:
    """Returns `config` after the checks that need no data; `has_data=False` if there is none."""
    data = config.data
    require(0 <= config.warmup.fraction <= 1, f"warmup.fraction={config.warmup.fraction}: 0 to 1")
    weight, noise = config.selection.difficulty_weight, config.selection.noise_fraction
    require(0 <= weight <= 1, f"selection.difficulty_weight={weight}: 0 to 1")
    require(0 <= noise < 1, f"selection.noise_fraction={noise}: 0 to below 1")
    clusters = config.selection.clusters
    require(clusters >= 0, f"selection.clusters={clusters}: above 0, or 0 for the default")
    for name in ("batch_size", "max_new_tokens"):
        value = getattr(config.generation, name)
        require(value > 0, f"generation.{name}={value}: above 0")
    require(
        data.min_steps >= 1 and data.max_steps <= 5 and data.min_steps <= data.max_steps,
        f"data.min_steps={data.min_steps}, data.max_steps={data.max_steps}: 1 <= min <= max <= 5",
    )
    require(
        data.source == "practice" or bool(data.path) or not has_data,
        f"data.path is empty, but data.source={data.source} reads from it: pass --data.path=...",
    )
    task.read(data)
    _check_instruct(config.instruct)
    if config.asks_teacher:
        _check_teacher(config)
    require(
        config.method != "labels" or config.form == "chain",
        f"form={config.form}: method=labels has no rationale; leave it at chain",
    )
    _check_rows(config)
    require(0 < data.min_rouge <= 1, f"data.min_rouge={data.min_rouge}: above 0, 1 at most")
    _check_rationales(config.rationales)
    if not config.data.labelled:
        _check_unlabelled(config)
    weight, top_k = config.logits.weight, config.logits.top_k
    require(0 <= weight <= 1, f"logits.weight={weight}: 0 to 1")
    require(top_k > 0, f"logits.top_k={top_k}: above 0")
    require(
        config.has_rationales or not weight,
        f"logits.weight={weight}: method={config.method} has no assistant that writes; set it to 0",
    )
    mesh = (config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    require(
        all(size == -1 or size > 0 for size in mesh) and mesh.count(-1) <= 1,
        "mesh.data={}, mesh.fsdp={}, mesh.tensor={}: above 0, or -1 for one of them".format(*mesh),
    )
    for role in ("assistant", "student"):
        lora: LoraConfig = getattr(config, role).lora
        require(lora.rank >= 0, f"{role}.lora.rank={lora.rank}: above 0, or 0 for no adapter")
        require(0 <= lora.dropout < 1, f"{role}.lora.dropout={lora.dropout}: 0 to below 1")
        for pattern in lora.targets if lora.rank else ():
            require(
                any(fnmatch.fnmatch(name, pattern) for name in PROJECTIONS),
                f"{role}.lora.targets={pattern}: matches none of {', '.join(PROJECTIONS)}",
            )
        require(bool(lora.targets), f"{role}.lora.targets is empty: name a projection")
    for name, train in trainings(config).items():
        for field in ("epochs", "batch_rows", "row_tokens", "accumulate", "checkpoint_every"):
            value = getattr(train, field)
            require(value > 0, f"{name}.{field}={value}: above 0")
        require(
            train.batch_rows % train.accumulate == 0,
            f"{name}.accumulate={train.accumulate} does not divide batch_rows={train.batch_rows}",
        )
        require(
            0 <= train.rationale_weight <= 1,
            f"{name}.rationale_weight={train.rationale_weight}: 0 to 1",
        )
    return config
