r"""Uses GPT, or any server that speaks its protocol, as the teacher, on complaints to be sorted.

    pip install -e '.[openai]'
    export OPENAI_API_KEY=...
    python -m launch.run --config=configs/quickstart_gpt.py --workdir=runs/gpt

Your own server (vLLM, SGLang, JetStream) needs no key:

    python -m launch.run --config=configs/quickstart_gpt.py --workdir=runs/own \
        --teacher.base_url=http://localhost:8000/v1 --teacher.model=Qwen/Qwen2.5-72B-Instruct \
        --teacher.free=true --teacher.usd_per_million_input=0 --teacher.usd_per_million_output=0

Cost: 16 questions of about 110 tokens and up to 8 further requests, at the prices below (GPT-5 mini
as OpenAI listed it in 2026; compare with yours). With replies of 600 tokens, reasoning included,
the 24 requests cost $0.03; with replies of the maximum length, $0.10. The caps are 24 requests and
$0.12. With --teacher.batch=true they cost half, and take up to a day. The run asks before it pays;
if there is no terminal, add --yes. The questions are those of configs/quickstart_gemini.py.
Hardware: two CPU cores suffice. Not run yet against the vendor: neither time nor score is known.
"""

from bridge_jax.config import RunConfig, TeacherConfig
from configs import quickstart_gemini

TEACHER = TeacherConfig(
    kind="openai",
    model="gpt-5-mini",
    usd_per_million_input=0.25,
    usd_per_million_output=2.00,
    max_output_tokens=2048,  # reasoning counts too
    requests_per_minute=60,
    retries=1,
)


def get_config() -> RunConfig:
    """Returns the config."""
    return quickstart_gemini.asking("GPT", TEACHER, usd=0.12)
