"""A first run with Gemini as its teacher.

    pip install -e '.[gemini]'
    export GEMINI_API_KEY=...
    python -m launch.run --config=configs/quickstart_gemini.py --workdir=runs/gemini

Money: 16 questions of about 110 tokens and up to 8 further requests, at the prices below (Gemini
2.5 Flash as Google listed it in 2026; compare yours). With replies of 600 tokens, thoughts
included, the 24 cost $0.04; were every one as long as it may be, $0.13. The caps are 24 requests
and $0.15. With --teacher.batch=true it costs half, and takes up to a day.

Questions: 320 of contract deadlines, which any teacher can answer ("on time or late", so one of two
is right by chance); those of `configs/quickstart.py` are about invented rules. The longest reply
that is learned has 128 tokens (`generation.max_new_tokens`, with `row_tokens` to match).

Hardware: a laptop, for longer than `configs/quickstart.py`; neither that nor the vendor itself has
been tried.
"""

import dataclasses

from bridge_jax.config import RunConfig, TeacherConfig
from bridge_jax.config_io import override
from configs import quickstart

TEACHER = TeacherConfig(
    kind="gemini",
    model="gemini-2.5-flash",
    usd_per_million_input=0.30,
    usd_per_million_output=2.50,
    max_output_tokens=2048,  # thoughts count too
    requests_per_minute=60,
    retries=1,
)


def get_config() -> RunConfig:
    """Returns the config."""
    return asking("Gemini", TEACHER, usd=0.15)


def asking(name: str, teacher: TeacherConfig, usd: float) -> RunConfig:
    """Returns a config that asks `teacher` 16 questions of deadlines, with room for 8 retries."""
    return override(
        dataclasses.replace(quickstart.get_config(), teacher=teacher),
        [
            f"name=quickstart with {name}",
            "data.domains=deadlines",
            "data.min_steps=1",
            "data.max_steps=1",
            "data.pool=320",
            "data.test=150",
            "max_prompt_tokens=120",
            "selection.size=16",
            "budget.queries=24",
            f"budget.usd={usd}",
            "assistant_training.row_tokens=256",
            "student_training.row_tokens=256",
            "direct_training.row_tokens=256",
            "direct_training.epochs=40",
            "generation.max_new_tokens=128",
            "generation.batch_size=64",
        ],
    )
