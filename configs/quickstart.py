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
    """Returns the config.

    One step of reasoning with a label as answer is what a student of 8 layers can learn from a few
    hundred rationales; arithmetic over several steps is not (`data.domains`, `data.max_steps` and
    `data.label_share` make the task harder).
    """
    return RunConfig(
        name="quickstart",
        compare_direct=True,
        max_prompt_tokens=120,
        data=DataConfig(
            pool=320, dev=10, test=150, domains=("deadlines",), max_steps=1, label_share=1.0
        ),
        budget=BudgetConfig(queries=16, usd=0.05),
        assistant=ModelConfig(),  # trained in full: at this size an adapter saves nothing
        student=ModelConfig(keep_layers=(0, 4, 8, 12, 16, 20, 24, 29)),
        warmup=WarmupConfig(0.1, TrainConfig(epochs=1, batch_rows=2, learning_rate=5e-5)),
        assistant_training=TrainConfig(epochs=6, batch_rows=2, learning_rate=1e-4),
        instruct=InstructConfig(100, TrainConfig(epochs=1, batch_rows=2, learning_rate=5e-4)),
        student_training=TrainConfig(epochs=3, batch_rows=2, learning_rate=5e-4),
        direct_training=TrainConfig(epochs=10, batch_rows=2, learning_rate=5e-4),
        generation=GenerationConfig(max_new_tokens=48, batch_size=64),
        evaluation=EvaluationConfig(assistant_examples=64),
    )
