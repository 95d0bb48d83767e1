"""Runs the whole method on a task that labels alone can teach: where 24 complaints are sent.

python -m launch.run --config=configs/triage.py --workdir=runs/triage

Took three to five and a half minutes on two CPU cores, and 7 GiB, at revision acf9a47, before runs
also trained a student on the labels; that adds about a third, by the number of steps. At 2254093
(seed 0) the student answered 73% right, the direct student 43% (78% and 47% over three seeds
before), and the student that learned the labels of the pool 95%, after 132 steps, since the labels
tell everything here. After 64 steps, as many as the first student takes, it had 50% and was still
learning (b8e164a). The first line of the report says so: for such a task, buy no answers. Studies
in `configs/studies` use this task to ask what each part of the method does.

The pool has 104 questions of triage and the test another 104. The teacher, the program that
generates them, is asked 6. The assistant is the whole of SmolLM2-135M: with layers removed, it
would first have to learn to write again, from a handful of answers. The student has 6 of its 30
layers and is trained for two epochs; the direct student is trained on the 6 answers alone, for
about as many steps.

Prompts are at most 44 tokens long (46 with a gold answer shown, 53 for instructions), and
rationales with their answers 18, so a row of the student holds at least three examples, and a row
of the assistant one. There is enough memory to generate in one batch and to keep all activations
during training.
"""

from bridge_jax.config import (
    BudgetConfig,
    DataConfig,
    GenerationConfig,
    InstructConfig,
    ModelConfig,
    RunConfig,
    SelectionConfig,
    TrainConfig,
    WarmupConfig,
)

POOL, QUERIES, EPOCHS = 104, 6, 2
LABELS_EPOCHS = 6  # of 22 steps; after 64 steps, as many as the student takes, it is still learning


def get_config() -> RunConfig:
    """Returns the config."""
    return RunConfig(
        name="triage",
        compare=("direct", "labels"),
        max_prompt_tokens=56,
        data=DataConfig(
            pool=POOL,
            dev=10,
            test=104,
            domains=("triage",),
            min_steps=2,
            max_steps=2,
        ),
        budget=BudgetConfig(queries=QUERIES, usd=0.05),
        assistant=ModelConfig(),  # trained in full: at this size an adapter saves nothing
        student=ModelConfig(keep_layers=(0, 6, 12, 18, 24, 29)),
        warmup=WarmupConfig(0.25, _training(epochs=1, learning_rate=5e-5)),
        selection=SelectionConfig(strategy="coverage"),  # The figures were measured with it.
        assistant_training=_training(epochs=1, learning_rate=1e-4, row_tokens=80),
        instruct=InstructConfig(120, _training(epochs=1, learning_rate=5e-4)),
        student_training=_training(epochs=EPOCHS, learning_rate=1e-3),
        direct_training=_training(epochs=round(EPOCHS * POOL / QUERIES), learning_rate=1e-3),
        labels_training=_training(epochs=LABELS_EPOCHS, learning_rate=1e-3),
        generation=GenerationConfig(max_new_tokens=20, batch_size=104),
    )


def _training(epochs: int, learning_rate: float, row_tokens: int = 192) -> TrainConfig:
    return TrainConfig(
        epochs=epochs,
        batch_rows=1,
        row_tokens=row_tokens,
        learning_rate=learning_rate,
        remat="none",
    )
