"""Teaches a small student to think within a stated budget: practice tasks, no key, no accelerator.

python -m launch.run --config=configs/budgets.py --workdir=runs/budgets

A question is about the check digit of five laboratory samples (`configs/quickstart.py` says
how it is computed). The teacher, the program that generates them, explains 400 of them at length,
in 151 to 154 tokens. It is then asked to shorten each explanation to 128, 64, 32 and 16 tokens.
The student has 6 of the 30 layers of SmolLM2-135M. First it learns the long explanations, and then
each at every budget.

It is compared with itself before it learned budgets, cut off at each, and extended.

Takes 27 minutes of one CPU core with matrix units for bf16; three seeds took 43 minutes on two at
revision 2fbefea. The student answered 97% correctly in 32 tokens, 99% in 64, 100% in 128 and in
256, and 23, 65 and 66% in 16, where guessing gives 10% (docs/budgets.md). With
`--config.method=bard` reinforcement learning follows.
"""

from bridge_jax.config import (
    BudgetConfig,
    DataConfig,
    EvaluationConfig,
    GenerationConfig,
    InstructConfig,
    ModelConfig,
    ReinforcementConfig,
    RunConfig,
    SelectionConfig,
    ThinkingConfig,
    TrainConfig,
)

QUESTIONS, LEVELS = 400, (16, 32, 64, 128, 256)
MATMUL = "bfloat16"


def get_config() -> RunConfig:
    """Returns the config."""
    return RunConfig(
        name="budgets",
        method="budgeted",
        max_prompt_tokens=72,
        data=DataConfig(
            pool=QUESTIONS,
            dev=20,
            test=100,
            domains=("samples",),
            min_steps=5,
            max_steps=5,
            families=24,
            rationale="long",
        ),
        budget=BudgetConfig(queries=QUESTIONS * (1 + len(LEVELS)), usd=10.0),
        student=ModelConfig(keep_layers=(0, 6, 12, 18, 24, 29), matmul=MATMUL),
        selection=SelectionConfig(size=QUESTIONS, strategy="random", noise_fraction=0.0),
        instruct=InstructConfig(120, _training(192, learning_rate=5e-4, epochs=1, batch_rows=1)),
        direct_training=_training(280, learning_rate=7e-4, steps=600, batch_rows=1),
        thinking=ThinkingConfig(
            levels=LEVELS,
            after="direct",
            train=_training(280, learning_rate=5e-4, epochs=1, batch_rows=1),
            controls=("stated", "truncated", "forced"),
        ),
        reinforcement=ReinforcementConfig(
            tries=2,
            train=_training(416, learning_rate=1e-4, steps=16, batch_rows=4),
        ),
        generation=GenerationConfig(max_new_tokens=208, batch_size=100),
        evaluation=EvaluationConfig(student_before=False),
    )


def _training(
    row_tokens: int, learning_rate: float, epochs: int = 1, steps: int = 0, batch_rows: int = 2
) -> TrainConfig:
    return TrainConfig(
        epochs,
        steps,
        batch_rows=batch_rows,
        row_tokens=row_tokens,
        learning_rate=learning_rate,
        remat="none",
    )
