r"""Runs BRIDGE on clauses of terms of service: assistant Qwen2.5-7B, student Qwen2.5-0.5B.

The task is `unfair_tos` of LegalBench (CC BY 4.0): which of eight kinds of unfair term a clause
has, if any. Download its train.tsv and test.tsv (in data.tar.gz of the hub's nguha/legalbench), or
its parquet files. Then

    python -m launch.convert --from=legalbench --train=train.tsv --path=test.tsv \
        --out=unfair_tos.jsonl
    python -m launch.plan --config=configs/legal_7b.py --topology=v5e:4x4
    export GEMINI_API_KEY=...
    python -m launch.run --config=configs/legal_7b.py --workdir=DIR --data.path=unfair_tos.jsonl

LegalBench publishes nine examples for prompts and tests on all the others. So its test is split
anew, with equal clauses in the same split, and a score is not LegalBench's. The pool has up to
3,000 clauses, of which 150 are asked. Most clauses are *Other*: compare with that constant answer.
For another task, change `instruction` and `choices`.

Hardware: 16 chips of TPU v5e. Planned for them, not run, so no score is known: at least 1 min 37 s
of work, about 3 min expected without compilation, or 0.9 chip-hours (about $1 at an assumed $1.20
each), without waiting for the teacher. As compiled (docs/plans.md) it takes at most 10.0 GiB a
chip. With replies of the greatest length, the teacher costs about $0.79, and at most $1.05 with
every retry; the cap is $2. Of 518 of these clauses, none has a prompt of more than 456 tokens, by
the tokenizer of SmolLM2.
"""

import dataclasses

from bridge_jax.config import BudgetConfig, RunConfig
from configs import medical_7b

ASKED, RETRIES = 150, 50


def get_config() -> RunConfig:
    """Returns the config; `data.path` is a flag."""
    medical = medical_7b.get_config()
    return dataclasses.replace(
        medical,
        name="legal_7b",
        max_prompt_tokens=512,
        data=dataclasses.replace(
            medical.data,
            instruction="The text is a clause of the terms of service of a web site. Which kind of "
            "unfair term is it, if any?",
            choices=(
                "Arbitration",
                "Unilateral change",
                "Content removal",
                "Jurisdiction",
                "Choice of law",
                "Limitation of liability",
                "Unilateral termination",
                "Contract by using",
                "Other",
            ),
            pool=3000,
        ),
        budget=BudgetConfig(queries=ASKED + RETRIES, usd=2.0),
        selection=dataclasses.replace(medical.selection, size=ASKED),
    )
