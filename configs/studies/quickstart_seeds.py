"""The quickstart over three seeds: is the student better than one taught without an assistant?

    python -m launch.study --config=configs/studies/quickstart_seeds.py --workdir=runs/seeds

A seed changes the practice data, the selection, the batch order and the sampling. The direct
student learns from the very answers that the assistant learned from, and reads as many examples as
the student; the one taught by labels alone reads the gold answers of the whole pool.
"""

from bridge_jax.config_io import override
from bridge_jax.studies.study import Cell, Study
from configs import quickstart

METHODS = {"bridge": "bridge", "direct": "direct", "labels alone": "labels"}


def get_study() -> Study:
    """Returns the study."""
    base = quickstart.get_config()
    cells = [
        Cell(
            variant,
            override(
                base,
                [f"seed={seed}", f"name={variant}", "compare_direct=false", f"method={method}"],
            ),
        )
        for seed in range(3)
        for variant, method in METHODS.items()
    ]
    return Study(
        "quickstart_seeds",
        "Is the student better than one that is taught without an assistant?",
        tuple(cells),
        reference="bridge",
    )
