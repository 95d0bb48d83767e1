"""The whole method on a laptop: practice tasks, no key, no download of data, no accelerator.

make quickstart
python -m launch.run --config=configs/quickstart.py --workdir=runs/quickstart
"""

from bridge_jax.config import (
    BudgetConfig,
    DataConfig,
    EvaluationConfig,
    GenerationConfig,
    InstructConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
    WarmupConfig,
)


def get_config() -> RunConfig:
    """Returns the config."""
    student = TrainConfig(epochs=5, batch_rows=4, learning_rate=1e-3)
    return RunConfig(
        name="quickstart",
        compare_direct=True,
        max_prompt_tokens=120,
        data=DataConfig(rationale="short", pool=300, dev=10, test=150, max_steps=2),
        budget=BudgetConfig(queries=15, usd=0.05),
        student=ModelConfig(keep_layers=(0, 1, 2, 3, 4, 5, 28, 29)),
        warmup=WarmupConfig(0.1, TrainConfig(epochs=1, batch_rows=4, learning_rate=1e-4)),
        assistant_training=TrainConfig(epochs=6, batch_rows=4, learning_rate=3e-4),
        instruct=InstructConfig(100, TrainConfig(epochs=1, batch_rows=4, learning_rate=1e-3)),
        student_training=student,
        direct_training=TrainConfig(epochs=20, batch_rows=4, learning_rate=1e-3),
        generation=GenerationConfig(max_new_tokens=56, batch_size=64),
        evaluation=EvaluationConfig(assistant_examples=64),
    )
