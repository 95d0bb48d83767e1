"""The proposed config: its lengths, its budget, and that it reads and runs as it was written."""

import dataclasses
import shutil
import subprocess

import numpy as np
import pytest

from bridge_jax.config import DataConfig, LoraConfig, ModelConfig, RunConfig
from bridge_jax.config import io as config_io
from bridge_jax.data.example import Example, Splits
from bridge_jax.methods.checks import validate
from bridge_jax.planning import proposal

DATA = DataConfig(
    source="csv",
    path='tick\'ets "2026"\n.csv',
    columns={"question": 'the "text" of it\'s customer', "answer": "team"},
    kind="label",
    choices=("billing", 'the "other" one', "it's", "ünï\u2028code", "back\\slash"),
)
POOL = tuple(
    Example(f"e{i}", "I wait. " * (1 + i % 9), "billing", "label", DATA.choices) for i in range(200)
)
SPLITS = Splits(POOL, POOL[:20], POOL[:40])


@pytest.mark.parametrize(
    ("lengths", "most"),
    [
        ([100] * 90 + [150] * 10, 152),
        ([100] * 97 + [150, 900, 2_000], 152),  # A few are far longer than all others.
        ([100] * 80 + [900] * 20, 904),  # Too many to cut.
        ([10] * 50, 64),
    ],
)
def test_the_longest_prompt_fits_unless_a_few_are_far_longer(lengths, most):
    assert proposal.prompt_tokens(np.array(lengths)) == most


def proposed(*assignments, data=DATA):
    config = config_io.override(proposal.starting(data), assignments)
    return config_io.override(proposal.fitted(config, 120, 500, SPLITS), assignments)


def test_lengths_and_budget_follow_from_the_data():
    priced = ("teacher.model=m", "teacher.usd_per_million_input=1")
    config = proposed(*priced, "teacher.usd_per_million_output=10")
    assert config.max_prompt_tokens == 120 and config.on_long_prompt == "cut_end"
    rooms = {config.student_training.row_tokens, config.assistant_training.row_tokens}
    assert rooms == {352} and 120 + config.generation.max_new_tokens <= 352
    assert config.warmup.train.row_tokens == config.instruct.train.row_tokens == 352
    # 10 questions, 5% of the pool, and the longest replies.
    assert config.budget.queries == 10 and 0.20 < config.budget.usd < 0.30
    assert config.data.instruction == ('Read the text and say which of these labels is its "team".')
    validate(config)
    choice = dataclasses.replace(DATA, kind="choice")
    assert proposed(data=choice).on_long_prompt == "cut_beginning"
    assert proposal.fitted(proposal.starting(DATA), 120, 120, SPLITS).on_long_prompt == "error"


def test_a_pool_without_answers_gets_a_test_that_the_teacher_answers():
    bare = tuple(dataclasses.replace(example, answer=None) for example in POOL)
    data = dataclasses.replace(DATA, columns={"question": "text"}, labelled=False)
    started = proposal.starting(data)
    config = proposal.fitted(started, 120, 500, Splits(bare, bare[:20], bare[:40]))
    assert config.data.instruction == "Read the text and say which of these labels fits it best."
    assert config.warmup.fraction == 0 and config.selection.difficulty == "entropy"
    assert config.teacher.keep_wrong and config.rationales.filter == "confidence"
    # Twelve answers of each of five classes, more than 5% of the pool, and all 40 of the test.
    assert (config.evaluation.teacher_test, config.budget.queries) == (40, 60 + 40)
    few = proposal.fitted(started, 120, 500, Splits(bare[:30], bare[:20], bare[:40]))
    assert few.budget.queries == 15 + 40  # At most half of the pool.
    priced = [f"teacher.usd_per_million_{what}=1" for what in ("input", "output")]
    validate(config_io.override(config, ["teacher.model=m", *priced]))


def test_flags_win():
    config = proposed("budget.queries=3", "seed=4", "compare=")
    assert (config.budget.queries, config.seed, config.compare) == (3, 4, ())
    told = dataclasses.replace(DATA, instruction="Which team?")
    assert proposal.starting(told).data.instruction == "Which team?"


@pytest.mark.parametrize(
    "config",
    [
        proposed(),
        proposed("teacher.kind=gemini", "teacher.model=m", "data.instruction=" + "so it's " * 40),
        RunConfig(),
        dataclasses.replace(
            proposed(),
            assistant=ModelConfig("someone/model", lora=LoraConfig(8, targets=("mlp/*",))),
            data=dataclasses.replace(
                DATA, label_descriptions=dict.fromkeys(DATA.choices, "Of bills. " * 9)
            ),
        ),
    ],
)
def test_what_is_written_is_what_is_read_and_is_formatted(config, tmp_path):
    file = tmp_path / "written.py"
    file.write_text(proposal.as_python(config, proposal.docstring(config, "written.py", SPLITS)))
    assert config_io.load(file) == config
    assert max(map(len, file.read_text().splitlines())) <= 100
    if ruff := shutil.which("ruff"):
        settings = ["--isolated", "--line-length=100"]
        rules = ["check", "--select=E,F,W,I,D1"]
        for command in ([*rules, *settings], ["format", "--check", *settings]):
            done = subprocess.run([ruff, *command, file], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr


def test_the_docstring_cannot_end_in_the_name_of_a_file():
    config = proposed()
    told = proposal.docstring(config, 'a"""\nimport os.py', SPLITS)
    assert "python -m launch.run --config=a____import_os.py --workdir=runs/tick_ets_2026_" in told
    assert "First fill in the name of the teacher's model and its prices." in told
    assert "\nimport" not in told and '"' not in told
    free = ("teacher.model=m", "teacher.free=true")
    assert "fill in" not in proposal.docstring(proposed(*free), "a.py", SPLITS)
