"""For every field of the config: the stages that run again when it changes, and no others."""

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bridge_jax import methods
from bridge_jax.config import (
    CONTROLS,
    DataConfig,
    GenerationConfig,
    InstructConfig,
    LogitsConfig,
    LoraConfig,
    ModelConfig,
    RationalesConfig,
    RunConfig,
    SelectionConfig,
    TeacherConfig,
    ThinkingConfig,
    TrainConfig,
    WarmupConfig,
)
from bridge_jax.data import sources
from bridge_jax.methods.budget_tests import OF_CONTROL
from bridge_jax.methods.inputs import TEST, Inputs
from bridge_jax.pipeline.content import Hashes
from bridge_jax.pipeline.stages import deep_keys

ALL_DEVICES = True  # It cuts meshes of eight; see conftest.py.

WARMUP, PSEUDO_LABELS = "apprenticeship/warmup", "apprenticeship/pseudo_labels"
SCORES, GRADIENTS = "apprenticeship/scores", "apprenticeship/gradients"
SELECTION, ANNOTATIONS = "apprenticeship/selection", "apprenticeship/annotations"
ASSISTANT, INSTRUCT = "apprenticeship/assistant", "tutoring/instruct"
COMPLETIONS, SAMPLES = "tutoring/completions", "tutoring/samples"
RETRIES = "tutoring/retries"
RATIONALES, LOGITS = "tutoring/rationales", "tutoring/logits"
STUDENT, DIRECT = "tutoring/student", "baselines/direct"
BY_LABELS = "baselines/labels"
ASKED, WRITTEN, BUDGETED = "budgets/asked", "budgets/written", "budgets/student"
REINFORCED = "budgets/reinforced"
ON_POLICY = "tutoring/on_policy"
OF_ASSISTANT = ("evaluation/assistant_base", "evaluation/assistant")
OF_STUDENT = tuple(
    f"evaluation/{name}"
    for name in ("student_base", "student_instruct", "student_direct", "student_labels", "student")
)
OF_LABELS = "evaluation/student_labels"
TESTS = (*OF_STUDENT, *OF_ASSISTANT)
READ_BY_ASSISTANT = (WARMUP, SCORES, GRADIENTS, ASSISTANT, COMPLETIONS, RETRIES, LOGITS)
READ_BY_ASSISTANT += OF_ASSISTANT
READ_BY_STUDENT = (INSTRUCT, SAMPLES, STUDENT, DIRECT, BY_LABELS, LOGITS, *OF_STUDENT)
OF_POOL = (
    *(WARMUP, SCORES, GRADIENTS, SELECTION, ANNOTATIONS, ASSISTANT, COMPLETIONS, SAMPLES),
    *(RETRIES, RATIONALES, LOGITS, STUDENT, DIRECT, BY_LABELS),
)
OF_GENERATION = (COMPLETIONS, RETRIES, SAMPLES, *TESTS)
HELD_OUT, HELD_OUT_DEV = "apprenticeship/held_out", "apprenticeship/held_out_dev"
DEV_COMPLETIONS, THRESHOLD = "tutoring/dev_completions", "tutoring/threshold"
NOTHING = ()

