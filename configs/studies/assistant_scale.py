"""Measures how much a larger assistant helps: Qwen2.5 3B, 7B and 14B, one pool, one student.

    python -m launch.plan --config=configs/studies/assistant_scale.py --topology=v5e:4x4
    python -m launch.study --config=configs/studies/assistant_scale.py --workdir=DIR \
        --data.path=pubmedqa.jsonl

The questions, the teacher and the student, Qwen2.5-0.5B, are those of `configs/medical_7b.py`,
which says how to get the questions. The questions to ask are drawn at random, so all assistants of
a seed, and the student that reads the answers directly, learn from the same ones; these are paid
for once. Qwen2.5-3B has a license for research only.

12 runs. Hardware: 16 chips of TPU v5e. Planned for them, not run, so no score is known: at least 20
min 03 s of work, about 43 min expected without compilation, or 11.3 chip-hours (about $14 at an
assumed $1.20 each), without waiting for the teacher. The steps were compiled (docs/plans.md) and
fit these chips; the 14B takes at most 15.0 GiB a chip, of 15.75, during generation. With replies of
the greatest length, the teacher costs about $4.01 for 750 queries. 30.7 GiB of models are kept.
"""

from bridge_jax.config.io import override
from bridge_jax.study.study import Study, StudyRun
from configs import medical_7b

SEEDS = range(3)
BILLIONS = (3, 7, 14)


def get_study() -> Study:
    """Returns the study."""
    return Study(
        "assistant_scale",
        "How much does a larger assistant help?",
        tuple(run for seed in SEEDS for run in _runs(seed)),
        reference="direct",
        axis="parameters of the assistant, billions",
    )


def _runs(seed: int) -> list[StudyRun]:
    assistants = {size: f"Qwen/Qwen2.5-{size}B-Instruct" for size in BILLIONS}
    return [
        _run("direct", seed, None, "method=direct"),
        *(
            _run("bridge", seed, size, f"assistant.checkpoint={checkpoint}")
            for size, checkpoint in assistants.items()
        ),
    ]


def _run(variant: str, seed: int, size: int | None, *changes: str) -> StudyRun:
    name = variant if size is None else f"{variant}, {size}B"
    settings = [
        f"seed={seed}",
        f"name={name}",
        "compare=",
        "selection.strategy=random",
        *changes,
    ]
    return StudyRun(variant, override(medical_7b.get_config(), settings), size)
