"""Compares asking all questions at once with asking in six parts.

    python -m launch.study --config=configs/studies/parts.py --workdir=runs/seeds

The runs are the quickstart's; in the workdir of `direct_vs_bridge`, its runs are reused. *In six
parts*: the strategy chooses five questions. An assistant learns their answers and drafts rationales
for 100 others; of those with wrong drafts, the five with the most new n-grams are asked next, and
so on (`selection.parts`). The teacher answers 30 in both.

Written down before the first run: what limits the quickstart is the number of its 50 sums that the
answers tell. In a simulation without models, of 60 drawings, random questions told 46.3 of them,
questions in four parts 49.3 and in six 49.7; all sums of a question were told for 77% of questions
(standard deviation over the drawings 10 points), for 96% (5) and for 98% (3). If paired differences
of students deviate by 10, five seeds can detect a mean difference of 12 points or more (t = 2.78).

10 runs on two CPU cores; parts with one try were not run on the present task. At revision a9917f8,
with students of 250 steps, they had 98.6% asked at once, and 99.3% in six parts with four further
tries (the difference is -1.6 to 3.0 points). With four items in a question and three parts, at
revisions b823db1 and f6fcbb8, the student had 80% asked at once and 92% in parts, 12 points more
(0.5 to 23.9).
"""

from bridge_jax.study.study import Study
from configs.studies.direct_vs_bridge import BRIDGE, SEEDS, run

VARIANTS = {BRIDGE: (), "in six parts": ("selection.parts=6",)}


def get_study() -> Study:
    """Returns the study."""
    runs = [run(variant, seed, *changes) for variant, changes in VARIANTS.items() for seed in SEEDS]
    return Study("parts", "Does it help to ask in parts?", tuple(runs), BRIDGE)
