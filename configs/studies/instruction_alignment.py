"""Measures whether the student learns from rationales without instruction tuning.

    python -m launch.study --config=configs/studies/instruction_alignment.py --workdir=runs/practice

The paper calls the failure without instruction tuning *instruction blindness*; the page counts it.

9 runs. Took 3 min 35 s on two CPU cores at revision 4f41199, after other studies in the same
workdir. No effect shows: 75% without instructions, 78% with 120, 81% with 240.
"""

from bridge_jax.study.study import Study
from configs.studies import common

INSTRUCTIONS = {"without instructions": 0, "120 instructions": 120, "240 instructions": 240}


def get_study() -> Study:
    """Returns the study."""
    asked = common.share(5)
    runs = [
        common.run(variant, seed, f"instruct.examples={examples}", *asked)
        for seed in common.SEEDS
        for variant, examples in INSTRUCTIONS.items()
    ]
    return Study(
        "instruction_alignment",
        "Does the student need to be tuned on instructions first?",
        tuple(runs),
        reference="without instructions",
    )
