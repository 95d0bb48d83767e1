"""The model card that goes with an exported model: what it is, what it cost, how good it is."""

import json
from pathlib import Path
from typing import Any

from bridge_jax import methods
from bridge_jax.config import ModelConfig, RunConfig
from bridge_jax.models.hub.files import is_hub_id
from bridge_jax.pipeline.artifacts import Role
from bridge_jax.report.numbers import interval, percent
from bridge_jax.report.wording import titles
from bridge_jax.shown import markdown
from bridge_jax.text.prompts import Mode, system_message_of


def render(
    report: dict[str, Any], config: RunConfig, role: Role, mode: Mode, *, adapter: bool = False
) -> str:
    """Returns the card's Markdown.

    Args:
      report: what `report.json` holds.
      config: of the run.
      role: `student` or `assistant`.
      mode: how it was asked when it was tested.
      adapter: the folder holds a LoRA adapter for PEFT, not the model.
    """
    model: ModelConfig = getattr(config, role)
    parts = [
        _front_matter(model, adapter),
        f"# {markdown(config.name)}: {titles(config.method)[role].lower()}",
        _what(config, role),
    ]
    parts += ["## Training", _training(report, config, role)]
    parts += ["## Scores", _scores(report, titles(config.method))]
    parts += ["## Use", _use(config, mode, adapter)]
    return "\n\n".join(parts) + "\n"


def _front_matter(model: ModelConfig, adapter: bool) -> str:
    library = "peft" if adapter else "transformers"
    lines = ["---", f"library_name: {library}", "pipeline_tag: text-generation"]
    if _on_hub(model):
        lines.append(f"base_model: {model.checkpoint}")
    return "\n".join([*lines, "tags: [distillation, bridge-jax]", "---"])


def _on_hub(model: ModelConfig) -> bool:
    return is_hub_id(model.checkpoint) and not Path(model.checkpoint).exists()


def _what(config: RunConfig, role: str) -> str:
    model: ModelConfig = getattr(config, role)
    base = "SmolLM2-135M-Instruct" if model.checkpoint == "smollm2-135m" else model.checkpoint
    if not _on_hub(model):
        base = base.rstrip("/").rsplit("/", 1)[-1]  # A path says more about a disk than a model.
    cut = f", of which the layers {', '.join(map(str, model.keep_layers))} were kept" * bool(
        model.keep_layers
    )
    how = f", with a LoRA adapter of rank {model.lora.rank}" * bool(model.lora.rank)
    made_from = f"{markdown(base)}{cut}{how}"
    title = methods.named(config.method).title
    return f"The {role} of {title}, made with BRIDGE-JAX from {made_from}."


def _training(report: dict[str, Any], config: RunConfig, role: str) -> str:
    data = (
        config.data.path.rsplit("/", 1)[-1] or f"practice tasks ({', '.join(config.data.domains)})"
    )
    size = f"{report['pool']['size']:,} examples in the pool, " if "pool" in report else ""
    lines = [
        f"- data: {markdown(data)}, {size}seed {config.seed}",
        f"- teacher: {markdown(config.teacher.model) if methods.asks(config.method) else 'none'}",
    ]
    if spend := report.get("spend"):
        lines.append(
            f"- paid: {spend['queries']:,} of {spend['budget_queries']:,} queries, "
            f"${spend['usd']:.4f} of ${spend['budget_usd']:.2f}"
        )
    if (kept := report.get("rationales")) and role == "student":
        shown = ", which was shown the gold answers" * kept["shown_gold"]
        lines.append(
            f"- rationales by the assistant{shown}: {kept['kept']:,} kept of "
            f"{kept['written']:,} written"
        )
    return "\n".join(lines)


def _scores(report: dict[str, Any], names: dict[str, str]) -> str:
    rows = ["| model | questions | accuracy (95%) | answers that parse |", "|---|---|---|---|"]
    if not report["accuracy"]:
        return "Not evaluated."
    for role, accuracy in report["accuracy"].items():
        name = names[role]
        if role == "teacher" and report.get("teacher_measured_on") == "annotations":
            name += ", on the pool's questions that it was asked"
        bounds = interval(report["accuracy_interval"][role])
        rows.append(
            f"| {name} | {report['questions'][role]} | {percent(accuracy)} ({bounds}) "
            f"| {percent(report['compliance'][role])} |"
        )
    return "\n".join(rows)


_SNIPPET = """\
In this folder, with the system message that the model was trained on:

```python
{imports}

tokenizer = AutoTokenizer.from_pretrained(".")
model = {loader}.from_pretrained(".")
messages = [
    {{"role": "system", "content": {system}}},
    {{"role": "user", "content": "YOUR QUESTION"}},
]
prompt = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
written = model.generate(**prompt, max_new_tokens={tokens})
print(tokenizer.decode(written[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
```"""


def _use(config: RunConfig, mode: Mode, adapter: bool) -> str:
    model, adapted = "AutoModelForCausalLM", "AutoPeftModelForCausalLM"
    imports = (
        f"from peft import {adapted}\nfrom transformers import AutoTokenizer"
        if adapter
        else f"from transformers import {model}, AutoTokenizer"
    )
    return _SNIPPET.format(
        imports=imports,
        loader=adapted if adapter else model,
        # A JSON string is one of Python too.
        system=json.dumps(system_message_of(config.data, mode), ensure_ascii=False),
        tokens=config.generation.max_new_tokens,
    )
