"""Compares asking all questions at once with asking in three parts, of which drafts decide two.

    python -m launch.study --config=configs/studies/parts.py --workdir=runs/seeds

The runs are the quickstart's; those of `direct_vs_bridge` are reused in its workdir. *In three
parts*: ten questions are chosen by the strategy. An assistant learns their answers and drafts
rationales for 200 others; the ten wrong drafts that say most that no answer says are asked next;
then once more (`selection.parts`). The teacher answers 30 questions in both.

Written down before the first run: what limits the quickstart is the number of its 50 sums that the
answers tell. A simulation without models, of 20 drawings, has 44.8 told by random questions and
48.6 in three parts, and 72 and 93% of questions with no sum that is not told, which deviate by 8
points from drawing to drawing. If paired differences of students deviate by as much, five seeds
see a mean difference of 10 points or more (t = 2.78).

10 runs on two CPU cores, five of them of `direct_vs_bridge`. Not run yet.
"""

from bridge_jax.study.study import Study
from configs.studies.direct_vs_bridge import BRIDGE, SEEDS, run

VARIANTS = {BRIDGE: (), "in three parts": ("selection.parts=3",)}


def get_study() -> Study:
    """Returns the study."""
    runs = [run(variant, seed, *changes) for variant, changes in VARIANTS.items() for seed in SEEDS]
    return Study("parts", "Does it help to ask in parts?", tuple(runs), BRIDGE)
