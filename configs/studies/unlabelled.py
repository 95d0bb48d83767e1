"""What is lost where the pool has no labels, and only the entropy says what is hard?

    python -m launch.study --config=configs/studies/unlabelled.py --workdir=runs/unlabelled

The selection alone does without labels: the warm-up and the filter of the rationales go on using
them.
"""

from bridge_jax.studies.study import Study
from configs.studies import common

SCORES = {
    "random": ("selection.strategy=random",),
    "entropy": ("selection.difficulty=entropy", "selection.within_labels=false"),
    "loss on the label": ("selection.difficulty=nll",),
}


def get_study() -> Study:
    """Returns the study."""
    asked = f"budget.queries={common.queries(5)}"
    cells = [
        common.cell(variant, seed, asked, *changes)
        for seed in common.SEEDS
        for variant, changes in SCORES.items()
    ]
    return Study(
        "unlabelled", "Is the entropy enough to choose what to ask?", tuple(cells), "random"
    )
