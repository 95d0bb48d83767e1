"""The quickstart with Gemini as its teacher.

    pip install -e '.[gemini]'
    export GEMINI_API_KEY=...
    python -m launch.run --config=configs/quickstart_gemini.py --workdir=runs/gemini

Money: 16 questions of about 110 tokens and up to 8 further requests, at the prices below (Gemini
2.5 Flash as Google listed it in 2026; compare yours). With replies of 600 tokens, thoughts
included, the 24 cost $0.04; were every one as long as it may be, $0.13. The caps are 24 requests
and $0.15. With --teacher.batch=true it costs half, and takes up to a day.
Hardware: as configs/quickstart.py; up to 128 tokens are written where that writes 48, which takes
longer. Not yet run against the vendor itself.
"""

import dataclasses

from bridge_jax.config import BudgetConfig, RunConfig, TeacherConfig
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
    """Returns the quickstart with another teacher: 16 questions, and room for 8 retries.

    A vendor's rationales are longer than those of the practice tasks; the default rows hold them.
    """
    config = quickstart.get_config()
    return dataclasses.replace(
        config,
        name=f"quickstart with {name}",
        teacher=teacher,
        selection=dataclasses.replace(config.selection, size=16),
        budget=BudgetConfig(queries=24, usd=usd),
        generation=dataclasses.replace(config.generation, max_new_tokens=128),
    )
