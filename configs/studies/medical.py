"""Real medical questions at 5%: chosen or random, with or without an assistant.

    python -m launch.study --config=configs/studies/medical.py --workdir=runs/medical_study \
        --data.path=DATA/med_pubmedqa.jsonl

The data are those of `configs/medical_cpu.py`: 120 abstracts, of which six are asked about, and 120
to be tested on. The direct student makes about as many steps as the others, 135.
"""

from bridge_jax.studies.study import Study
from configs import medical_cpu
from configs.studies import recorded


def get_study() -> Study:
    """Returns the study."""
    return recorded.study(
        "medical",
        "PubMedQA at 5%: does it matter what is asked, and does the assistant help?",
        medical_cpu.get_config(),
        [
            "data.pool=120",
            "data.test=120",
            "budget.queries=6",
            "direct_training.epochs=40",
            "generation.batch_size=40",
            "evaluation.assistant_examples=40",
        ],
    )
