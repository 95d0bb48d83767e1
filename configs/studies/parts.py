"""Compares asking all questions at once with asking in six parts.

    python -m launch.study --config=configs/studies/parts.py --workdir=runs/seeds

The runs are the quickstart's without further tries; stages of `direct_vs_bridge` are reused in its
workdir. *In six parts*: the strategy chooses five questions. An assistant learns their answers and
drafts rationales for 100 others; of those with wrong drafts, the five with the most new n-grams are
asked next, and so on (`selection.parts`). The teacher answers 30 in both.

Written down before the first run: what limits the quickstart is the number of its 50 sums that the
answers tell. In a simulation without models, of 60 drawings, random questions told 46.3 of them,
questions in four parts 49.3 and in six 49.7; all sums of a question were told for 77% of questions
(standard deviation over the drawings 10 points), for 96% (5) and for 98% (3). If paired differences
of students deviate by 10, five seeds can detect a mean difference of 12 points or more (t = 2.78).

10 runs on two CPU cores, which share stages with `direct_vs_bridge`. The five that ask at once were
run at a9917f8, in 9 to 13 minutes each on one core: the student has 98.6%, and 99.3% in six parts
with four further tries (the difference is -1.6 to 3.0 points). Parts with one try were not run.
With four items in a question and three parts, at revisions b823db1 and f6fcbb8, the student had 80%
asked at once and 92% in parts, 12 points more (0.5 to 23.9).
"""

from bridge_jax.study.study import Study
from configs.studies.direct_vs_bridge import SEEDS, run

ONE_TRY = "rationales.retries=0"
AT_ONCE = (ONE_TRY, "selection.parts=1")
PARTS = "in six parts"
VARIANTS = {PARTS: (ONE_TRY,), "asked at once": AT_ONCE}


def get_study() -> Study:
    """Returns the study."""
    runs = [run(variant, seed, *changes) for variant, changes in VARIANTS.items() for seed in SEEDS]
    return Study("parts", "Does it help to ask in parts?", tuple(runs), PARTS)