# Field -> (another value, the stages that read it). What follows those in turn is found below.
# Of trainings, one stands for all.
FIELDS = {
    "name": ("other", NOTHING),
    # One that learned labels is asked for the answer in either form.
    "form": ("two_pass", (LOGITS, STUDENT, DIRECT, *(set(OF_STUDENT) - {OF_LABELS}))),
    "seed": (1, (*OF_POOL, INSTRUCT, *TESTS)),
    "max_prompt_tokens": (144, (*READ_BY_ASSISTANT, *READ_BY_STUDENT)),
    "on_long_prompt": ("cut_beginning", (*READ_BY_ASSISTANT, *READ_BY_STUDENT)),
    "curves": (("tensorboard",), NOTHING),
    "data.rationale": ("long", (ANNOTATIONS,)),
    "data.pool": (25, OF_POOL),
    # Practice tasks are drawn one after the other: another number is other tasks in all splits.
    "data.dev": (3, OF_POOL),
    "data.test": (9, (*OF_POOL, *TESTS)),
    "data.labelled": (
        False,
        (SCORES, GRADIENTS, SELECTION, ASSISTANT, COMPLETIONS, RETRIES, DIRECT),
    ),
    "data.instruction": ("Say it.", (*OF_POOL, *TESTS)),
    "data.on_bad_row": ("skip", NOTHING),
    "data.max_steps": (2, (*OF_POOL, *TESTS)),
    "data.families": (20, (*OF_POOL, *TESTS)),
    "data.different_values": (4, (*OF_POOL, *TESTS)),
    "budget.queries": (8, (SELECTION,)),
    "budget.usd": (2.0, NOTHING),
    "teacher.model": ("another", (ANNOTATIONS,)),
    "teacher.base_url": ("http://127.0.0.1:1/v1", NOTHING),  # It has a server if it is an API.
    "teacher.allow_http": (True, NOTHING),
    "teacher.usd_per_million_input": (2.0, NOTHING),
    "teacher.usd_per_million_output": (2.0, NOTHING),
    "teacher.free": (True, NOTHING),
    "teacher.batch": (True, NOTHING),
    "teacher.batch_share": (0.7, NOTHING),
    "teacher.batch_poll_seconds": (9.0, NOTHING),
    "teacher.concurrency": (3, NOTHING),
    "teacher.requests_per_minute": (60, NOTHING),
    "teacher.tokens_per_minute": (1000, NOTHING),
    "teacher.timeout": (9.0, NOTHING),
    "teacher.samples": (2, (SELECTION, ANNOTATIONS)),
    "selection.size": (5, (SELECTION,)),
    "selection.within_labels": (False, (SELECTION,)),
    "selection.clusters": (2, (SELECTION,)),
    "selection.difficulty": ("entropy", (SELECTION,)),
    "selection.difficulty_weight": (0.2, (SELECTION,)),
    "selection.noise_fraction": (0.1, (SELECTION,)),
    "selection.batch_tokens": (999, NOTHING),
    "assistant.attention": ("plain", NOTHING),
    "assistant.matmul": ("bfloat16", READ_BY_ASSISTANT),
    "assistant.lora.rank": (2, READ_BY_ASSISTANT),
    "student.keep_layers": ((0, 1), READ_BY_STUDENT),
    "student.attention": ("plain", NOTHING),
    "student.matmul": ("bfloat16", READ_BY_STUDENT),
    "warmup.fraction": (0.5, (WARMUP,)),
    "warmup.domains": (("samples",), (WARMUP,)),
    "warmup.train.epochs": (2, (WARMUP,)),
    "assistant_training.epochs": (2, (ASSISTANT,)),
    "instruct.examples": (5, (INSTRUCT,)),
    "instruct.train.epochs": (2, (INSTRUCT,)),
    "instruct.train.row_tokens": (512, (INSTRUCT,)),
    "rationales.filter": ("none", (RETRIES, RATIONALES, LOGITS, STUDENT)),
    "rationales.show_gold": (False, (ASSISTANT, COMPLETIONS, RETRIES, LOGITS)),
    "rationales.min_mean_logprob": (-9.0, (RETRIES, RATIONALES)),
    "rationales.min_step_logprob": (-9.0, (RETRIES, RATIONALES)),
    "rationales.retries": (3, (RETRIES,)),
    "rationales.retry_temperature": (0.3, (RETRIES,)),
    "rationales.samples": (3, (SAMPLES,)),
    "rationales.temperature": (0.3, (SAMPLES,)),
    "rationales.min_agreement": (0.9, (RETRIES, RATIONALES)),
    "rationales.corruption": (0.2, (RATIONALES,)),
    "rationales.corruption_kind": ("wrong_reasoning", (RATIONALES,)),
    "logits.weight": (0.25, (STUDENT,)),
    "logits.top_k": (4, (LOGITS,)),
    "student_training.epochs": (2, (STUDENT,)),
    "generation.max_new_tokens": (5, OF_GENERATION),
    "generation.batch_size": (3, OF_GENERATION),
    "generation.temperature": (0.5, (COMPLETIONS, *TESTS)),  # Samples have one of their own.
    "generation.top_p": (0.9, OF_GENERATION),
    "generation.cache": ("int8", OF_GENERATION),
    "evaluation.assistant_examples": (2, OF_ASSISTANT),
    "evaluation.student_before": (False, NOTHING),
    "evaluation.student_dev": (True, NOTHING),
    "evaluation.least_confidence": (0.9, NOTHING),
    "mesh.data": (2, NOTHING),
    "mesh.fsdp": (8, NOTHING),
    "mesh.tensor": (2, NOTHING),
    "mesh.generation_tensor": (2, NOTHING),
}
SPEED_OF_TRAINING = {"checkpoint_every": 7, "remat": "none"}
TRAINING = {
    "epochs": 2,
    "steps": 5,
    "batch_rows": 4,
    "row_tokens": 512,
    "accumulate": 2,
    "ema_decay": 0.9,
    "dev_every": 2,
    "dev_metric": "accuracy",
    "keep_best": True,
    "patience": 2,
    "learning_rate": 0.1,
    "warmup_fraction": 0.5,
    "weight_decay": 0.5,
    "clip_norm": 2.0,
    "rationale_weight": 0.9,
}
TRAININGS = {
    "warmup.train": WARMUP,
    "assistant_training": ASSISTANT,
    "instruct.train": INSTRUCT,
    "student_training": STUDENT,
    "direct_training": DIRECT,
    "labels_training": BY_LABELS,
}
for key, stage in TRAININGS.items():
    FIELDS |= {f"{key}.{name}": (value, (stage,)) for name, value in TRAINING.items()}
    FIELDS |= {f"{key}.{name}": (value, NOTHING) for name, value in SPEED_OF_TRAINING.items()}
