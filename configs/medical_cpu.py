"""Runs BRIDGE on PubMedQA with the recorded rationales of a real teacher, on a CPU.

    python -m launch.run --config=configs/medical_cpu.py --workdir=runs/medical \
        --data.path=DATA/med_pubmedqa.jsonl

`DATA` is a folder with the recorded rationales (columns id, question, answer, split, rationales).
The teacher is text-davinci-002 with one fixed prompt, and its wrong rationales are recorded too:
every selected question is charged, and a rationale that does not end in the gold label is rejected.

Hardware: a CPU. With its baseline, `configs/medical_cpu_direct.py`, it takes more than an hour. It
has not been measured since the assistant is shown gold answers (revision 9418970). No real money is
paid. A smaller study of the same questions was measured (`configs/studies/medical.py`): 51 and 56%
with an assistant, 25% without, 58% for always "yes".
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
    return RunConfig(
        name="medical_cpu",
        compare=(),  # compared by configs/studies/medical.py
        max_prompt_tokens=304,
        on_long_prompt="cut_beginning",
        data=DataConfig(
            source="jsonl",
            kind="label",
            choices=("yes", "no", "maybe"),
            rationale="0",
            pool=400,
            dev=100,
            test=256,
        ),
        budget=BudgetConfig(queries=20, usd=1.0),
        teacher=TeacherConfig(
            kind="replay",
            model="text-davinci-002",
            usd_per_million_input=20.0,
            usd_per_million_output=20.0,
        ),
        assistant=ModelConfig(),
        student=ModelConfig(keep_layers=(0, 1, 2, 3, 4, 5, 28, 29)),
        warmup=WarmupConfig(0.1, _training(epochs=1, learning_rate=5e-5)),
        # The figures were measured with this strategy.
        selection=SelectionConfig(strategy="coverage", batch_tokens=3072),
        assistant_training=_training(epochs=3, learning_rate=1e-4),
        instruct=InstructConfig(
            100, TrainConfig(epochs=1, batch_rows=1, row_tokens=640, learning_rate=5e-4)
        ),
        student_training=_training(epochs=2, learning_rate=5e-4),
        direct_training=_training(epochs=20, learning_rate=5e-4),
        generation=GenerationConfig(max_new_tokens=256, batch_size=64),
        evaluation=EvaluationConfig(assistant_examples=64),
    )


def _training(epochs: int, learning_rate: float) -> TrainConfig:
    return TrainConfig(epochs, batch_rows=2, row_tokens=896, learning_rate=learning_rate)
