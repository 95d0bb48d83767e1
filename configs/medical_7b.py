"""Runs BRIDGE at the size of the paper: assistant Qwen2.5-7B, student Qwen2.5-0.5B, medical data.

    python -m launch.plan --config=configs/medical_7b.py --topology=v5e:4x4
    python -m launch.run --config=configs/medical_7b.py --workdir=DIR --data.path=DATA.jsonl

Hardware: 16 chips of TPU v5e. Planned and compiled for them, not run: the plan says at least 2 min
10 s of work and at most $5.12; no score is known. Lengths fit PubMedQA: an abstract of 300 to 400
tokens as the question, a rationale of about 200. The pool has 5,000 questions, of which 250 (5%)
are paid for; for a smaller data set lower `data.pool` and `budget.queries`.
"""

import dataclasses

from bridge_jax.config import (
    BudgetConfig,
    EvaluationConfig,
    GenerationConfig,
    InstructConfig,
    RunConfig,
    SelectionConfig,
    TrainConfig,
    WarmupConfig,
)
from configs import medical_cpu
from configs.models import PAIRS


def get_config() -> RunConfig:
    """Returns the config; `data.path` is a flag."""
    small, pair = medical_cpu.get_config(), PAIRS["qwen2.5-7b to qwen2.5-0.5b"]
    return dataclasses.replace(
        small,
        name="medical_7b",
        max_prompt_tokens=512,
        data=dataclasses.replace(small.data, pool=5000, dev=250, test=500),
        budget=BudgetConfig(queries=250, usd=10.0),
        assistant=pair.assistant,
        student=pair.student,
        warmup=WarmupConfig(0.1, _training(epochs=1, learning_rate=1e-4)),
        selection=SelectionConfig(batch_tokens=32_768),
        assistant_training=_training(epochs=3, learning_rate=2e-4),
        instruct=InstructConfig(2000, _training(epochs=1, learning_rate=2e-5)),
        student_training=_training(epochs=3, learning_rate=2e-5),
        direct_training=_training(epochs=20, learning_rate=2e-5),
        labels_training=_training(epochs=3, learning_rate=2e-5),
        # Two chips hold the 7B in bf16: the eight pairs of the 16 write 32 answers each.
        generation=GenerationConfig(max_new_tokens=256, batch_size=256),
        evaluation=EvaluationConfig(),
    )


def _training(epochs: int, learning_rate: float) -> TrainConfig:
    return TrainConfig(epochs, batch_rows=16, row_tokens=2048, learning_rate=learning_rate)
