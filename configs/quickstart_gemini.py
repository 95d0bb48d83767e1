"""Uses Gemini as the teacher, on complaints that are to be sorted by kind.

    pip install -e '.[gemini]'
    export GEMINI_API_KEY=...
    python -m launch.run --config=configs/quickstart_gemini.py --workdir=runs/gemini

Cost: 16 questions of about 110 tokens and up to 8 further requests, at the prices below (Gemini 2.5
Flash as Google listed it in 2026; compare with yours). With replies of 600 tokens, thoughts
included, the 24 requests cost $0.04; with replies of the maximum length, $0.12. The caps are 24
requests and $0.15. With --teacher.batch=true they cost half, and take up to a day. The run asks
before it pays; if there is no terminal, add --yes. Hardware: two CPU cores suffice. Not run yet
against the vendor: neither time nor score is known.

The quickstart asks for invented values, which no vendor's model knows. Here, a question names a
complaint, and the answer is its kind, one of twelve that are listed (*triage*, one step).
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

TEACHER = TeacherConfig(
    kind="gemini",
    model="gemini-2.5-flash",
    usd_per_million_input=0.30,
    usd_per_million_output=2.50,
    max_output_tokens=2048,  # thoughts count too
    requests_per_minute=60,
    retries=1,
)


def get_config() -> RunConfig:
    """Returns the config."""
    return asking("Gemini", TEACHER, usd=0.15)


def asking(name: str, teacher: TeacherConfig, usd: float) -> RunConfig:
    """Returns a run that asks `teacher` what kind a complaint is of, for at most `usd` US dollars.

    16 questions are asked, with room for 8 retries. A vendor's rationales are longer than those of
    the practice tasks; the default rows hold them.
    """
    return RunConfig(
        name=f"quickstart with {name}",
        compare=("direct", "labels"),
        max_prompt_tokens=120,
        data=DataConfig(pool=320, dev=10, test=150, domains=("triage",), max_steps=1),
        teacher=teacher,
        selection=SelectionConfig(size=16, strategy="diversity"),
        budget=BudgetConfig(queries=24, usd=usd),
        assistant=ModelConfig(),
        student=ModelConfig(keep_layers=(0, 4, 8, 12, 16, 20, 24, 29)),
        warmup=WarmupConfig(0.1, TrainConfig(epochs=1, batch_rows=2, learning_rate=5e-5)),
        assistant_training=TrainConfig(epochs=3, batch_rows=2, learning_rate=1e-4),
        instruct=InstructConfig(100, TrainConfig(epochs=1, batch_rows=2, learning_rate=5e-4)),
        student_training=TrainConfig(epochs=3, batch_rows=2, learning_rate=5e-4),
        direct_training=TrainConfig(epochs=10, batch_rows=2, learning_rate=5e-4),
        generation=GenerationConfig(max_new_tokens=128, batch_size=64),
        evaluation=EvaluationConfig(assistant_examples=64),
    )