# Of the rounds, which are in a test of their own.
ROUND_TRAINING = {f"round_training.{name}": value for name, value in TRAINING.items()}
FIELDS |= {name: (value, NOTHING) for name, value in ROUND_TRAINING.items()}
FIELDS |= {f"round_training.{n}": (value, NOTHING) for n, value in SPEED_OF_TRAINING.items()}
for role, readers in (("assistant", READ_BY_ASSISTANT), ("student", READ_BY_STUDENT)):
    lora = {"rank": 2, "alpha": 3.0, "dropout": 0.5, "targets": ("mlp/*",), "rslora": True}
    lora["base"] = "int8"
    FIELDS |= {f"{role}.lora.{name}": (value, readers) for name, value in lora.items()}
FIELDS["assistant.keep_layers"] = ((0, 1), READ_BY_ASSISTANT)
# What the teacher says depends on it.
FIELDS |= {
    f"teacher.{name}": (value, (ANNOTATIONS,))
    for name, value in {
        "backend": "google-generativeai",
        "max_output_tokens": 99,
        "temperature": 1.0,
        "attempts": 2,
        "structured": False,
        "show_gold": True,
        "reasoning": "long",
        "retries": 1,
        "keep_wrong": True,
        "min_agreement": 0.5,
        "min_rationale_tokens": 1,
        "max_rationale_tokens": 99,
    }.items()
}
# Of a practice run; what a file changes is below.
FIELDS |= {
    "data.domains": (("fees",), (*OF_POOL, *TESTS)),
    "data.kind": ("text", (*OF_POOL, *TESTS)),
    "data.choices": (("a", "b"), NOTHING),
    "data.answer_is": ("text", NOTHING),
    "data.decimal": (",", NOTHING),
    "data.min_rouge": (0.9, NOTHING),
    "data.path": ("rows.jsonl", NOTHING),
    "data.test_path": ("more.jsonl", NOTHING),
    "data.columns": ({"question": "text"}, NOTHING),
    "data.splits": ({"train": "train"}, NOTHING),
    "data.test_share": (0.3, NOTHING),  # Of files, whose rows are known by their content.
    "data.dev_share": (0.3, NOTHING),
    "budget.ledger": ("other.sqlite", NOTHING),
    "instruct.path": ("rows.jsonl", NOTHING),
    "instruct.columns": ({"question": "text"}, NOTHING),
    "instruct.on_bad_row": ("skip", NOTHING),
}
# What method=bard reads of `thinking`, after method=direct; other methods read nothing.
BUDGETS = tuple(artifact.name for artifact in OF_CONTROL.values())
TAUGHT = ("stated", "reinforced", "capped")
CUT = tuple(OF_CONTROL[control].name for control in CONTROLS if control != "stated")
THINKING: dict[str, tuple[Any, tuple[str, ...]]] = {
    "levels": ((4, 8), (ASKED, REINFORCED, *BUDGETS)),
    "least": (0.2, (ASKED,)),
    "most": (1.5, (ASKED,)),
    "tries": (2, (ASKED,)),
    "unstated": (False, (BUDGETED,)),
    # A student that learned from the answers before writes plain replies.
    "form": ("tags", (BUDGETED, REINFORCED, *(OF_CONTROL[name].name for name in TAUGHT))),
    "controls": (("stated", "capped"), NOTHING),
    "closing": ("Enough.", CUT),
    "waiting": (" Hm,", (OF_CONTROL["forced"].name,)),
    "extensions": (2, (OF_CONTROL["forced"].name,)),
    "leading": ("Well,", (OF_CONTROL["triggered"].name,)),
    "samples": (2, (OF_CONTROL["sampled"].name,)),
    "temperature": (0.3, (OF_CONTROL["sampled"].name,)),
    "answer_tokens": (9, (REINFORCED, *BUDGETS)),
    "repeats": (3, BUDGETS),
    **{f"train.{name}": (value, (BUDGETED,)) for name, value in TRAINING.items()},
    **{f"train.{name}": (value, NOTHING) for name, value in SPEED_OF_TRAINING.items()},
}
FIELDS |= {f"thinking.{name}": (value, NOTHING) for name, (value, _) in THINKING.items()}
# What it reads of `reinforcement`.
REINFORCEMENT: dict[str, tuple[Any, tuple[str, ...]]] = {
    "groups": (3, (REINFORCED,)),
    "tries": (2, (REINFORCED,)),
    "samples": (3, (REINFORCED,)),
    "reward": ("added", (REINFORCED,)),
    "temperature": (0.5, (REINFORCED,)),
    "clip_low": (0.1, (REINFORCED,)),
    "clip_high": (0.1, (REINFORCED,)),
    "kl": (0.1, (REINFORCED,)),
    "levels": ((4,), NOTHING),  # All there are.
    "most_drift": (0.1, NOTHING),
    "most_kl": (0.1, NOTHING),
    "least_entropy": (0.1, NOTHING),
    "least_compliance": (0.5, NOTHING),
    "least_spread": (0.0, NOTHING),
    "limit_steps": (3, NOTHING),
    **{f"train.{name}": (value, (REINFORCED,)) for name, value in TRAINING.items()},
    **{f"train.{name}": (value, NOTHING) for name, value in SPEED_OF_TRAINING.items()},
}
FIELDS |= {f"reinforcement.{name}": (value, NOTHING) for name, (value, _) in REINFORCEMENT.items()}
# What method=on_policy reads of `on_policy`; other methods read nothing.
ON_POLICY_FIELDS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "on_policy.questions": (3, (ON_POLICY,)),
    "on_policy.temperature": (0.5, (ON_POLICY,)),
    "on_policy.top_k": (8, (ON_POLICY,)),
    **{f"on_policy.train.{name}": (value, (ON_POLICY,)) for name, value in TRAINING.items()},
    **{f"on_policy.train.{name}": (value, NOTHING) for name, value in SPEED_OF_TRAINING.items()},
}
FIELDS |= {name: (value, NOTHING) for name, (value, _) in ON_POLICY_FIELDS.items()}
# What each of these does is in a test of its own.
ALONE = {
    "thinking.after": "test_budgets_come_after_the_training_of_another_method",
    "thinking.shortened_by": "test_budgets_come_after_the_training_of_another_method",
    "method": "test_methods_share_what_they_do_alike",
    "compare": "test_methods_share_what_they_do_alike",
    "reinforcement.questions": "test_which_questions_are_asked_depends_on_the_selection",
    "rationales.rounds": "test_a_round_comes_before_what_the_student_learns",
    "selection.strategy": "test_another_strategy_changes_the_selection_and_leaves_the_scores",
    "selection.parts": "test_parts_change_the_selection_and_leave_the_scores",
    "selection.drafts": "test_parts_change_the_selection_and_leave_the_scores",
    "teacher.kind": "test_another_kind_of_teacher_is_asked_anew",
    "teacher.replay_from": "test_a_replay_is_known_by_its_content",
    "data.source": "test_where_data_lie_does_not_matter",
    "data.config": "test_a_part_of_a_dataset_is_known_by_its_rows",
    "data.revision": "test_a_part_of_a_dataset_is_known_by_its_rows",
    "data.label_descriptions": "test_how_data_are_read_matters_by_what_is_read",
    "data.task_file": "test_where_data_lie_does_not_matter",
    "data.min_steps": "test_steps_of_reasoning_are_those_of_the_questions",
    "assistant.checkpoint": "test_weights_are_known_by_their_content",
    "student.checkpoint": "test_weights_are_known_by_their_content",
    "rationales.rejected": "test_what_the_student_learns_of_rejected_rationales",
    "rationales.least_right": "test_what_is_held_out_changes_no_training",
    "evaluation.teacher_dev": "test_what_is_held_out_changes_no_training",
    "evaluation.teacher_test": "test_what_is_held_out_changes_no_training",
    "instruct.source": "test_instructions_of_a_file_are_known_by_their_content",
}


