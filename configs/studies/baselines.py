"""Measures what each part of the method adds: baselines and ablations at 5% of the pool.

    python -m launch.study --config=configs/studies/baselines.py --workdir=runs/practice

docs/baselines.md defines each of them.

36 runs. Took 13 min 52 s on two CPU cores at revision 4f41199, where three of the twelve variants
had been run before. The student has 78% with the method, 32% if the assistant is not shown the gold
answers, and 47% if it learns the teacher's answers directly.
"""

from bridge_jax.study.study import Study
from configs.studies import common

ASKED = common.share(5)
VARIANTS = {
    "bridge": ASKED,
    "labels alone": (*ASKED, "method=labels"),
    "direct": (*ASKED, "method=direct"),
    "step by step": (*ASKED, "method=direct", "form=two_pass"),
    "self-training": (*ASKED, "method=self"),
    "random questions": (*ASKED, "selection.strategy=random"),
    "gold not shown": (*common.share(5, modes=1), "rationales.show_gold=false"),
    "no filter": (*ASKED, "rationales.filter=none"),
    "filter by confidence": (*ASKED, "rationales.filter=confidence"),
    "filter by consistency": (*ASKED, "rationales.filter=consistency"),
    "no instructions": (*ASKED, "instruct.examples=0"),
    "logits": (*ASKED, "logits.weight=0.5"),
}


def get_study() -> Study:
    """Returns the study."""
    runs = [
        common.run(variant, seed, *changes)
        for seed in common.SEEDS
        for variant, changes in VARIANTS.items()
    ]
    return Study("baselines", "What does each part of the method add?", tuple(runs), "bridge")
