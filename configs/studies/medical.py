"""Compares selected and random medical questions at 5%, with and without an assistant.

    python -m launch.study --config=configs/studies/medical.py --workdir=runs/medical_study \
        --data.path=DATA/med_pubmedqa.jsonl

The data and the teacher are those of `configs/medical_cpu.py`: a pool of 80 abstracts (their last
170 tokens or so), of which four are asked about, and 100 abstracts for the test.

9 runs. Took 2 h 46 min of work, summed over two CPU cores, with code from before the history of
this repository. The student has 51% with selected and 56% with random questions, and 25% without an
assistant. Always answering "yes" gives 58%: the student learns the form of the answer, not the
subject.
"""

from bridge_jax.study.study import Study
from configs.studies import recorded


def get_study() -> Study:
    """Returns the study."""
    return recorded.study(
        "medical",
        "PubMedQA at 5%: does it matter what is asked, and does the assistant help?",
        row=736,
        changes=[
            "max_prompt_tokens=192",
            "generation.max_new_tokens=256",
            "generation.batch_size=40",
        ],
    )