@pytest.fixture(scope="module")
def base(checkpoint):
    """A run that has every stage but the pseudo-labels and the rounds."""
    train = TrainConfig(row_tokens=256)
    return RunConfig(
        compare=("direct", "labels"),
        data=DataConfig(pool=24, dev=2, test=8, max_steps=1, rationale="short"),
        budget=dataclasses.replace(RunConfig().budget, queries=10),
        assistant=ModelConfig(str(checkpoint), lora=LoraConfig(rank=4)),
        student=ModelConfig(str(checkpoint), keep_layers=(0, 2)),
        warmup=WarmupConfig(0.25, train),
        selection=SelectionConfig(strategy="badge"),
        instruct=InstructConfig(8, train),
        assistant_training=train,
        student_training=train,
        direct_training=train,
        labels_training=train,
        rationales=RationalesConfig(filter="consistency", retries=2),
        logits=LogitsConfig(weight=0.5, top_k=8),
        generation=GenerationConfig(max_new_tokens=4, batch_size=8),
    )


def keys_of(config, tmp_path, hashes=None):
    inputs = Inputs(config, tmp_path, None, hashes or Hashes())
    return deep_keys(methods.stages(config), inputs.table)


KNOWN: list[tuple[RunConfig, Any]] = []  # Configs of which many tests change one field.


def known(config):
    """Returns the keys of a config, which are found once."""
    if not any(config == each for each, _ in KNOWN):
        KNOWN.append((config, keys_of(config, Path())))
    return next(keys for each, keys in KNOWN if config == each)


