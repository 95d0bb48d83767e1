"""Exports a trained model as a Hugging Face folder, or its adapter as a PEFT folder.

python -m launch.export --workdir=runs/quickstart --out=models/student
"""

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags, logging

from launch.overrides import run_main

if TYPE_CHECKING:
    from bridge_jax.config import ModelConfig

_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.", required=True)
_ROLE = flags.DEFINE_enum("role", "student", ["student", "assistant"], "Which model to export.")
_OUT = flags.DEFINE_string("out", None, "The folder to create.", required=True)
_DTYPE = flags.DEFINE_enum(
    "dtype", None, ["float32", "bfloat16", "float16"], "Weight dtype; default: the checkpoint's."
)
_ADAPTER = flags.DEFINE_bool("adapter", False, "Write only the LoRA adapter, for PEFT.")
_PUSH = flags.DEFINE_string(
    "push", None, "Upload the folder to this repository of the Hugging Face hub, with HF_TOKEN."
)
_PUBLIC = flags.DEFINE_bool("public", False, "With --push: a new repository is public.")


def main(assignments: list[str]) -> None:
    """Writes weights, config, tokenizer, the settings for asking the model, and a model card."""
    from bridge_jax.errors import UserError

    if assignments:
        raise UserError(f"launch.export takes its config from the workdir: {assignments[0]!r}")
    # These imports take seconds, so a mistyped flag is reported before them.
    import jax.numpy as jnp
    from rich.console import Console

    from bridge_jax import display
    from bridge_jax.config import ModelConfig
    from bridge_jax.models.hub import checkpoint, export
    from bridge_jax.models.hub.files import licence_of, locate
    from bridge_jax.models.layouts import choose
    from bridge_jax.pipeline.artifacts import Role
    from bridge_jax.pipeline.models import RoleModel
    from bridge_jax.report import page, summary
    from bridge_jax.report.workdir import load as load_run
    from bridge_jax.serving.models import trained, write_asking
    from bridge_jax.text.prompts import SYSTEM_FILE, system_message_of

    logging.set_verbosity(logging.WARNING)
    workdir, out = Path(_WORKDIR.value), Path(_OUT.value)
    role: Role = _ROLE.value  # type: ignore[assignment]
    found = trained(workdir, role)
    config, mode = found.config, found.asking.mode
    selected: ModelConfig = getattr(config, role)
    if _ADAPTER.value:
        _check_adapter(selected)
    if _PUSH.value:
        export.check_token(_PUSH.value)  # Checked before the work begins.
    text = page.card(
        summary.summarise(load_run(workdir)),
        config,
        role,
        mode,
        adapter=_ADAPTER.value,
        licence=licence_of(locate(selected.checkpoint)),
    )
    hf_config = checkpoint.cut_hf_config(selected)
    with export.folder(out) as folder:
        meshes = choose(checkpoint.planned_config(selected), config.mesh)
        loaded = RoleModel(selected, meshes.training, config.seed)
        model = loaded.load(found.made, jnp.float32)  # rounded only once, when it is written
        if _ADAPTER.value:
            export.write_adapter(folder, model.config, model.params, hf_config, selected.checkpoint)
        else:
            export.write_model(folder, model.config, model.params, hf_config, _DTYPE.value)
            export.write_generation_config(
                folder, hf_config, model.tokenizer.end_ids, model.tokenizer.pad_id
            )
        model.tokenizer.save(folder)
        (folder / "README.md").write_text(text, encoding="utf-8")
        (folder / SYSTEM_FILE).write_text(system_message_of(config.data, mode), encoding="utf-8")
        write_asking(folder, found.asking)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    use = f"PEFT loads it beside {selected.checkpoint}"
    if not _ADAPTER.value:
        use = f"Try it: python -m launch.chat --model={out}"
    display.say(Console(), f"{out}: {size / 1e6:,.0f} MB. {use}")
    if _PUSH.value:
        display.say(Console(), f"pushed to {export.push(out, _PUSH.value, _PUBLIC.value)}")


def _check_adapter(model: "ModelConfig") -> None:
    from bridge_jax.errors import UserError

    if not model.lora.rank:
        raise UserError("--adapter: the model was trained in full; leave the flag out")
    if _DTYPE.value:
        raise UserError("--dtype: an adapter is always f32")
    if model.keep_layers:
        raise UserError(
            "--adapter: layers were removed, so no public base fits; export the full model"
        )
    if model.checkpoint == "smollm2-135m" or model.checkpoint.endswith(".gguf"):
        raise UserError(
            f"--adapter: PEFT cannot load its base {model.checkpoint}; export the full model"
        )


if __name__ == "__main__":
    run_main(main, takes_config=False)
