"""Defines pairs of assistant and student for the configs of runs.

Import a pair into a config:

    from configs.models import PAIRS

    pair = PAIRS["qwen2.5-7b to gemma-3-270m"]
    RunConfig(name="clinic", assistant=pair.assistant, student=pair.student, ...)

Flags can still change a field of either model:

    python -m launch.run --config=configs/clinic.py --workdir=runs/clinic \
        --config.assistant.lora.rank=32 --config.student.checkpoint=Qwen/Qwen2.5-1.5B-Instruct

The assistant is trained with an adapter of rank 16 on every projection, and the student in full.
They exchange only text, so their tokenizers may differ. The ids are those of the Hugging Face hub;
for the models of meta-llama and google, accept the license there and set HF_TOKEN.
"""

from typing import NamedTuple

from bridge_jax.config import LoraConfig, ModelConfig


class Pair(NamedTuple):
    """The two models of a run."""

    assistant: ModelConfig
    student: ModelConfig


def _pair(assistant: str, student: str) -> Pair:
    return Pair(ModelConfig(assistant, lora=LoraConfig(rank=16)), ModelConfig(student))


PAIRS: dict[str, Pair] = {
    "qwen2.5-7b to qwen2.5-0.5b": _pair("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct"),
    "qwen2.5-7b to gemma-3-270m": _pair("Qwen/Qwen2.5-7B-Instruct", "google/gemma-3-270m-it"),
    "llama-3.1-8b to llama-3.2-1b": _pair(
        "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.2-1B-Instruct"
    ),
    "llama-3.1-8b to smollm2-360m": _pair(
        "meta-llama/Llama-3.1-8B-Instruct", "HuggingFaceTB/SmolLM2-360M-Instruct"
    ),
    "gemma-2-9b to gemma-3-270m": _pair("google/gemma-2-9b-it", "google/gemma-3-270m-it"),
}
