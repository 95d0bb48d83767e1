"""Checkpoints with a language model among other parts: where its config and its tensors are."""

from typing import Any, NamedTuple

from bridge_jax.errors import UserError
from bridge_jax.models.hf_fields import ARCHITECTURES


class Parts(NamedTuple):
    """Names of tensors in a composite checkpoint.

    Attributes:
      text: (their prefix, the prefix in a checkpoint of the language model alone).
      other: prefixes of what is not the language model, and is not read.
    """

    text: tuple[tuple[str, str], ...] = ()
    other: tuple[str, ...] = ()


# By model_type. The hub and transformers write the first prefixes, others those of the modules.
PARTS = {
    "gemma3": Parts(
        (
            ("language_model.model.", "model."),
            ("language_model.lm_head.", "lm_head."),
            ("model.language_model.", "model."),
        ),
        (
            "vision_tower.",
            "multi_modal_projector.",
            "model.vision_tower.",
            "model.multi_modal_projector.",
        ),
    ),
}
ALONE = Parts()

# What the whole says for its language model too, whose own entry may be a mere class default.
_OF_THE_WHOLE = (
    "dtype",
    "torch_dtype",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "quantization_config",
)


def text_config(hf: dict[str, Any], where: str) -> tuple[dict[str, Any], Parts]:
    """Returns the config.json of the language model alone, and where its tensors are.

    Raises:
      UserError: the language model of such a composite cannot be read.
    """
    family, given = hf.get("model_type"), hf.get("text_config")
    is_known = isinstance(family, str) and family in PARTS
    if not is_known and not any(f"{part}_config" in hf for part in ("text", "vision", "audio")):
        return hf, ALONE
    if not is_known or not isinstance(given or {}, dict):
        raise UserError(_way_out(family, given, where))
    whole = {key: hf[key] for key in _OF_THE_WHOLE if hf.get(key) is not None}
    text: dict[str, Any] = {"model_type": f"{family}_text"} | (given or {}) | whole
    if isinstance(text.get("dtype"), dict):  # by part
        text["dtype"] = text["dtype"].get("text_config")
    return text | {"architectures": [ARCHITECTURES[f"{family}_text"]]}, PARTS[str(family)]


def own_name(name: str, parts: Parts) -> str | None:
    """Returns the name of a tensor in the language model alone; None if it is not of it."""
    if name.startswith(parts.other):
        return None
    for theirs, ours in parts.text:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _way_out(family: Any, text: Any, where: str) -> str:
    inner = text.get("model_type") if isinstance(text, dict) else None
    said = f"{where}: model_type={family!r} has a language model among other parts"
    if inner not in ARCHITECTURES:
        return (
            f"{said} (of the type {inner!r}), which cannot be read; give a text-only checkpoint of "
            f"{', '.join(ARCHITECTURES)}"
        )
    return (
        f"{said}; save it alone, and give that folder:\n"
        "  from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, "
        "AutoTokenizer\n"
        "  whole = AutoModelForImageTextToText.from_pretrained(IN, dtype='auto')\n"
        "  text = AutoModelForCausalLM.from_config(whole.config.text_config, dtype=whole.dtype)\n"
        "  text.model = whole.model.language_model; text.lm_head = whole.lm_head\n"
        "  text.save_pretrained(OUT); AutoTokenizer.from_pretrained(IN).save_pretrained(OUT)"
    )
