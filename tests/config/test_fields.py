"""The values that each config field takes: every range is declared, every fault is named."""

import dataclasses
import math
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import pytest

from bridge_jax import methods
from bridge_jax.config import (
    BudgetConfig,
    DataConfig,
    GenerationConfig,
    LoraConfig,
    MeshConfig,
    ModelConfig,
    RunConfig,
    TeacherConfig,
    TrainConfig,
    fields,
)
from bridge_jax.config import io as config_io
from bridge_jax.config.fields import Range
from bridge_jax.errors import UserError
from bridge_jax.methods.checks import trainings, validate


def leaves(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (key, declared type) of every field of a config that is no group of others."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, hint


def numbers(hint: Any) -> Iterator[tuple[type, Range | None]]:
    """Yields int or float, and its range, for what an annotation has of them."""
    if typing.get_origin(hint) is Annotated:
        plain, *rules = typing.get_args(hint)
        found = next((rule for rule in rules if isinstance(rule, Range)), None)
        yield from ((kind, range_ or found) for kind, range_ in numbers(plain))
    elif hint in (int, float):
        yield hint, None
    else:
        for part in typing.get_args(hint):
            if not isinstance(part, str):
                yield from numbers(part)


def with_value(config: Any, key: str, value: Any) -> Any:
    name, _, rest = key.partition(".")
    changed = with_value(getattr(config, name), rest, value) if rest else value
    return dataclasses.replace(config, **{name: changed})


LEAVES = dict(leaves(RunConfig))
NUMBERS = [(key, kind, range_) for key, hint in LEAVES.items() for kind, range_ in numbers(hint)]


@pytest.mark.parametrize("key, kind, range_", NUMBERS, ids=[key for key, *_ in NUMBERS])
def test_every_number_has_a_range_that_is_checked(key, kind, range_):
    assert range_ is not None, f"declare which numbers {key} takes, as in `Annotated[int, Range()]`"
    odd = [math.nan, math.inf, -math.inf, 1e39, 10**400] if kind is float else [2**31, 10**30]
    bad: list[float] = [True, *odd]
    if range_.least > -math.inf:
        bad.append(kind(range_.least - 1))
    if range_.above > -math.inf:
        bad += [kind(range_.above), kind(range_.above - 1)]
    if range_.most < math.inf:
        bad.append(kind(range_.most + 1))
    if range_.below < math.inf:
        bad.append(kind(range_.below))
    is_tuple = typing.get_origin(LEAVES[key]) is tuple
    for value in bad:
        if value == range_.also:
            continue
        config = with_value(RunConfig(), key, (value,) if is_tuple else value)
        with pytest.raises(UserError, match=rf"^{re.escape(key)}="):
            fields.check(config)


def test_the_walk_finds_fields_of_every_part():
    found = {key for key, *_ in NUMBERS}
    assert {"seed", "student_training.clip_norm", "warmup.train.epochs", "mesh.fsdp"} <= found
    assert {"assistant.lora.rank", "student.keep_layers", "teacher.timeout"} <= found
    fields.check(RunConfig())


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("student_training.learning_rate=nan", "=nan: a finite number that fits in 32 bits"),
        ("student_training.learning_rate=-1", "=-1.0: above 0"),
        ("warmup.train.learning_rate=0", "=0.0: above 0"),
        ("instruct.train.learning_rate=1e400", "=inf: a finite number"),
        ("assistant_training.clip_norm=-1", "=-1.0: above 0"),
        ("direct_training.weight_decay=-0.1", "=-0.1: 0 or more"),
        ("student_training.warmup_fraction=1.5", "=1.5: 0 to 1"),
        ("data.pool=-3", "=-3: 0 or more"),
        ("data.families=-1", "=-1: 0 or more"),
        ("data.max_steps=13", "=13: 1 to 12"),
        ("selection.batch_tokens=0", "=0: 1 or more"),
        ("generation.top_p=2", "=2.0: above 0, at most 1"),
        ("generation.top_p=0", "=0.0: above 0, at most 1"),
        ("generation.temperature=-1", "=-1.0: 0 or more"),
        ("rationales.temperature=-1", "=-1.0: 0 or more"),
        ("teacher.temperature=-2", "=-2.0: 0 to 2, or -1"),
        ("teacher.temperature=-0.5", "=-0.5: 0 to 2, or -1"),
        ("teacher.temperature=2.5", "=2.5: 0 to 2, or -1"),
        ("teacher.timeout=inf", "=inf: a finite number"),
        ("teacher.usd_per_million_input=-1", "=-1.0: 0 or more"),
        ("teacher.usd_per_million_output=nan", "=nan: a finite number"),
        ("budget.usd=inf", "=inf: a finite number"),
        ("assistant.lora.alpha=0", "=0.0: above 0"),
        ("assistant.lora.rank=-1", "=-1: 0 or more"),
        ("assistant.lora.dropout=1", "=1.0: 0 to below 1"),
        ("student.keep_layers=0,-1", "=-1: 0 or more"),
        ("student.keep_layers=0,2,2", "=0,2,2: 2 is listed twice"),
        ("assistant.lora.targets=mlp/*,mlp/*", "=mlp/*,mlp/*: mlp/* is listed twice"),
        ("data.choices=yes,no,yes", "=yes,no,yes: yes is listed twice"),
        ("data.choices=yes,,no", "=yes,,no: contains an empty item"),
        ("data.domains=fees,fees", "=fees,fees: fees is listed twice"),
        ("data.columns=quesion:stem", "=quesion: choose one of id, question, answer, split,"),
        ("max_prompt_tokens=0", "=0: 1 or more"),
        ("seed=-1", "=-1: 0 or more"),
        (f"seed={10**30}", f"={10**30}: a whole number up to 2,147,483,647"),
        ("teacher.tokens_per_minute=2147483648", "=2147483648: a whole number up to 2,147,483,647"),
        ("mesh.data=0", "=0: 1 or more, or -1"),
        ("mesh.tensor=-2", "=-2: 1 or more, or -1"),
        ("evaluation.assistant_examples=-1", "=-1: 0 or more"),
        ("name=\udcff", "=b'?': expected Unicode text without NUL"),
        ("teacher.model=a\0b", r"=b'a\x00b': expected Unicode text without NUL"),
    ],
)
def test_a_value_that_cannot_work_is_found_at_start(assignment, message):
    config = config_io.override(RunConfig(), [assignment])
    key = assignment.partition("=")[0]
    with pytest.raises(UserError, match=f"^{re.escape(key + message)}"):
        validate(config)


