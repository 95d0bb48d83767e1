"""Real financial questions at 5%: chosen or random, with or without an assistant.

    jq -c 'select(.rationale)' DATA/fin_tatqa.jsonl > tatqa.jsonl
    python -m launch.study --config=configs/studies/financial.py --workdir=runs/financial_study \
        --data.path=tatqa.jsonl

Questions about a table and a text (TAT-QA) whose answers are numbers; the teacher replays the
derivations that people wrote. Of 200 questions ten are asked.
"""

from bridge_jax.studies.study import Study
from configs import medical_cpu
from configs.studies import recorded


def get_study() -> Study:
    """Returns the study."""
    return recorded.study(
        "financial",
        "TAT-QA at 5%: does it matter what is asked, and does the assistant help?",
        medical_cpu.get_config(),
        [
            "data.kind=numeric",
            "data.choices=",
            "data.on_bad_row=skip",
            "data.rationale=rationale",
            "data.pool=200",
            "data.test=200",
            "teacher.model=human",
            "budget.queries=10",
            "direct_training.epochs=40",
            "generation.max_new_tokens=64",
            "generation.batch_size=50",
            "evaluation.assistant_examples=50",
        ],
    )
