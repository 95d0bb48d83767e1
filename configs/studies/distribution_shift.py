"""What if the labels at hand are of other questions than the pool?

    python -m launch.study --config=configs/studies/distribution_shift.py --workdir=runs/shift

The pool is of two domains, dosing and deadlines. The assistant warms up on both or on one of them,
and then judges all of the pool.
"""

from bridge_jax.studies.study import Study
from configs.studies import common

WARM_UPS = {"both domains": "", "dosing alone": "dosing", "deadlines alone": "deadlines"}


def get_study() -> Study:
    """Returns the study."""
    asked = f"budget.queries={common.queries(5)}"
    cells = [
        common.cell(
            variant, seed, asked, "data.domains=dosing,deadlines", f"warmup.domains={domains}"
        )
        for seed in common.SEEDS
        for variant, domains in WARM_UPS.items()
    ]
    return Study(
        "distribution_shift",
        "What if the labels at hand are of other questions than the pool?",
        tuple(cells),
        reference="both domains",
    )
