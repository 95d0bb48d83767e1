"""Compares selected and random financial questions at 5%, with and without an assistant.

    jq -c 'select(.rationale)' DATA/fin_tatqa.jsonl > tatqa.jsonl
    python -m launch.study --config=configs/studies/financial.py --workdir=runs/financial_study \
        --data.path=tatqa.jsonl

The questions are about a table and a text (TAT-QA), and the answers are numbers; the teacher
replays the derivations that people wrote (`DATA` as in `configs/medical_cpu.py`). The pool has 80
questions (their last 230 tokens or so), of which four are asked; 100 others are the test.

9 runs. Took 48 min 54 s on two CPU cores, at times beside tests, with code from before the history
of this repository. Only the form of the answers is learned: 0 to 1% are right, with and without an
assistant.
"""

from bridge_jax.study.study import Study
from configs.studies import recorded


def get_study() -> Study:
    """Returns the study."""
    return recorded.study(
        "financial",
        "TAT-QA at 5%: does it matter what is asked, and does the assistant help?",
        row=352,
        changes=[
            "data.kind=numeric",
            "data.choices=",
            "data.on_bad_row=skip",
            "data.rationale=rationale",
            "teacher.model=human",
            "max_prompt_tokens=256",
            "generation.max_new_tokens=48",
            "generation.batch_size=50",
        ],
    )
