"""Compares asking all questions at once with asking in three parts.

    python -m launch.study --config=configs/studies/parts.py --workdir=runs/seeds

The runs are the quickstart's without further tries; stages of `direct_vs_bridge` are reused in its
workdir. *In three parts*: ten questions are chosen by the strategy. An assistant learns their
answers and drafts rationales for 200 others; the ten with the wrong drafts that have the most new
n-grams are asked next; then once more (`selection.parts`). The teacher answers 30 in both.

Written down before the first run: what limits the quickstart is the number of its 50 sums that the
answers tell. In a simulation without models, of 20 drawings, random questions told 44.8 of them and
questions in three parts 48.6; all sums of a question were told for 72 and 93% of questions, with a
standard deviation of 8 points over the drawings. If paired differences of students deviate by as
much, five seeds can detect a mean difference of 10 points or more (t = 2.78).

10 runs on two CPU cores, which share stages with `direct_vs_bridge`; 10 to 18 minutes each on one
core. At revisions b823db1 and f6fcbb8 the student has 80% asked at once and 92% in three parts, 12
points more (0.5 to 23.9).
"""

from bridge_jax.study.study import Study
from configs.studies.direct_vs_bridge import SEEDS, run

ONE_TRY = "rationales.retries=0"
AT_ONCE = (ONE_TRY, "selection.parts=1")
PARTS = "in three parts"
VARIANTS = {PARTS: (ONE_TRY,), "asked at once": AT_ONCE}


def get_study() -> Study:
    """Returns the study."""
    runs = [run(variant, seed, *changes) for variant, changes in VARIANTS.items() for seed in SEEDS]
    return Study("parts", "Does it help to ask in parts?", tuple(runs), PARTS)
