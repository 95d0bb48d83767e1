"""Measures whether the method helps if the answer is free text.

    python -m launch.study --config=configs/studies/open_ended.py --workdir=runs/practice

The answer is an explanation in a sentence; its score is the ROUGE-L with the gold answer (extra
`[tf-text]`). An answer that reaches 0.8 counts as right, for the filter and for the accuracy.

15 runs. Took 13 min 36 s on two CPU cores at revision 4f41199, after other studies in the same
workdir. The student has 99% with an assistant, 67% without one, and 99% with the labels alone.
"""

from bridge_jax.study.study import Study
from configs.studies import common

OPEN = (
    "data.kind=text",
    "data.min_rouge=0.8",
    "generation.max_new_tokens=36",
    "max_prompt_tokens=64",  # Includes the gold text that the assistant is shown.
    *(f"{training}.row_tokens=240" for training in common.TRAININGS),
    "assistant_training.row_tokens=104",
)
VARIANTS = {
    "bridge": (),
    "random questions": ("selection.strategy=random",),
    "no filter": ("rationales.filter=none",),
    "direct": ("method=direct",),
    "labels alone": ("method=labels",),
}


def get_study() -> Study:
    """Returns the study."""
    asked = common.share(5)
    runs = [
        common.run(variant, seed, *asked, *OPEN, *changes)
        for seed in common.SEEDS
        for variant, changes in VARIANTS.items()
    ]
    return Study(
        "open_ended", "Does the method help where the answer is a text?", tuple(runs), "bridge"
    )
