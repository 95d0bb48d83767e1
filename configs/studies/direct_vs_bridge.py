"""Compares an assistant and 5% of the teacher's answers with the teacher's answers alone.

    python -m launch.study --config=configs/studies/direct_vs_bridge.py --workdir=runs/direct

The direct student is trained on the teacher's answers to 5% of the pool (the same ones that the
assistant is trained on), 10% and 100%, each for about as many steps as the student. Another student
has all labels of the pool and no teacher. It measures what answers without reasons are worth, in as
many epochs as the student and, as labels are short, in as many steps. It and the student are also
trained for twice as many epochs.

`make seeds` runs it: the quickstart over three seeds, each with other questions, another selection
and another order of the batches.

24 runs. Took 17 minutes on two CPU cores. The student has 78% with an assistant and 47% without;
with the labels alone, in as many steps, it has 95%.
"""

from bridge_jax.study.study import Study, StudyRun
from configs.quickstart import EPOCHS
from configs.studies import common

BRIDGE, LONGER = "bridge, 5%", "twice as long"
TWICE = f"student_training.epochs={2 * EPOCHS}"


def get_study() -> Study:
    """Returns the study."""
    return Study(
        "direct_vs_bridge",
        "Does 5% with an assistant beat the teacher’s answers alone?",
        tuple(run for seed in common.SEEDS for run in _runs(seed)),
        reference=BRIDGE,
    )


def _runs(seed: int) -> list[StudyRun]:
    def direct(percent: float, *changes: str) -> StudyRun:
        asked = common.share(percent)
        return common.run(f"direct, {percent:g}%", seed, "method=direct", *asked, *changes)

    def labels(variant: str, *changes: str) -> StudyRun:
        return common.run(variant, seed, *common.share(5), "method=labels", *changes)

    return [
        common.run(BRIDGE, seed, *common.share(5)),
        common.run(f"{BRIDGE}, {LONGER}", seed, *common.share(5), TWICE),
        direct(5),
        direct(10),
        direct(100, "selection.strategy=random"),  # All are asked: there is nothing to choose.
        labels("labels alone"),
        labels("labels alone, as many steps", f"student_training.epochs={3 * EPOCHS // 2}"),
        labels(f"labels alone, {LONGER}", TWICE),
    ]