def changed(before, after):
    return {name for name in before.keys() & after.keys() if before[name] != after[name]}


def and_what_follows(config, readers):
    """Returns `readers` and the stages that read what they leave, and so on."""
    found = set(readers)
    for stage in methods.stages(config):
        if found & set(stage.reads.values()):
            found.add(stage.name)
    return found


def leaves(config, prefix=""):
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def with_value(config, key, value):
    first, _, rest = key.partition(".")
    if rest:
        value = with_value(getattr(config, first), rest, value)
    return dataclasses.replace(config, **{first: value})


def test_every_field_is_in_the_table():
    assert set(leaves(RunConfig())) == FIELDS.keys() | ALONE.keys()
    assert not FIELDS.keys() & ALONE.keys()
    assert set(ALONE.values()) <= globals().keys()


@pytest.fixture(scope="module")
def budgeted(base):
    """A run with every stage of training at budgets."""
    how = ThinkingConfig((4,), "direct", controls=CONTROLS)
    return dataclasses.replace(base, method="bard", thinking=how, logits=LogitsConfig(), compare=())


OF_BUDGETS = {f"thinking.{name}": found for name, found in THINKING.items()} | {
    f"reinforcement.{name}": found for name, found in REINFORCEMENT.items()
}


@pytest.mark.parametrize("field", OF_BUDGETS)
def test_a_field_of_training_at_budgets_is_read_by(budgeted, tmp_path, field):
    value, readers = OF_BUDGETS[field]
    other = with_value(budgeted, field, value)
    assert other != budgeted
    expected = and_what_follows(budgeted, readers)
    assert changed(known(budgeted), keys_of(other, tmp_path)) == expected


def test_which_questions_are_asked_depends_on_the_selection(budgeted, tmp_path):
    other = with_value(budgeted, "reinforcement.questions", "unselected")
    expected = and_what_follows(budgeted, (REINFORCED,))
    assert changed(keys_of(budgeted, tmp_path), keys_of(other, tmp_path)) == expected
    again = with_value(other, "selection.size", 5)
    assert REINFORCED in changed(keys_of(other, tmp_path), keys_of(again, tmp_path))


@pytest.mark.parametrize("field", ON_POLICY_FIELDS)
def test_a_field_of_on_policy_distillation_is_read_by(base, tmp_path, field):
    value, readers = ON_POLICY_FIELDS[field]
    config = dataclasses.replace(base, method="on_policy")
    other = with_value(config, field, value)
    expected = and_what_follows(config, readers)
    assert changed(known(config), keys_of(other, tmp_path)) == expected


def test_budgets_come_after_the_training_of_another_method(budgeted, tmp_path):
    before = keys_of(dataclasses.replace(budgeted, method="direct"), tmp_path)
    here = keys_of(budgeted, tmp_path)
    # Tests of models that are as they were before are not repeated.
    assert before.keys() - here.keys() == {OF_STUDENT[0], OF_STUDENT[1]}
    differ = changed(before, here)
    assert differ == {OF_STUDENT[-1]}, "the student that is tested is another"
    alone = keys_of(with_value(budgeted, "thinking.after", ""), tmp_path)
    assert STUDENT not in alone and changed(here, alone) >= {BUDGETED}
    by_assistant = keys_of(with_value(budgeted, "thinking.shortened_by", "assistant"), tmp_path)
    assert ASKED not in by_assistant and WRITTEN in by_assistant
    assert changed(here, by_assistant) == and_what_follows(budgeted, (BUDGETED,))


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_is_read_by(base, tmp_path, field):
    value, readers = FIELDS[field]
    other = with_value(base, field, value)
    assert other != base
    expected = and_what_follows(base, readers)
    assert changed(known(base), keys_of(other, tmp_path)) == expected


def test_what_the_student_learns_of_rejected_rationales(base, tmp_path):
    for kind, readers in (("gold", (LOGITS, STUDENT)), ("none", NOTHING)):
        config = with_value(base, "rationales.filter", kind)
        other = with_value(config, "rationales.rejected", "nothing")
        found = changed(keys_of(config, tmp_path), keys_of(other, tmp_path))
        assert found == and_what_follows(config, readers)


def test_another_strategy_changes_the_selection_and_leaves_the_scores(base, tmp_path):
    other = with_value(base, "selection.strategy", "coverage")
    expected = and_what_follows(base, [SELECTION])
    assert changed(keys_of(base, tmp_path), keys_of(other, tmp_path)) == expected


def test_parts_change_the_selection_and_leave_the_scores(base, tmp_path):
    other = with_value(base, "selection.parts", 3)
    expected = and_what_follows(base, [SELECTION])
    assert changed(keys_of(base, tmp_path), keys_of(other, tmp_path)) == expected
    more = with_value(other, "selection.drafts", 2)
    drafts = [f"apprenticeship/drafts_part_{number}" for number in (1, 2)]
    expected = and_what_follows(other, drafts)
    assert changed(keys_of(other, tmp_path), keys_of(more, tmp_path)) == expected
    alone = with_value(base, "selection.drafts", 2)
    assert keys_of(alone, tmp_path) == keys_of(base, tmp_path)


