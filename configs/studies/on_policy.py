"""Asks whether a tutored student gains more from its own replies than from more of the assistant's.

    python -m launch.study --config=configs/studies/on_policy.py --workdir=runs/seeds

The runs are the quickstart's (configs/studies/direct_vs_bridge.py), whose first variant is shared.
`on-policy` continues it for 60 steps of 16 replies each, under the assistant's distribution
(method=on_policy); `more tutoring` trains for 160 steps more on the assistant's kept rationales,
which are about as many tokens. None asks the teacher for more.

15 runs. Hardware: two CPU cores suffice. Not run since the quickstart has five values, asks in
parts and tries again. With nine, asked at once, at revision 80064c5, it took 2 h 31 min on one core
beside other work. The student had 66% before, 67% after its own replies and 70% after more
tutoring, which five seeds cannot tell apart (docs/results.md).
"""

from bridge_jax.study.study import Study
from configs.quickstart import STEPS
from configs.studies.direct_vs_bridge import BRIDGE, SEEDS, run

ON_POLICY = (
    "method=on_policy",
    "on_policy.train.steps=60",
    "on_policy.train.batch_rows=2",
    "on_policy.train.row_tokens=266",
    "on_policy.train.learning_rate=1e-4",
    "on_policy.train.remat=none",
)
MORE = (f"student_training.steps={STEPS + 160}",)


def get_study() -> Study:
    """Returns the study."""
    variants = {BRIDGE: (), "on-policy": ON_POLICY, "more tutoring": MORE}
    return Study(
        "on_policy",
        "Does the student gain more from its own replies than from more of the assistant’s?",
        tuple(run(name, seed, *changes) for seed in SEEDS for name, changes in variants.items()),
        reference=BRIDGE,
    )
