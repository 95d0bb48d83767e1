"""Compares the plain method with more tries, and with training on one's own rationales.

    python -m launch.study --config=configs/studies/rationales.py --workdir=runs/seeds

The runs are the quickstart's; those of `direct_vs_bridge` are reused in its workdir. None of the
changes costs a teacher query. *Rejected left out*: where a rationale is rejected, the student does
not learn the label either. *Four tries*: there, four more are sampled, and the first that ends in
the right answer is kept. *One round*: the assistant is trained on what was kept before it writes
for the student.

Written down before the first run: five seeds, each with 200 test questions. The student of seeds 0
and 1 had 75.5 and 73.5%. If paired differences deviate by 5 points from seed to seed, five seeds
see a mean difference of 6 points or more (t = 2.78).

20 runs on two CPU cores, five of them of `direct_vs_bridge`. Not run since the quickstart has five
values and asks in parts. With nine, asked at once, at 3188a1a, four tries added 8 points (1 to 17)
to the student's 66%, and at revision ba433c3 three seeds without what was rejected gained 2.5.
About five minutes a run.
"""

from bridge_jax.study.study import Study
from configs.studies.direct_vs_bridge import BRIDGE, SEEDS, run

ROUND = (
    "rationales.rounds=1",
    "round_training.steps=90",  # As many as the first training took.
    "round_training.batch_rows=2",
    "round_training.row_tokens=104",
    "round_training.learning_rate=1e-4",
    "round_training.remat=none",
)
VARIANTS = {
    BRIDGE: (),
    "rejected left out": ("rationales.rejected=nothing",),
    "four tries": ("rationales.retries=4", "rationales.retry_temperature=0.7"),
    "one round": ROUND,
}


def get_study() -> Study:
    """Returns the study."""
    runs = [run(variant, seed, *changes) for variant, changes in VARIANTS.items() for seed in SEEDS]
    question = "What do more tries and training on one’s own rationales add?"
    return Study("rationales", question, tuple(runs), BRIDGE)
