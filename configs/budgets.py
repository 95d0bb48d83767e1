"""Teaches a small student to think within a stated budget: practice tasks, no key, no accelerator.

python -m launch.run --config=configs/budgets.py --workdir=runs/budgets

A question asks for the check digit of five laboratory samples (`configs/quickstart.py` says how it
is computed). The teacher, the program that generates the questions, explains 400 of 2,000 at
length, in 151 to 154 tokens. It is then asked to shorten each explanation to 128, 64, 32 and 16
tokens. The student has 6 of the 30 layers of SmolLM2-135M. It first learns the long explanations,
and then each explanation at every budget.

The report compares the student with itself before it learned budgets, cut off at each budget, and
also made to continue if it stops early.

Takes 31 minutes on one CPU core with matrix units for bf16. Three seeds at once took 5 minutes on
an H200, at revision d9987ec. Told 32 tokens, the student answered 97% right; told 64, 84% (96, 59
and 98); told 128 or 256, 100%; and told 16, 78, 11 and 89%, where guessing gives 10%.

With `--config.method=bard`, reinforcement learning follows at 16, 32 and 64 tokens, on the 1,600
questions that were not explained. With its tests it took 3 minutes on an H200, three seeds at once.
Told 32 tokens, all three seeds then answered 100% right, and 99 to 100% told 64; told 16 tokens,
the seed with 11% stayed there (docs/budgets.md). On two CPU cores it would take over four hours, by
the plan.
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

POOL, QUESTIONS, LEVELS = 2000, 400, (16, 32, 64, 128, 256)
MATMUL = "bfloat16"


def get_config() -> RunConfig:
    """Returns the config."""
    return RunConfig(
        name="budgets",
        method="budgeted",
        max_prompt_tokens=72,
        data=DataConfig(
            pool=POOL,
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
        direct_training=_training(280, learning_rate=7e-4, steps=1200, batch_rows=1),
        thinking=ThinkingConfig(
            levels=LEVELS,
            after="direct",
            train=_training(280, learning_rate=5e-4, epochs=1, batch_rows=1),
            controls=("stated", "truncated", "forced"),
        ),
        reinforcement=ReinforcementConfig(
            levels=(16, 32, 64),
            questions="unselected",
            groups=48,
            tries=2,
            train=_training(192, learning_rate=5e-5, steps=110, batch_rows=384, accumulate=8),
        ),
        generation=GenerationConfig(max_new_tokens=208, batch_size=100),
        evaluation=EvaluationConfig(student_before=False),
    )


def _training(
    row_tokens: int,
    learning_rate: float,
    epochs: int = 1,
    steps: int = 0,
    batch_rows: int = 2,
    accumulate: int = 1,
) -> TrainConfig:
    return TrainConfig(
        epochs,
        steps,
        batch_rows=batch_rows,
        accumulate=accumulate,
        row_tokens=row_tokens,
        learning_rate=learning_rate,
        remat="none",
    )