def test_another_kind_of_teacher_is_asked_anew(base, tmp_path):
    other = dataclasses.replace(base, teacher=TeacherConfig("openai", "gpt-x", free=True))
    expected = and_what_follows(base, [ANNOTATIONS])
    assert changed(keys_of(base, tmp_path), keys_of(other, tmp_path)) == expected


def test_steps_of_reasoning_are_those_of_the_questions(base, tmp_path):
    longer = with_value(base, "data.max_steps", 2)
    other = with_value(longer, "data.min_steps", 2)
    expected = and_what_follows(base, (*OF_POOL, *TESTS))
    assert changed(keys_of(longer, tmp_path), keys_of(other, tmp_path)) == expected


def test_methods_share_what_they_do_alike(base, tmp_path):
    bridge = keys_of(base, tmp_path)
    direct = keys_of(with_value(base, "method", "direct"), tmp_path)
    alike = {WARMUP, SCORES, GRADIENTS, SELECTION, ANNOTATIONS, INSTRUCT, *OF_STUDENT[:2]}
    assert {name for name in direct if direct[name] == bridge.get(name)} == alike
    # Of another name, but the same training.
    assert direct[STUDENT] != bridge[STUDENT]
    unlogged = with_value(base, "logits.weight", 0.0)
    own = with_value(with_value(unlogged, "method", "self"), "data.labelled", True)
    assert keys_of(own, tmp_path)[WARMUP] == bridge[WARMUP]
    without = keys_of(with_value(base, "compare", ("labels",)), tmp_path)
    assert bridge.keys() - without.keys() == {DIRECT, "evaluation/student_direct"}
    assert not changed(bridge, without)
    without = keys_of(with_value(base, "compare", ("direct",)), tmp_path)
    assert bridge.keys() - without.keys() == {BY_LABELS, "evaluation/student_labels"}
    assert not changed(bridge, without)


def test_a_round_comes_before_what_the_student_learns(base, tmp_path):
    rounds = [with_value(base, "rationales.rounds", count) for count in (1, 2)]
    none, one, two = (keys_of(config, tmp_path) for config in (base, *rounds))
    of_round = ("completions", "retries", "rationales", "assistant")
    assert one.keys() - none.keys() == {f"apprenticeship/{name}_1" for name in of_round}
    assert two.keys() - one.keys() == {f"apprenticeship/{name}_2" for name in of_round}
    expected = {COMPLETIONS, RETRIES, RATIONALES, LOGITS, STUDENT, OF_ASSISTANT[1], OF_STUDENT[-1]}
    assert changed(none, one) == changed(one, two) == expected
    for field, value in ROUND_TRAINING.items():
        other = keys_of(with_value(rounds[0], field, value), tmp_path)
        assert changed(one, other) == expected | {"apprenticeship/assistant_1"}


def test_what_is_held_out_changes_no_training(base, tmp_path):
    confident = with_value(with_value(base, "rationales.filter", "confidence"), "budget.queries", 4)
    sized = with_value(confident, "selection.size", 1)
    tested = with_value(sized, "evaluation.teacher_test", 2)
    before, after = keys_of(sized, tmp_path), keys_of(tested, tmp_path)
    assert changed(before, after) == set(TESTS)
    assert after.keys() - before.keys() == {HELD_OUT}
    # What is left of the queries is selected, unless a size is given.
    unsized = with_value(tested, "selection.size", 0)
    assert changed(after, keys_of(unsized, tmp_path)) == and_what_follows(tested, [SELECTION])
    chosen = with_value(sized, "rationales.least_right", 0.8)
    with_threshold = keys_of(chosen, tmp_path)
    assert with_threshold.keys() - before.keys() == {DEV_COMPLETIONS, THRESHOLD}
    expected = and_what_follows(sized, [RETRIES, RATIONALES])
    assert changed(before, with_threshold) == expected
    higher = keys_of(with_value(chosen, "rationales.least_right", 0.9), tmp_path)
    assert changed(with_threshold, higher) == expected | {THRESHOLD}
    bought = keys_of(with_value(chosen, "evaluation.teacher_dev", 2), tmp_path)
    assert changed(with_threshold, bought) == expected | {THRESHOLD}
    assert bought.keys() - with_threshold.keys() == {HELD_OUT_DEV}


def test_an_api_is_known_by_its_server(base, tmp_path):
    api = dataclasses.replace(base, teacher=TeacherConfig("openai", "gpt-x", free=True))
    own = with_value(api, "teacher.base_url", "https://api.openai.com/v1/")
    other = with_value(api, "teacher.base_url", "https://elsewhere.example/v1")
    before = keys_of(api, tmp_path)
    assert not changed(before, keys_of(own, tmp_path))
    assert changed(before, keys_of(other, tmp_path)) == and_what_follows(api, [ANNOTATIONS])


