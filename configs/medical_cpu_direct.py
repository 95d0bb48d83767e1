"""Runs the baseline of `configs/medical_cpu.py`: the same student, trained on the paid answers.

    python -m launch.run --config=configs/medical_cpu_direct.py --workdir=runs/medical_direct \
        --data.path=DATA/med_pubmedqa.jsonl

In a copy of that config's workdir it reuses warm-up, scores, selection and paid answers. Hardware:
a CPU. Together the two runs take more than an hour; not measured since the assistant is shown gold
answers. In a smaller study (`configs/studies/medical.py`) the direct student has 25%.
"""

import dataclasses

from bridge_jax.config import RunConfig
from configs import medical_cpu


def get_config() -> RunConfig:
    """Returns the config of BRIDGE with the method changed; the budget is the same."""
    return dataclasses.replace(medical_cpu.get_config(), name="medical_cpu_direct", method="direct")
