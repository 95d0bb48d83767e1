"""Measures how much of the assistant's errors reaches the student, with and without a filter.

    python -m launch.study --config=configs/studies/hallucination.py --workdir=runs/practice

Errors are added to 0, 20 or 50% of the rationales. An error is either another answer of the task,
which the filter by gold answers finds, or the reasoning of another example before the right answer,
which the filter cannot find. All runs of a seed share the assistant and its rationales. The
assistant is shown the gold answers, so it makes few errors of its own.

36 runs. Took 11 min 43 s on two CPU cores at revision 4f41199, after other studies in the same
workdir. Without a filter, errors in half of the rationales cost 20 or 21 points. The filter
recovers 11 of the points that wrong answers cost, and none of the points that wrong reasoning
costs.
"""

from bridge_jax.study.study import Study
from configs.studies import common

PERCENT = (0, 20, 50)
FILTERS = {"filtered by gold": "gold", "not filtered": "none"}
KINDS = {"wrong answers": "wrong_answer", "wrong reasoning": "wrong_reasoning"}


def get_study() -> Study:
    """Returns the study."""
    asked = common.share(5)
    runs = [
        common.run(
            f"{error}, {filtered}",
            seed,
            *asked,
            f"rationales.corruption={percent / 100}",
            f"rationales.corruption_kind={kind}",
            f"rationales.filter={by}",
            x=percent,
        )
        for seed in common.SEEDS
        for percent in PERCENT
        for error, kind in KINDS.items()
        for filtered, by in FILTERS.items()
    ]
    return Study(
        "hallucination",
        "How much of the assistant’s errors reaches the student?",
        tuple(runs),
        reference="wrong answers, filtered by gold",
        axis="rationales with an error, %",
    )