LABELS = ("late", "lost")


def rows(pool=8, test=4, dev=2, question="Where is my order {}?"):
    splits = ["train"] * pool + ["dev"] * dev + ["test"] * test
    return [
        {"id": f"r{i}", "question": question.format(i), "answer": LABELS[i % 2], "split": split}
        | {"rationale": f"Since {i}."}
        for i, split in enumerate(splits)
    ]


def write_rows(path, found):
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return str(path)


@pytest.fixture
def of_file(base, tmp_path):
    """A run on a JSONL file, with a recorded teacher, and a function that changes the file."""
    path = tmp_path / "rows.jsonl"
    data = DataConfig("jsonl", write_rows(path, rows()), kind="label", choices=LABELS)
    data = dataclasses.replace(data, instruction="Late or lost?", rationale="rationale")
    teacher = TeacherConfig(kind="replay")
    budget = dataclasses.replace(base.budget, queries=4)
    return dataclasses.replace(base, data=data, teacher=teacher, budget=budget)


def test_a_part_of_a_dataset_is_known_by_its_rows(of_file, tmp_path, monkeypatch):
    """`config` chooses a part, `revision` a version of it: here both have the same rows."""
    pytest.importorskip("datasets")
    folder = tmp_path / "dataset"
    folder.mkdir()
    for name, question in (("one", "Where is {}?"), ("two", "Where is {}?"), ("else", "When? {}")):
        (folder / name).mkdir()
        write_rows(folder / name / "train.jsonl", rows(question=question))
    parts = "".join(
        f"- config_name: {name}\n  data_files: {name}/train.jsonl\n"
        for name in ("one", "two", "else")
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{parts}---\n")
    data = dataclasses.replace(of_file.data, source="hf", path=str(folder), config="one")
    config = dataclasses.replace(of_file, data=data)
    before = keys_of(config, tmp_path)
    assert not changed(before, keys_of(with_value(config, "data.config", "two"), tmp_path))
    read = sources.read_dataset

    def unversioned(config, part):  # A version is the hub's: here it has these rows.
        return read(dataclasses.replace(config, revision=""), part)

    monkeypatch.setattr(sources, "read_dataset", unversioned)
    assert not changed(before, keys_of(with_value(config, "data.revision", "main"), tmp_path))
    monkeypatch.undo()
    expected = and_what_follows(of_file, (*OF_POOL, *TESTS))
    other = with_value(config, "data.config", "else")
    assert changed(before, keys_of(other, tmp_path)) == expected


def another(row, **change):
    return row | change


DATA = {
    "the same rows written again": (lambda found: list(found), NOTHING),
    "the keys in another order": (
        lambda found: [dict(reversed(row.items())) for row in found],
        NOTHING,
    ),
    "one more test row": (
        lambda found: [*found, another(found[-1], id="new", question="?")],
        TESTS,
    ),
    "a test row corrected": (lambda found: [*found[:-1], another(found[-1], answer="late")], TESTS),
    "a dev row corrected": (
        lambda found: [
            row | {"question": "How?"} if row["split"] == "dev" and row["id"] == "r8" else row
            for row in found
        ],
        NOTHING,
    ),
    "a recorded rationale corrected": (
        lambda found: [another(found[0], rationale="Thus."), *found[1:]],
        (ANNOTATIONS,),
    ),
    "a question of the pool corrected": (
        lambda found: [another(found[0], question="When?"), *found[1:]],
        OF_POOL,
    ),
}


@pytest.mark.parametrize("change", DATA)
def test_data_are_known_by_their_content(of_file, tmp_path, change):
    edit, readers = DATA[change]
    before = keys_of(of_file, tmp_path)
    write_rows(tmp_path / "rows.jsonl", edit(rows()))
    expected = and_what_follows(of_file, readers)
    assert changed(before, keys_of(of_file, tmp_path)) == expected


def test_where_data_lie_does_not_matter(of_file, tmp_path):
    moved = write_rows(tmp_path / "moved.jsonl", rows())
    other = with_value(of_file, "data.path", moved)
    assert not changed(keys_of(of_file, tmp_path), keys_of(other, tmp_path))
    if importlib.util.find_spec("datasets"):
        by_library = with_value(other, "data.source", "hf")
        assert not changed(keys_of(of_file, tmp_path), keys_of(by_library, tmp_path))
    said = tmp_path / "task.toml"
    said.write_text('instruction = "Late or lost?"\n')
    other = with_value(with_value(of_file, "data.instruction", ""), "data.task_file", str(said))
    assert not changed(keys_of(of_file, tmp_path), keys_of(other, tmp_path))
    said.write_text('instruction = "Lost or late?"\n')
    expected = and_what_follows(of_file, (*OF_POOL, *TESTS))
    assert changed(keys_of(of_file, tmp_path), keys_of(other, tmp_path)) == expected


def test_rows_of_a_test_file_are_known_by_their_content(of_file, tmp_path):
    (tmp_path / "test").mkdir()
    others = [row for row in rows() if row["split"] != "test"]
    tested = [row | {"split": ""} for row in rows() if row["split"] == "test"]
    apart = with_value(of_file, "data.path", write_rows(tmp_path / "rest.jsonl", others))
    place = write_rows(tmp_path / "test/rest.jsonl", tested)
    apart = with_value(apart, "data.test_path", place)
    before = keys_of(apart, tmp_path)
    assert not changed(keys_of(of_file, tmp_path), before)
    write_rows(tmp_path / "test/rest.jsonl", [row | {"question": "How?"} for row in tested[:1]])
    assert changed(before, keys_of(apart, tmp_path)) == and_what_follows(of_file, TESTS)
    inputs = Inputs(apart, tmp_path, None, Hashes())
    assert set(inputs.table[TEST].files()) == {"rest.jsonl", "test_path/rest.jsonl"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data.columns", {"question": "other"}),
        ("data.decimal", ","),
        ("data.choices", ("late", "lost", "other")),
        ("data.label_descriptions", {"late": "It comes."}),
        ("data.splits", {"train": "train", "test": "test"}),
    ],
)
def test_how_data_are_read_matters_by_what_is_read(of_file, tmp_path, field, value):
    found = [row | {"other": row["question"] + "?"} for row in rows()]
    write_rows(tmp_path / "rows.jsonl", found)
    other = with_value(of_file, field, value)
    changes = changed(keys_of(of_file, tmp_path), keys_of(other, tmp_path))
    same = field == "data.splits"  # Only dev is left out, which no stage reads.
    expected = NOTHING if same else and_what_follows(of_file, (*OF_POOL, *TESTS))
    assert changes == set(expected)


