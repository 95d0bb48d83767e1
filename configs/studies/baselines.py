"""What does each part of the method add? The baselines and ablations at 5% of the pool.

    python -m launch.study --config=configs/studies/baselines.py --workdir=runs/baselines

docs/baselines.md says what each of them is.
"""

from bridge_jax.studies.study import Study
from configs.studies import common

VARIANTS = {
    "bridge": (),
    "labels alone": ("method=labels",),
    "direct": ("method=direct",),
    "step by step": ("method=direct", "form=two_pass"),
    "self-training": ("method=self",),
    "random questions": ("selection.strategy=random",),
    "no filter": ("rationales.filter=none",),
    "filter by confidence": ("rationales.filter=confidence",),
    "filter by consistency": ("rationales.filter=consistency",),
    "no instructions": ("instruct.examples=0",),
    "logits": ("logits.weight=0.5",),
}


def get_study() -> Study:
    """Returns the study."""
    asked = common.share(5)
    cells = [
        common.cell(variant, seed, *asked, *changes)
        for seed in common.SEEDS
        for variant, changes in VARIANTS.items()
    ]
    return Study("baselines", "What does each part of the method add?", tuple(cells), "bridge")
