"""Compares the quickstart with a single try, and with training on one's own rationales.

    python -m launch.study --config=configs/studies/rationales.py --workdir=runs/seeds

The runs are the quickstart's; those of `direct_vs_bridge` are reused in its workdir. None of the
changes costs a teacher query. *No further tries*: where a rationale is rejected, the student learns
the label. In the quickstart four more are sampled there at temperature 0.7, and the first that ends
in the right answer is kept. *Rejected left out*: where no try is right, the student does not learn
the label either. *One round*: the assistant is trained on what was kept before it writes for the
student.

Written down before the first run, on a task of nine values: five seeds, each with 200 test
questions. The student of seeds 0 and 1 had 75.5 and 73.5%. If paired differences deviate by 5
points from seed to seed, five seeds can detect a mean difference of 6 points or more (t = 2.78).

20 runs on two CPU cores, five of them of `direct_vs_bridge`; the others reuse its assistant and
take about six minutes each, a round longer. Not run since questions name five items. With four, at
revision e0afd18, further tries added 3 points (-2 to 8) to the student's 92%. With three items of
nine values, asked at once, tries added 8 points (1 to 17) to 66% at 3188a1a, and at ba433c3 three
seeds without what was rejected gained 2.5.
"""

from bridge_jax.study.study import Study
from configs.studies.direct_vs_bridge import BRIDGE, SEEDS, run

ROUND = (
    "rationales.rounds=1",
    "round_training.steps=90",  # As many as the first training took.
    "round_training.batch_rows=2",
    "round_training.row_tokens=112",
    "round_training.learning_rate=1e-4",
    "round_training.remat=none",
)
VARIANTS = {
    BRIDGE: (),
    "no further tries": ("rationales.retries=0",),
    "rejected left out": ("rationales.rejected=nothing",),
    "one round": ROUND,
}


def get_study() -> Study:
    """Returns the study."""
    runs = [run(variant, seed, *changes) for variant, changes in VARIANTS.items() for seed in SEEDS]
    question = "What do further tries and training on one’s own rationales add?"
    return Study("rationales", question, tuple(runs), BRIDGE)
