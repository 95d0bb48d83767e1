"""The whole method on a laptop: practice tasks, no key, no download of data, no accelerator.

make quickstart
python -m launch.run --config=configs/quickstart.py --workdir=runs/quickstart

Three to five minutes on two CPU cores, 4 GiB; the student answers about 80%, the direct one 45%.

104 questions of triage in the pool, of which the teacher (the program that makes them) is asked 6,
and 104 for the test. The assistant is the whole of SmolLM2-135M: cut, it would first have to learn
to write again, from a handful of answers. The student has 6 of its 30 layers and learns for two
epochs; the direct student learns from the 6 answers alone, for about as many steps.

Prompts are at most 44 tokens long (with a gold answer shown 46, instructions 53), rationales with
their answers 18, so a row of the student holds at least three examples, a row of the assistant one.
All that is to be written is written in one batch, and trainings keep all activations: there is
memory.
"""

from bridge_jax.config import (
    BudgetConfig,
    DataConfig,
    GenerationConfig,
    InstructConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
    WarmupConfig,
)

POOL, QUERIES, EPOCHS = 104, 6, 2


def get_config() -> RunConfig:
    """Returns the config."""
    return RunConfig(
        name="quickstart",
        compare_direct=True,
        max_prompt_tokens=56,
        data=DataConfig(
            pool=POOL,
            dev=10,
            test=104,
            domains=("triage",),
            min_steps=2,
            max_steps=2,
            label_share=1.0,
        ),
        budget=BudgetConfig(queries=QUERIES, usd=0.05),
        assistant=ModelConfig(),  # trained in full: at this size an adapter saves nothing
        student=ModelConfig(keep_layers=(0, 6, 12, 18, 24, 29)),
        warmup=WarmupConfig(0.25, _training(epochs=1, learning_rate=5e-5)),
        assistant_training=_training(epochs=1, learning_rate=1e-4, row_tokens=80),
        instruct=InstructConfig(120, _training(epochs=1, learning_rate=5e-4)),
        student_training=_training(epochs=EPOCHS, learning_rate=1e-3),
        direct_training=_training(epochs=round(EPOCHS * POOL / QUERIES), learning_rate=1e-3),
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
