"""The quickstart over three seeds: is the student better than the direct student?

    python -m launch.study --config=configs/studies/quickstart_seeds.py --workdir=runs/seeds

A seed changes the practice data, the selection, the batch order and the sampling. The direct
student, which has 16 examples and not 320, is trained for nearly as many steps as the student: 126
against 132 to 138 (the quickstart stops it after 30, to save time).
"""

from bridge_jax.config_io import override
from bridge_jax.studies.study import Cell, Study
from configs import quickstart

METHODS = {
    "bridge": ("compare_direct=false",),
    "direct": ("compare_direct=false", "method=direct", "direct_training.epochs=42"),
}


def get_study() -> Study:
    """Returns the study."""
    base = quickstart.get_config()
    cells = [
        Cell(method, override(base, [f"seed={seed}", f"name={method}", *changes]))
        for seed in range(3)
        for method, changes in METHODS.items()
    ]
    return Study(
        "quickstart_seeds",
        "Is the student better than one that learns from the teacher directly?",
        tuple(cells),
        reference="direct",
    )
