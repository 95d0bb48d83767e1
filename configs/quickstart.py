"""The whole method on a laptop: practice tasks, no key, no download of data, no accelerator.

make quickstart
python -m launch.run --config=configs/quickstart.py --workdir=runs/quickstart

The questions ask where a complaint is to be sent (*triage*): 24 complaints are of twelve kinds, and
each kind has one of four places, which only the teacher and the labels know. Of 104 questions the
teacher is asked about six. One answer to all questions is right about one time in four. Rows and
prompts are as short as these questions allow: longer ones need `max_prompt_tokens`,
`generation.max_new_tokens` and the `row_tokens` of the trainings.
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
    return RunConfig(
        name="quickstart",
        compare_direct=True,
        max_prompt_tokens=56,  # Of the pool 44 at most, of the instructions 53.
        data=DataConfig(
            pool=104,
            dev=10,
            test=104,
            domains=("triage",),
            min_steps=2,  # The kind, then its place.
            max_steps=2,
            label_share=1.0,
        ),
        budget=BudgetConfig(queries=6, usd=0.05),
        assistant=ModelConfig(),  # trained in full: at this size an adapter saves little
        student=ModelConfig(keep_layers=(0, 6, 12, 18, 24, 29)),
        warmup=WarmupConfig(0.25, _training(learning_rate=5e-5)),
        # An example a row, twelve steps: after six it went on writing labels without a rationale.
        assistant_training=_training(epochs=2, row_tokens=80, learning_rate=1e-4),
        instruct=InstructConfig(120, _training(learning_rate=5e-4)),
        student_training=_training(epochs=2, learning_rate=1e-3),
        # Six answers 35 times: as many examples as the student reads.
        direct_training=_training(epochs=35, learning_rate=1e-3),
        generation=GenerationConfig(max_new_tokens=20, batch_size=104),
        evaluation=EvaluationConfig(assistant_examples=52),
    )


def _training(learning_rate: float, epochs: int = 1, row_tokens: int = 192) -> TrainConfig:
    return TrainConfig(
        epochs=epochs,
        batch_rows=1,
        row_tokens=row_tokens,
        learning_rate=learning_rate,
        remat="none",  # Rows are short: there is memory for all activations.
    )
