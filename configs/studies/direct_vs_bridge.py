"""Compares an assistant and 5% of the teacher's answers with those answers alone, and with labels.

    python -m launch.study --config=configs/studies/direct_vs_bridge.py --workdir=runs/seeds

The runs are those of the quickstart: check digits, whose labels tell neither the values nor the
procedure. Direct students are trained on the teacher's answers to 5% of the pool (the same answers
that the assistant is trained on) and to all of it. Other students are trained on all labels of the
pool, without a teacher. All are trained for as many steps as the student with an assistant, except
for one on labels, which takes five times as many.

`make seeds` runs this study, over five seeds. Each seed has other questions, values, selection and
order of the batches.

25 runs on two CPU cores, 20 of which were run, in 2 to 12 minutes each on one core. At revision
0915b3a the student answers 98.2% with an assistant, 14% without one, and 10% with the labels for as
many steps. At 8709eee it answered 12% with the labels for five times as many. The five runs with
all answers of the teacher were not run.
"""

from bridge_jax.config.io import override
from bridge_jax.study.study import Study, StudyRun
from configs import quickstart
from configs.quickstart import POOL, STEPS

SEEDS = range(5)
BRIDGE = "bridge, 5%"
ON_ALL = (
    "method=direct",
    f"budget.queries={POOL}",
    "selection.strategy=random",  # All are asked: there is nothing to choose.
    "direct_training.row_tokens=306",  # As many examples a step as the student has.
)
MEASURED = "evaluation.assistant_examples=100"
LONG = ("method=labels", f"labels_training.steps={5 * STEPS}")
# In the order in which they run: those that take longest come last.
VARIANTS = (
    {BRIDGE: (), "direct, 5%": ("method=direct",), "labels alone": ("method=labels",)},
    {"direct, 100%": ON_ALL},
    {"labels alone, five times as long": LONG},
)


def get_study() -> Study:
    """Returns the study."""
    return Study(
        "direct_vs_bridge",
        "Does 5% with an assistant beat the teacher’s answers alone?",
        tuple(
            run(variant, seed, *changes)
            for part in VARIANTS
            for seed in SEEDS
            for variant, changes in part.items()
        ),
        reference=BRIDGE,
    )


def run(variant: str, seed: int, *changes: str) -> StudyRun:
    """Returns a run that differs from the quickstart by `changes` ("a.b=value") and the seed."""
    settings = [f"seed={seed}", f"name={variant}", "compare=", "budget.usd=1", MEASURED, *changes]
    return StudyRun(variant, override(quickstart.get_config(), settings))
