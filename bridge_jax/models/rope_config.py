"""Rotary positions in a config.json: read in each spelling in circulation, written in all.

transformers 4 reads `rope_theta` and `rope_scaling` (and, for Gemma 3's layers with a window,
`rope_local_base_freq`); transformers 5 reads `rope_parameters`, which Gemma 3 has by kind of layer,
but takes `rope_scaling` where that is given too. So do we; two spellings that differ are an error.
"""

from typing import Any

from bridge_jax.errors import UserError
from bridge_jax.models import hf_fields
from bridge_jax.models.config import Rope

_NEEDED = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
}


def read(hf: dict[str, Any], where: str) -> tuple[Rope, Rope | None]:
    """Returns the positions of all layers or, for Gemma 3, of its full and of its local layers.

    Args:
      hf: a config.json with the class defaults in place.
      where: names the file in errors.

    Raises:
      UserError: the kind of scaling is not supported, or a part is missing or wrong.
    """
    old, new = hf["rope_scaling"] or {}, hf["rope_parameters"] or {}
    if hf["model_type"] != "gemma3_text":
        key = "rope_scaling" if old else "rope_parameters"
        return _rope(old or new, hf["rope_theta"], key, where), None
    if wrong := sorted(set(new) - set(hf_fields.LAYER_TYPES)):
        raise UserError(
            f"{where}: rope_parameters of a gemma3_text are given by kind of layer "
            f"({', '.join(hf_fields.LAYER_TYPES)}), not {', '.join(wrong)}"
        )
    full, local = (_part(new, kind, where) for kind in hf_fields.LAYER_TYPES)
    key = "rope_scaling" if old else "rope_parameters.full_attention"
    rope = _rope(full | old, hf["rope_theta"], key, where)
    key = "rope_parameters.sliding_attention"
    local_rope = _rope(local, hf["rope_local_base_freq"], key, where)
    if local_rope != Rope(local_rope.theta):
        raise UserError(
            f"{where}: {key} with a scaling is not supported; use a checkpoint without it"
        )
    return rope, local_rope


def check_spellings(given: dict[str, Any], hf: dict[str, Any], where: str) -> None:
    """Checks that both spellings, where a config.json has both, say the same.

    Args:
      given: a config.json as it was written, which `read` takes once it has the class defaults.
      hf: with the class defaults in place.
      where: names the file in errors.

    Raises:
      UserError: they differ.
    """
    old, new = hf["rope_scaling"] or {}, hf["rope_parameters"] or {}
    name, full = "rope_parameters", new
    if by_layer := hf["model_type"] == "gemma3_text":
        name, full = "rope_parameters.full_attention", new.get("full_attention") or {}
    pairs = [("rope_theta", given.get("rope_theta"), f"{name}.rope_theta", full.get("rope_theta"))]
    if old:
        theta = old.get("rope_theta", hf["rope_theta"])
        pairs.append(("the theta of rope_scaling", theta, *pairs[0][2:]))
    if old and set(full) - {"rope_theta"}:
        pairs.append(("rope_scaling", _scaling(old), name, _scaling(full)))
    if by_layer:
        local = (new.get("sliding_attention") or {}).get("rope_theta")
        key = "rope_local_base_freq"
        pairs.append((key, given.get(key), "rope_parameters.sliding_attention.rope_theta", local))
    for left, first, right, second in pairs:
        if None not in (first, second) and first != second:
            raise UserError(
                f"{where}: {left}={first} and {right}={second} disagree; keep the one that the "
                "model was trained with, and delete the other"
            )


def _scaling(given: dict[str, Any]) -> dict[str, Any]:
    name = given.get("rope_type", given.get("type", "default"))
    return {"rope_type": name} | {part: given.get(part) for part in _NEEDED.get(name, ())}


def spelled(rope: Rope, local_rope: Rope | None) -> dict[str, Any]:
    """Returns the keys of a config.json that say `rope` to transformers 4 and to transformers 5."""
    scaling: dict[str, Any] | None = None
    if rope.original_context:
        scaling = {
            "rope_type": "llama3",
            "factor": rope.factor,
            "low_freq_factor": rope.low,
            "high_freq_factor": rope.high,
            "original_max_position_embeddings": rope.original_context,
        }
    elif rope.factor != 1:
        scaling = {"rope_type": "linear", "factor": rope.factor}
    parameters = {"rope_type": "default", "rope_theta": rope.theta} | (scaling or {})
    keys = {"rope_theta": rope.theta, "rope_scaling": scaling, "rope_parameters": parameters}
    if local_rope is None:
        return keys
    local = {"rope_type": "default", "rope_theta": local_rope.theta}
    both = {"full_attention": parameters, "sliding_attention": local}
    return keys | {"rope_local_base_freq": local_rope.theta, "rope_parameters": both}


def _part(new: dict[str, Any], kind: str, where: str) -> dict[str, Any]:
    given = new.get(kind)
    if given is not None and not isinstance(given, dict):
        raise UserError(f"{where}: rope_parameters.{kind} must be an object")
    return given or {}


def _rope(given: dict[str, Any], theta: float, key: str, where: str) -> Rope:
    hf_fields.check_rope(given, key, where)
    theta = float(given.get("rope_theta", theta))
    # "type" is the older name of "rope_type".
    names = {given[name] for name in ("rope_type", "type") if name in given} or {"default"}
    name = ", ".join(sorted(names))
    if name not in _NEEDED:
        raise UserError(
            f"{where}: {key} with rope_type={name!r} is not supported; supported: "
            f"{', '.join(_NEEDED)}"
        )
    if missing := [part for part in _NEEDED[name] if part not in given]:
        raise UserError(
            f"{where}: {key} with rope_type={name!r} lacks {', '.join(missing)}; copy the whole "
            "entry from the checkpoint that it came from"
        )
    if nested := sorted(part for part, value in given.items() if isinstance(value, dict)):
        raise UserError(
            f"{where}: {key} by {', '.join(nested)} is not supported in this family; "
            "use a checkpoint without it"
        )
    if name == "default":
        return Rope(theta)
    if name == "linear":
        return Rope(theta, float(given["factor"]))
    low, high = float(given["low_freq_factor"]), float(given["high_freq_factor"])
    if high <= low:
        raise UserError(f"{where}: {key}.high_freq_factor={high:g} must exceed {low:g}, the low")
    return Rope(theta, float(given["factor"]), given["original_max_position_embeddings"], low, high)
