"""Runs the whole method on a laptop: practice tasks, no key, no download of data, no accelerator.

make quickstart
python -m launch.run --config=configs/quickstart.py --workdir=runs/quickstart

Takes 9 to 13 minutes on two CPU cores with AVX512-BF16. At revision 0915b3a the student answers
98.5% of the test questions correctly (seed 0; seeds 0 to 4: 95.5 to 100%, mean 98.2%), the direct
student 22.5%, and the student trained on labels 9.5%.

A question names a digit and five kinds of laboratory samples ("Check digit from 4: a smear, a
drop, a dish, a crystal, a swab?"). Each kind has one of five values; the values are added up, and
each time the last digit is carried on. The answer is one digit. So labels reveal neither the values
nor the procedure, and a rationale reveals both: "smear 4+3=7; drop 7+7=14; dish 4+7=11; crystal
1+3=4; swab 4+7=11, so 1." The task is chosen because labels cannot teach it; `configs/triage.py`
has one that they can.

The pool has 600 questions about 24 kinds, and the test another 200. The teacher, the program that
generates the questions, is asked 30. Its answers contain 47 to 50 of the 50 sums that the task
needs (seeds 0 to 4). With nine values there are 90 sums, and an assistant was right on only 59%.
With four values, labels begin to teach the task: 46 and 50% after 1,000 to 1,200 steps.

The assistant is SmolLM2-135M with all its layers: with layers removed, it would have to learn to
write again, from a handful of answers. It is shown no gold answers: it answers each question of the
pool once, and the student learns the rationales that end in the right answer. It has no warm-up,
since the strategy compares only embeddings. The student has 6 of the 30 layers. Two other students
are trained for as many steps: on the 30 answers alone, and on the labels of the whole pool. Fewer
steps do not suffice: after 150, students scored 83 to 99% (docs/results.md).

Prompts are at most 45 tokens long (instructions: 54), and rationales with their answers 57, so most
rows of the student, and those of labels, hold three examples. Rows of the assistant and of the
direct student hold one. A step has two rows: with so few tokens, much of its time goes into moving
weights. In 200 steps the direct student reads its 30 answers 13 times. Memory suffices to keep all
activations during training.
"""

from bridge_jax.config import (
    BudgetConfig,
    DataConfig,
    EvaluationConfig,
    GenerationConfig,
    InstructConfig,
    ModelConfig,
    RationalesConfig,
    RunConfig,
    SelectionConfig,
    TrainConfig,
    WarmupConfig,
)

POOL, QUERIES, STEPS = 600, 30, 200
MATMUL = "bfloat16"
AS_STUDENT = {"learning_rate": 1e-3, "steps": STEPS, "batch_rows": 2}  # of all three students


def get_config() -> RunConfig:
    """Returns the config."""
    return RunConfig(
        name="quickstart",
        compare=("direct", "labels"),
        max_prompt_tokens=54,
        data=DataConfig(
            pool=POOL,
            dev=20,
            test=200,
            domains=("samples",),
            min_steps=5,
            max_steps=5,
            families=24,
            different_values=5,
            rationale="short",
        ),
        budget=BudgetConfig(queries=QUERIES, usd=0.05),
        assistant=ModelConfig(matmul=MATMUL),  # in full: at this size an adapter saves nothing
        student=ModelConfig(keep_layers=(0, 6, 12, 18, 24, 29), matmul=MATMUL),
        warmup=WarmupConfig(0.0),  # The strategy compares embeddings alone.
        selection=SelectionConfig(strategy="diversity"),
        assistant_training=_training(112, learning_rate=3e-4, epochs=6, batch_rows=2),
        instruct=InstructConfig(120, _training(192, learning_rate=5e-4, epochs=1)),
        rationales=RationalesConfig(show_gold=False),
        student_training=_training(306, **AS_STUDENT),
        direct_training=_training(112, **AS_STUDENT),
        labels_training=_training(156, **AS_STUDENT),
        generation=GenerationConfig(max_new_tokens=57, batch_size=100),
        evaluation=EvaluationConfig(assistant_examples=50, student_before=False),
    )


def _training(
    row_tokens: int, learning_rate: float, epochs: int = 1, steps: int = 0, batch_rows: int = 1
) -> TrainConfig:
    return TrainConfig(
        epochs,
        steps,
        rationale_weight=0.9,  # An answer here repeats the last digit of its rationale.
        batch_rows=batch_rows,
        row_tokens=row_tokens,
        learning_rate=learning_rate,
        remat="none",
    )