def test_two_sizes_of_the_mesh_are_not_both_what_is_left():
    with pytest.raises(UserError, match=r"mesh\.fsdp=-1, mesh\.tensor=-1: at most one of them"):
        validate(RunConfig(mesh=MeshConfig(1, -1, -1)))


ADDRESS = "not a server address; use one such as http://localhost:8000/v1"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("not a url", ADDRESS),
        ("localhost:8000/v1", ADDRESS),
        ("ftp://example.com", ADDRESS),
        ("file:///etc/passwd", ADDRESS),
        ("http://", ADDRESS),
        ("https:///v1", ADDRESS),
        ("http://host:port/v1", ADDRESS),
        ("http://host:99999/v1", ADDRESS),
        ("http://[::1/v1", ADDRESS),
        ("http://host/v1 ", ADDRESS),
        ("http://host/\x1b[2J", ADDRESS),
    ],
)
def test_an_address_has_a_scheme_and_a_host(url, message):
    with pytest.raises(UserError, match=rf"^teacher\.base_url={re.escape(f'{url}: {message}')}"):
        validate(RunConfig(teacher=TeacherConfig(base_url=url)))


@pytest.mark.parametrize("url", ["https://sk-123@host/v1", "http://u:sk-123/@b@host/v1"])
def test_a_password_in_an_address_is_refused_and_not_shown(url):
    with pytest.raises(UserError) as found:
        validate(RunConfig(teacher=TeacherConfig(base_url=url)))
    message = str(found.value)
    assert message.startswith("teacher.base_url contains a user name") and "sk-123" not in message


