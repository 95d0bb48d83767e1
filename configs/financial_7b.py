r"""Runs BRIDGE on financial reports: assistant Qwen2.5-7B, student Qwen2.5-0.5B, numeric answers.

The questions are those of TAT-QA (CC BY 4.0), about a table and paragraphs. Download the three
files from its repository (github.com/NExTplusplus/TAT-QA, folder dataset_raw) or from the hub's
next-tat/TAT-QA. Then

    python -m launch.convert --from=tatqa_numbers --train=tatqa_dataset_train.json \
        --dev=tatqa_dataset_dev.json --test=tatqa_dataset_test_gold.json --out=tatqa.jsonl
    python -m launch.plan --config=configs/financial_7b.py --topology=v5e:4x4
    export GEMINI_API_KEY=...
    python -m launch.run --config=configs/financial_7b.py --workdir=DIR --data.path=tatqa.jsonl

The answers are calculations, counts and spans that are a number. The question states the scale
(millions, percent), so a score is not TAT-QA's, which asks for the scale. The splits are the
official ones; 250 (5%) of a pool of 5,000 questions are asked. For answers that are other spans:
--from=tatqa_spans, --data.kind=text --data.min_rouge=0.8 (extra tf-text). A prompt that is too long
loses the beginning of its text.

Hardware: 16 chips of TPU v5e. Planned for them, not run, so no score is known: at least 4 min 23 s
of work, about 9 min expected without compilation, or 2.4 chip-hours (about $3 at an assumed $1.20
each), without waiting for the teacher. As compiled (docs/plans.md) it takes at most 10.8 GiB a
chip. With replies of the greatest length, the teacher costs about $1.38, and at most $1.65 with
every retry; the cap is $3. Of 2,366 prompts with only the paragraphs that a question needs, the
longest has 1,179 tokens, by the tokenizer of SmolLM2. Prompts with all paragraphs, as converted,
were not measured.
"""

import dataclasses

from bridge_jax.config import RunConfig
from configs import medical_7b


def get_config() -> RunConfig:
    """Returns the config; `data.path` is a flag."""
    medical = medical_7b.get_config()
    return dataclasses.replace(
        medical,
        name="financial_7b",
        max_prompt_tokens=1280,
        data=dataclasses.replace(
            medical.data,
            instruction="The text is part of a financial report, and a question about it. "
            "Answer it with one number.",
            kind="numeric",
            choices=(),
        ),
    )
