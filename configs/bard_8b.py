"""Teaches an 8B student, Qwen3-8B, to think for at most 500 to 8,000 tokens (BARD, 2511.01470).

    python -m launch.plan --config=configs/bard_8b.py --topology=v5p:2x2x2
    python -m launch.run --config=configs/bard_8b.py --workdir=DIR --data.path=POOL.jsonl \
        --data.test_path=AIME.jsonl

The pool has math problems with numeric answers. The test is a separate file, such as AIME 2024 and
2025. Both need the same columns; for the AIME files of the hub pass
`--data.columns=question:problem`. Each test problem gets 16 answers, whose mean accuracy counts
(avg@16). Gemini explains 225 problems at length, and shortens each explanation to five budgets,
with the key in GEMINI_API_KEY. Thinking stands between the model's own <think> and </think>. With
`--config.method=bard`, reinforcement learning at the budgets follows, with replies of up to 10,000
tokens of thinking.

GPQA has another kind of answer: pass its kind and the columns of its file,

    --config.data.kind=choice --config.data.source=hf \
    --config.data.columns='question:Question,answer:Correct Answer,\
choices:Correct Answer|Incorrect Answer 1|Incorrect Answer 2|Incorrect Answer 3'

The options are ordered by a hash of their text, since in the file the right one is the first.

The cap of $500 pays for these 225 problems in the worst case: all 1,350 texts at their greatest
length, replies of 16,384 tokens, cost $246, and with a second try for each of them $492. With
replies of 5,000 tokens, thoughts included, and no second try, they would cost about $76, and 1,000
problems about $339; but the worst case of 1,000 problems is $2,186. For more problems, raise
`selection.size` and the caps together (`budget.queries`, `budget.usd`); `launch.plan` says what
they would cost.

Hardware: TPU, 8 chips of v5p or 16 of v6e. Planned for them, not run, so no score is known. On v5p
it is at least 7 h 12 min of work, about 15 h expected without compilation, or 120 chip-hours,
nearly all of them for 16 answers to each test question under four controls (docs/budgets.md). As
compiled (docs/plans.md) it takes at most 75.2 GiB a chip of v5p. That is in reinforcement learning,
which does not fit the 16 chips of v6e; everything else takes 38.9 GiB on v5p, and 19.9 on v6e.
"""

from bridge_jax.config import (
    BudgetConfig,
    DataConfig,
    EvaluationConfig,
    GenerationConfig,
    InstructConfig,
    MeshConfig,
    ModelConfig,
    ReinforcementConfig,
    RunConfig,
    SelectionConfig,
    TeacherConfig,
    ThinkingConfig,
    TrainConfig,
)

QUESTIONS, TRIES, LEVELS = 225, 2, (500, 1000, 2000, 4000, 8000)
ROW = 10_240  # a prompt, the largest budget and an answer
REPLY_ROW = 11_776  # a prompt and the longest reply of reinforcement learning, 10,544 tokens


def get_config() -> RunConfig:
    """Returns the config; `data.path` is a flag."""
    return RunConfig(
        name="bard_8b",
        method="budgeted",
        max_prompt_tokens=1024,
        data=DataConfig(source="jsonl", kind="numeric", pool=4000, dev=100, test=60),
        # Pays for every reply at its longest, and for every retry.
        budget=BudgetConfig(queries=TRIES * QUESTIONS * (1 + len(LEVELS)), usd=500.0),
        teacher=TeacherConfig(
            kind="gemini",
            model="gemini-2.5-pro",
            reasoning="long",
            max_output_tokens=16_384,
            max_rationale_tokens=8192,
            retries=TRIES - 1,
            temperature=1.0,
        ),
        student=ModelConfig("Qwen/Qwen3-8B"),
        selection=SelectionConfig(size=QUESTIONS, strategy="random", noise_fraction=0.0),
        instruct=InstructConfig(examples=0),
        thinking=ThinkingConfig(
            levels=LEVELS,
            tries=TRIES,
            form="tags",
            train=TrainConfig(
                epochs=2, batch_rows=16, row_tokens=ROW, learning_rate=1e-5, remat="full"
            ),
            controls=("stated", "capped", "truncated", "forced"),
            closing="\n\nI have to answer now, from what I have found so far.",
            answer_tokens=512,
            repeats=16,
        ),
        reinforcement=ReinforcementConfig(
            kl=0.001,
            train=TrainConfig(
                steps=100,
                batch_rows=64,  # as many as there are replies: 8 to each of 8 questions
                row_tokens=REPLY_ROW,
                accumulate=4,
                learning_rate=1e-6,
                remat="full",
            ),
        ),
        generation=GenerationConfig(
            max_new_tokens=8704, batch_size=64, temperature=0.6, top_p=0.95, cache="bf16"
        ),
        evaluation=EvaluationConfig(student_before=False),
        mesh=MeshConfig(),
    )
