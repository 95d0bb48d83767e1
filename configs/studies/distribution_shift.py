"""Measures what is lost if the labels come from other questions than those of the pool.

    python -m launch.study --config=configs/studies/distribution_shift.py --workdir=runs/practice

The pool has two domains, triage and check digits of samples, both with two steps. The assistant
warms up on both domains or on one of them, and then scores the whole pool.

9 runs. Hardware: two CPU cores suffice. Not run with these domains: neither time nor score is
known.
"""

from bridge_jax.study.study import Study
from configs.studies import common

WARM_UPS = {"both domains": "", "triage alone": "triage", "samples alone": "samples"}
TWO_DOMAINS = (
    "data.domains=triage,samples",
    "data.min_steps=2",
    "data.max_steps=2",
    "max_prompt_tokens=64",
    "generation.max_new_tokens=48",
    *(f"{training}.row_tokens=240" for training in common.TRAININGS),
    "assistant_training.row_tokens=112",
)


def get_study() -> Study:
    """Returns the study."""
    asked = common.share(5)
    runs = [
        common.run(variant, seed, *asked, *TWO_DOMAINS, f"warmup.domains={domains}")
        for seed in common.SEEDS
        for variant, domains in WARM_UPS.items()
    ]
    return Study(
        "distribution_shift",
        "What if the labels at hand are of other questions than the pool?",
        tuple(runs),
        reference="both domains",
    )