def test_weights_are_known_by_their_content(of_file, checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    file = tmp_path / "hashes.json"
    other = with_value(of_file, "student.checkpoint", str(folder))
    before = keys_of(of_file, tmp_path)
    assert not changed(before, keys_of(other, tmp_path, Hashes(file)))
    (weights,) = folder.glob("*.safetensors")
    data, stat = bytearray(weights.read_bytes()), weights.stat()
    data[-1] ^= 1
    weights.write_bytes(data)  # of the same size
    after = keys_of(other, tmp_path, Hashes(file))
    assert weights.stat().st_size == stat.st_size
    # What only renders text for it, or counts its tokens, does not read the weights.
    assert changed(before, after) == and_what_follows(of_file, READ_BY_STUDENT)
    assert ANNOTATIONS not in changed(before, after)


def test_a_tokenizer_is_known_by_its_content(of_file, checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"note": 1}))
    other = with_value(of_file, "student.checkpoint", str(folder))
    changes = changed(keys_of(of_file, tmp_path), keys_of(other, tmp_path))
    assert changes == and_what_follows(of_file, (ANNOTATIONS, *READ_BY_STUDENT))


def test_instructions_of_a_file_are_known_by_their_content(of_file, tmp_path):
    path = tmp_path / "instructions.jsonl"
    found = [{"question": f"Say {i}.", "answer": f"{i}"} for i in range(9)]
    write_rows(path, found)
    chosen = dataclasses.replace(of_file.instruct, source="jsonl", path=str(path))
    config = dataclasses.replace(of_file, instruct=chosen)
    before = keys_of(config, tmp_path)
    moved = with_value(config, "instruct.path", write_rows(tmp_path / "moved.jsonl", found))
    assert not changed(before, keys_of(moved, tmp_path))
    write_rows(path, [*found[:-1], {"question": "Say more.", "answer": "more"}])
    expected = and_what_follows(config, [INSTRUCT])
    assert changed(before, keys_of(config, tmp_path)) == expected
    renamed = with_value(config, "instruct.columns", {"question": "question"})
    assert not changed(keys_of(config, tmp_path), keys_of(renamed, tmp_path))


def test_a_replay_is_known_by_its_content(of_file, tmp_path):
    path = tmp_path / "answers.jsonl"
    write_rows(path, [{"id": "r0", "reply": "Thus.\nAnswer: late"}])
    config = with_value(of_file, "teacher.replay_from", str(path))
    before = keys_of(config, tmp_path)
    moved = tmp_path / "moved.jsonl"
    shutil.copy(path, moved)
    other = with_value(config, "teacher.replay_from", str(moved))
    assert not changed(before, keys_of(other, tmp_path))
    write_rows(path, [{"id": "r0", "reply": "So.\nAnswer: late"}])
    expected = and_what_follows(config, [ANNOTATIONS])
    assert changed(before, keys_of(config, tmp_path)) == expected
