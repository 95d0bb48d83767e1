"""BRIDGE on real medical questions (PubMedQA) with a real teacher's recorded rationales, on a CPU.

    python -m launch.run --config=configs/medical_cpu.py --workdir=runs/medical \
        --data.path=DATA/med_pubmedqa.jsonl

`DATA` is a folder with the recorded rationales (columns id, question, answer, split, rationales).
The teacher is text-davinci-002 with one fixed prompt, wrong rationales included: it is paid for
every question that is selected and rejected where it misses the gold label.
"""

from bridge_jax.config import (
    BudgetConfig,
    DataConfig,
    EvaluationConfig,
    GenerationConfig,
    InstructConfig,
    ModelConfig,
    RunConfig,
    SelectionConfig,
    TeacherConfig,
    TrainConfig,
    WarmupConfig,
)


def get_config() -> RunConfig:
    """Returns the config; `data.path` is a flag."""
    short = TrainConfig(epochs=1, batch_rows=4, row_tokens=768, learning_rate=1e-4)
    student = TrainConfig(epochs=2, batch_rows=4, row_tokens=768, learning_rate=5e-4)
    return RunConfig(
        name="medical_cpu",
        max_prompt_tokens=384,
        on_long_prompt="truncate",
        data=DataConfig(
            source="jsonl",
            kind="label",
            choices=("yes", "no", "maybe"),
            rationale="1",
            pool=400,
            dev=100,
            test=500,
        ),
        budget=BudgetConfig(queries=40, usd=1.0),
        teacher=TeacherConfig(
            kind="replay",
            model="text-davinci-002",
            usd_per_million_input=20.0,
            usd_per_million_output=20.0,
        ),
        student=ModelConfig(keep_layers=(0, 1, 2, 3, 4, 5, 28, 29)),
        warmup=WarmupConfig(0.1, short),
        selection=SelectionConfig(batch_tokens=3072),
        assistant_training=TrainConfig(epochs=3, batch_rows=4, row_tokens=768, learning_rate=2e-4),
        instruct=InstructConfig(
            100, TrainConfig(epochs=1, batch_rows=4, row_tokens=256, learning_rate=5e-4)
        ),
        student_training=student,
        direct_training=TrainConfig(epochs=6, batch_rows=4, row_tokens=768, learning_rate=5e-4),
        generation=GenerationConfig(max_new_tokens=128, batch_size=32),
        evaluation=EvaluationConfig(assistant_examples=100),
    )