@pytest.mark.parametrize(
    "url", ["", "http://localhost:8000/v1", "https://[::1]:8000", "HTTPS://a.example/v1?version=2"]
)
def test_addresses_that_work(url):
    validate(RunConfig(teacher=TeacherConfig(base_url=url)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            RunConfig(student_training=TrainConfig(learning_rate="1e-3")),  # type: ignore[arg-type]
            "student_training.learning_rate='1e-3': expected float, got str",
        ),
        (RunConfig(seed=True), "seed=True: expected int, got bool"),
        (RunConfig(seed=1.0), "seed=1.0: expected int, got float"),  # type: ignore[arg-type]
        (RunConfig(budget=BudgetConfig(usd=True)), "budget.usd=True: expected float, got bool"),
        (RunConfig(curves=1), "curves=1: expected tuple, got int"),  # type: ignore[arg-type]
        (RunConfig(name=None), "name=None: expected str, got NoneType"),  # type: ignore[arg-type]
        (RunConfig(method="bart"), "method=bart is unknown; choose one of bridge"),  # type: ignore[arg-type]
        (
            RunConfig(student=ModelConfig(keep_layers=[0, 1])),  # type: ignore[arg-type]
            "student.keep_layers=[0, 1]: expected tuple, got list",
        ),
        (
            RunConfig(student=ModelConfig(keep_layers=(0, "1"))),  # type: ignore[arg-type]
            "student.keep_layers='1': expected int, got str",
        ),
        (RunConfig(student="smollm2"), "student='smollm2': expected ModelConfig, got str"),  # type: ignore[arg-type]
        (RunConfig(data=DataConfig(columns={"id": 3})), "data.columns.id=3: expected str"),  # type: ignore[arg-type]
        (RunConfig(data=DataConfig(columns={"id": ""})), "data.columns=id:: the name or the value"),
        (RunConfig(data=DataConfig(domains="fees")), "data.domains='fees': expected tuple"),  # type: ignore[arg-type]
        (RunConfig(seed=10**5000), "seed=a number of very many digits: a whole number up to"),
    ],
)  # fmt: skip
def test_a_config_made_in_python_has_its_types_checked(config, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        validate(config)


def test_what_fits_is_taken():
    train = TrainConfig(learning_rate=1, warmup_fraction=0, weight_decay=0, rationale_weight=1)
    config = RunConfig(
        seed=2**31 - 1,
        student_training=train,
        assistant=ModelConfig(lora=LoraConfig(rank=0, dropout=0)),
        generation=GenerationConfig(top_p=1),
        mesh=MeshConfig(8, 1, -1),
    )
    assert validate(config) is config
    found = {fit.setting for _, fit in trainings(methods.stages(config))}
    assert found >= {"student_training", "warmup.train"}


def test_a_field_without_a_declaration_has_its_type_checked():
    @dataclasses.dataclass(frozen=True)
    class Plain:
        text: str = ""
        flag: bool = False
        pairs: Mapping[str, str] = dataclasses.field(default_factory=dict)

    fields.check(Plain("a", True, {"x": "y"}))
    with pytest.raises(UserError, match=r"^at\.text=3: expected str, got int"):
        fields.check(Plain(3), "at.")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "field",
    [
        "data.path",
        "data.task_file",
        "instruct.path",
        "assistant.checkpoint",
        "student.checkpoint",
        "teacher.replay_from",
        "budget.ledger",
    ],
)
@pytest.mark.parametrize(
    "place", ["gs://bucket/x", "s3://bucket/x", "file:///x", "hf://datasets/x"]
)
def test_a_place_that_cannot_be_read_yet_is_refused_with_the_way_out(field, place):
    config = config_io.override(RunConfig(), [f"{field}={place}"])
    scheme = place.split("//")[0] + "//"
    with pytest.raises(
        UserError, match=rf"{field}={place}: a local path, since {scheme} cannot be"
    ):
        fields.check(config)
