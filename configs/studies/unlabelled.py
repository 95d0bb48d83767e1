"""Measures what is lost if the pool has no labels.

    python -m launch.study --config=configs/studies/unlabelled.py --workdir=runs/practice

Without labels, the assistant still warms up on the quarter of the pool that is labeled. The pool is
scored on the assistant's own answers (not for questions at random), and its later rationales are
used with whatever answers they end in.

12 runs. Took 7 min 13 s on two CPU cores at revision 4f41199, after other studies in the same
workdir. The student learns the assistant's guesses: 30 to 37%, against 78% with labels.
"""

from bridge_jax.study.study import Study
from configs.studies import common

UNLABELLED = (
    *common.share(5, modes=1),
    "data.labelled=false",
    "teacher.keep_wrong=true",
    "rationales.filter=none",
    "selection.difficulty=entropy",
    "selection.within_labels=false",
)
VARIANTS = {
    "labelled": common.share(5),
    "unlabelled, by entropy": UNLABELLED,
    "unlabelled, at random": (*UNLABELLED, "selection.strategy=random"),
    "unlabelled, by confidence": (*UNLABELLED, "rationales.filter=confidence"),
}


def get_study() -> Study:
    """Returns the study."""
    runs = [
        common.run(variant, seed, *changes)
        for seed in common.SEEDS
        for variant, changes in VARIANTS.items()
    ]
    return Study(
        "unlabelled", "What is lost where the pool has no labels?", tuple(runs), "labelled"
    )
