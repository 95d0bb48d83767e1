r"""Runs BRIDGE at the size of the paper: assistant Qwen2.5-7B, student Qwen2.5-0.5B, medical data.

The questions are those of PubMedQA (MIT). Download `ori_pqal.json` and `test_ground_truth.json`
from its repository (github.com/pubmedqa/pubmedqa, folder data) and `ori_pqaa.json` from where its
README says, or the parquet files of the hub's qiaojin/PubMedQA (pqa_labeled, pqa_artificial). Then

    python -m launch.convert --from=pubmedqa --path=ori_pqal.json \
        --test_ids=test_ground_truth.json --train=ori_pqaa.json --train_count=5000 \
        --out=pubmedqa.jsonl
    python -m launch.plan --config=configs/medical_7b.py --topology=v5e:4x4
    export GEMINI_API_KEY=...
    python -m launch.run --config=configs/medical_7b.py --workdir=DIR --data.path=pubmedqa.jsonl

The test is the official 500 abstracts that experts labeled, and dev is 250 more of these. The pool
is 5,000 abstracts with artificial labels (yes or no by the title), of which 250 (5%) are asked.
Without a key, the authors' own conclusions can be the teacher: --data.rationale=human
--teacher.kind=replay --teacher.retries=0.

Hardware: 16 chips of TPU v5e. Planned for them, not run, so no score is known: at least 2 min 44 s
of work, about 6 min expected without compilation, or 1.5 chip-hours (about $2 at an assumed $1.20
each), without waiting for the teacher. As compiled (docs/plans.md) it takes at most 10.0 GiB a
chip. With replies of the greatest length, the teacher costs about $1.34, and at most $1.61 with
every retry; the cap is $3. Of the prompts of 1,000 abstracts that experts labeled, one is longer
than 768 tokens, by the tokenizer of SmolLM2, and loses its beginning.
"""

import dataclasses

from bridge_jax.config import (
    BudgetConfig,
    DataConfig,
    EvaluationConfig,
    GenerationConfig,
    InstructConfig,
    RunConfig,
    SelectionConfig,
    TrainConfig,
    WarmupConfig,
)
from configs import quickstart_gemini
from configs.models import PAIRS

ASKED, RETRIES = 250, 50


def get_config() -> RunConfig:
    """Returns the config; `data.path` is a flag."""
    pair = PAIRS["qwen2.5-7b to qwen2.5-0.5b"]
    return RunConfig(
        name="medical_7b",
        max_prompt_tokens=768,
        on_long_prompt="cut_beginning",
        data=DataConfig(
            source="jsonl",
            instruction="The text is the abstract of a study without its conclusion, and the "
            "question that the study asked. Is the answer yes, no or maybe?",
            kind="label",
            choices=("yes", "no", "maybe"),
            pool=5000,
            dev=250,
            test=500,
        ),
        budget=BudgetConfig(queries=ASKED + RETRIES, usd=3.0),
        teacher=dataclasses.replace(quickstart_gemini.TEACHER, max_rationale_tokens=240),
        # So that the plan includes the scoring.
        selection=SelectionConfig(size=ASKED, strategy="diversity", batch_tokens=32_768),
        assistant=pair.assistant,
        student=pair.student,
        warmup=WarmupConfig(0.1, training(epochs=1, learning_rate=1e-4)),
        assistant_training=training(epochs=3, learning_rate=2e-4),
        instruct=InstructConfig(2000, training(epochs=1, learning_rate=2e-5)),
        student_training=training(epochs=3, learning_rate=2e-5),
        direct_training=training(epochs=20, learning_rate=2e-5),
        # Two chips hold the 7B in bf16, so each of the eight pairs of chips writes 32 answers.
        generation=GenerationConfig(max_new_tokens=256, batch_size=256),
        evaluation=EvaluationConfig(),
    )


def training(epochs: int, learning_rate: float) -> TrainConfig:
    """Returns a training in rows of 2,048 tokens, 16 a step."""
    return TrainConfig(epochs, batch_rows=16, row_tokens=2048, learning_rate=learning_rate)
