"""The config.json of a checkpoint, of any family: how it is checked, completed and converted.

A config.json omits entries that equal the default of its class in transformers (`families`). Rotary
positions have two spellings. Transformers 4 reads `rope_theta` and `rope_scaling` (and, for Gemma
3's local layers, `rope_local_base_freq`). Transformers 5 reads `rope_parameters`, which Gemma 3
nests by kind of layer, but prefers `rope_scaling` if both are given. So do we; two spellings that
disagree are an error. The configs that we write have both.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from bridge_jax.errors import UserError
from bridge_jax.models.config import DecoderConfig, Rope
from bridge_jax.models.hub.families import FAMILIES

FULL, SLIDING = "full_attention", "sliding_attention"
DTYPES = ("float32", "bfloat16", "float16", "float64")
_ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
# Keys that, if set, select a feature that is not supported.
_UNSUPPORTED = ("attention_bias", "mlp_bias", "use_bidirectional_attention")


class Kind(NamedTuple):
    """The allowed values of a key, in words and as a predicate."""

    said: str
    fits: Callable[[Any], bool]

    def check(self, value: Any, key: str, where: str) -> None:
        """Raises a `UserError` that names the key and the file `where`, if `value` is not allowed.

        The contents of a list or an object are not printed.
        """
        if self.fits(value):
            return
        shown = "[...]" if isinstance(value, list) else "{...}"
        if not isinstance(value, list | dict):
            shown = json.dumps(value)[:60]
        raise UserError(f"{where}: {key}={shown} must be {self.said}")


def _whole(low: int, high: int) -> Kind:
    return Kind(
        f"a whole number from {low:,} to {high:,}",
        lambda value: type(value) is int and low <= value <= high,
    )


def _number(low: float, high: float) -> Kind:
    return Kind(
        f"a number from {low:g} to {high:g}",
        lambda value: type(value) in (int, float) and low <= value <= high,
    )


def _list_of(kind: Kind, said: str) -> Kind:
    return Kind(said, lambda value: isinstance(value, list) and all(map(kind.fits, value)))


_ID = _whole(0, (1 << 31) - 1)
_WORD = Kind("a string", lambda value: isinstance(value, str))
_FLAG = Kind("true or false", lambda value: isinstance(value, bool))
_OBJECT = Kind("an object", lambda value: isinstance(value, dict))
_LAYER_TYPE = Kind("a kind of layer", lambda value: value in (FULL, SLIDING))
_WHOLE_HEAD = Kind("1: rotating a part of each head is not supported", lambda value: value == 1)
_DTYPE = Kind(
    " or ".join(DTYPES),
    lambda value: isinstance(value, str) and value.removeprefix("torch.") in DTYPES,
)
# The upper bounds are far above any published model, but small enough to be multiplied.
_TOKENS = _whole(1, (1 << 31) - 1)
_HEADS = _whole(1, 1 << 14)
_THETA = _number(1, 1e15)

KINDS: dict[str, Kind] = {
    "vocab_size": _whole(1, 1 << 24),
    "hidden_size": _whole(1, 1 << 20),
    "intermediate_size": _whole(1, 1 << 22),
    "num_hidden_layers": _whole(1, 1 << 12),
    "num_attention_heads": _HEADS,
    "num_key_value_heads": _HEADS,
    "head_dim": Kind(
        "an even number from 2 to 16,384", lambda value: _HEADS.fits(value) and value % 2 == 0
    ),
    "max_position_embeddings": _TOKENS,
    "hidden_act": _WORD,
    "hidden_activation": _WORD,
    "rms_norm_eps": _number(0, 1),
    "rope_theta": _THETA,
    "rope_local_base_freq": _THETA,
    "rope_scaling": _OBJECT,
    "rope_parameters": _OBJECT,
    "tie_word_embeddings": _FLAG,
    "use_sliding_window": _FLAG,
    "sliding_window": _TOKENS,
    "sliding_window_pattern": _TOKENS,
    "max_window_layers": _whole(0, 1 << 31),
    "layer_types": _list_of(_LAYER_TYPE, f"a list of {FULL} and {SLIDING}"),
    "query_pre_attn_scalar": _number(1e-3, 1e9),
    "attn_logit_softcapping": _number(1e-3, 1e9),
    "final_logit_softcapping": _number(1e-3, 1e9),
}
# Keys that are read for every family, if they are given.
_SHARED = {
    "architectures": _list_of(_WORD, "a list of names"),
    "dtype": _DTYPE,
    "torch_dtype": _DTYPE,
    "partial_rotary_factor": _WHOLE_HEAD,
    "bos_token_id": _ID,
    "eos_token_id": Kind(
        "a token id, or a list of them",
        lambda value: all(map(_ID.fits, value if isinstance(value, list) else [value])),
    ),
}
# Keys inside rope_scaling and rope_parameters.
_ROPE = {
    "rope_type": _WORD,
    "type": _WORD,
    "rope_theta": _THETA,
    "factor": _number(1, 1e6),
    "original_max_position_embeddings": _TOKENS,
    "low_freq_factor": _number(1e-3, 1e6),
    "high_freq_factor": _number(1e-3, 1e6),
    "partial_rotary_factor": _WHOLE_HEAD,
}
# Keys that each kind of scaling must have.
_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
_SCALINGS = {"default": (), "linear": ("factor",), "llama3": _LLAMA3}
_NULLABLE = {
    "rope_scaling",
    "rope_parameters",
    "layer_types",
    "sliding_window",
    "attn_logit_softcapping",
    "final_logit_softcapping",
}


def from_hf(hf: dict[str, Any]) -> DecoderConfig:
    """Returns the config of a checkpoint's `config.json`.

    Raises:
      UserError: the family or one of its features is not supported, or a value is wrong.
    """
    hf = _read_by_its_class(complete(hf))
    local = tuple(kind == SLIDING for kind in _layer_types(hf, "config.json"))
    scalar = hf.get("query_pre_attn_scalar")
    rope, local_rope = _ropes(hf, "config.json")
    return DecoderConfig(
        vocab_size=hf["vocab_size"],
        model_dim=hf["hidden_size"],
        num_layers=hf["num_hidden_layers"],
        num_heads=hf["num_attention_heads"],
        num_kv_heads=hf["num_key_value_heads"],
        head_dim=hf["head_dim"],
        mlp_dim=hf["intermediate_size"],
        rope=rope,
        local_rope=local_rope,
        window=hf["sliding_window"] if any(local) else None,
        local=local if any(local) else (),
        norm_eps=float(hf["rms_norm_eps"]),
        query_scale=None if scalar is None else scalar**-0.5,
        attention_softcap=hf.get("attn_logit_softcapping"),
        final_softcap=hf.get("final_logit_softcapping"),
        tied=hf["tie_word_embeddings"],
        max_positions=hf["max_position_embeddings"],
        **FAMILIES[hf["model_type"]].traits,
    )


def complete(hf: dict[str, Any], where: str = "config.json") -> dict[str, Any]:
    """Checks a config.json, and returns it with every entry that defines the model.

    Class defaults are filled in, derived sizes are computed, and rotary positions and dtype get the
    spellings of both transformers 4 and 5. A complete config is returned unchanged.

    Args:
      hf: the config as it was read.
      where: name of the file in error messages.

    Raises:
      UserError: the family or one of its features is not supported, or a value is wrong.
    """
    family = hf.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise UserError(
            f"{where}: model_type={family!r} is not supported; supported: {', '.join(FAMILIES)}"
        )
    if hf.get("quantization_config"):
        raise UserError(
            f"{where}: quantized weights (quantization_config) are not supported; use the "
            "checkpoint that they were made from, in bfloat16, float16 or float32"
        )
    if wrong := [key for key in _UNSUPPORTED if hf.get(key)]:
        raise UserError(
            f"{where}: {family} with {', '.join(wrong)} is not supported; "
            "use a checkpoint without it"
        )
    given, hf = hf, FAMILIES[family].defaults | hf
    _check_values(hf, where)
    known = _read_by_its_class(hf)
    known |= _head_sizes(known, where)
    activation = known["hidden_act" if "hidden_act" in known else "hidden_activation"]
    if _ACTIVATIONS.get(activation) != FAMILIES[family].traits.get("activation", "silu"):
        raise UserError(f"{where}: {family} with the activation {activation!r} is not supported")
    types = _layer_types(known, where)
    if "layer_types" in known:
        known["layer_types"] = types
    elif hf.get("layer_types") not in (None, types):
        raise UserError(f"{where}: layer_types is not supported for {family}")
    ropes = _ropes(known, where)
    _check_rope_spellings(given, known, where)
    known |= _spelled(*ropes)
    if dtype := hf.get("dtype") or hf.get("torch_dtype"):
        # Both spellings: transformers 5 reads the first, older releases and servers the second.
        dtype = dtype.removeprefix("torch.")
        known |= {"dtype": dtype, "torch_dtype": dtype}
    named, ours = hf.get("architectures"), FAMILIES[family].architecture
    # Some early conversions write LLaMAForCausalLM.
    if named and ours.lower() not in [name.lower() for name in named]:
        raise UserError(
            f"{where}: architectures={', '.join(named)} contradicts model_type={family!r}, which "
            f"is {ours}; use a causal language model, or fix the one that is wrong"
        )
    return hf | known | {"architectures": [ours]}


def cut(hf: dict[str, Any], layers: tuple[int, ...]) -> dict[str, Any]:
    """Returns the complete `config.json` of the same model with only `layers`, in this order."""
    hf = complete(hf)
    kept = hf | {"num_hidden_layers": len(layers)}
    if types := hf.get("layer_types"):
        kept["layer_types"] = [types[i] for i in layers]
    if "max_window_layers" in _read_by_its_class(hf):
        kept["max_window_layers"] = min(kept["max_window_layers"], len(layers))
    return kept


def _read_by_its_class(hf: dict[str, Any]) -> dict[str, Any]:
    """Returns the keys that the family's class reads; it ignores all others, and so must we."""
    family = hf["model_type"]
    return {"model_type": family} | {key: hf[key] for key in FAMILIES[family].defaults}


def _check_values(hf: dict[str, Any], where: str) -> None:
    family = hf["model_type"]
    nullable = set(_NULLABLE)
    if FAMILIES[family].defaults["head_dim"] is None:
        nullable.add("head_dim")
    if not family.startswith("gemma"):
        nullable.add("num_key_value_heads")
    for key in FAMILIES[family].defaults:
        if hf[key] is not None or key not in nullable:
            KINDS[key].check(hf[key], key, where)
    for key, kind in _SHARED.items():
        if hf.get(key) is not None:
            kind.check(hf[key], key, where)


def _head_sizes(hf: dict[str, Any], where: str) -> dict[str, int]:
    heads, dim = hf["num_attention_heads"], hf["head_dim"]
    kv_heads = hf["num_key_value_heads"] or heads
    if heads % kv_heads:
        raise UserError(
            f"{where}: num_attention_heads={heads} is not a multiple of "
            f"num_key_value_heads={kv_heads}"
        )
    if dim is None:
        dim, rest = divmod(hf["hidden_size"], heads)
        if rest:
            raise UserError(
                f"{where}: hidden_size={hf['hidden_size']} is not a multiple of "
                f"num_attention_heads={heads}, and there is no head_dim"
            )
        KINDS["head_dim"].check(dim, "hidden_size / heads", where)
    return {"num_key_value_heads": kv_heads, "head_dim": dim}


def _layer_types(hf: dict[str, Any], where: str) -> list[str]:
    """Returns the kind of each layer; the default is that of the family's class."""
    types, count = hf.get("layer_types"), hf["num_hidden_layers"]
    window = hf.get("sliding_window") if hf.get("use_sliding_window", True) else None
    if types is None and hf["model_type"].startswith("gemma"):
        period = hf.get("sliding_window_pattern", 2)  # Gemma 2 alternates.
        types = [SLIDING if (i + 1) % period else FULL for i in range(count)]
    elif types is None:
        first = count if window is None else hf.get("max_window_layers", 0)
        types = [SLIDING if i >= first else FULL for i in range(count)]
    if len(types) != count:
        raise UserError(
            f"{where}: layer_types has {len(types)} entries for num_hidden_layers={count}"
        )
    if SLIDING in types and window is None:
        raise UserError(
            f"{where}: layers have sliding attention, but sliding_window is null, or "
            "use_sliding_window is false; set what the model was trained with"
        )
    return types


def _ropes(hf: dict[str, Any], where: str) -> tuple[Rope, Rope | None]:
    """Returns the `Rope` of all layers or, for Gemma 3, those of its full and its local layers."""
    old, new = hf["rope_scaling"] or {}, hf["rope_parameters"] or {}
    if hf["model_type"] != "gemma3_text":
        key = "rope_scaling" if old else "rope_parameters"
        return _rope(old or new, hf["rope_theta"], key, where), None
    if wrong := sorted(set(new) - {FULL, SLIDING}):
        raise UserError(
            f"{where}: rope_parameters of gemma3_text must be grouped by layer type "
            f"({FULL}, {SLIDING}), not {', '.join(wrong)}"
        )
    for kind, part in new.items():
        if part is not None:
            _OBJECT.check(part, f"rope_parameters.{kind}", where)
    full, local = new.get(FULL) or {}, new.get(SLIDING) or {}
    key = "rope_scaling" if old else f"rope_parameters.{FULL}"
    rope = _rope(full | old, hf["rope_theta"], key, where)
    key = f"rope_parameters.{SLIDING}"
    local_rope = _rope(local, hf["rope_local_base_freq"], key, where)
    if local_rope != Rope(local_rope.theta):
        raise UserError(
            f"{where}: {key} with a scaling is not supported; use a checkpoint without it"
        )
    return rope, local_rope


def _rope(given: dict[str, Any], theta: float, key: str, where: str) -> Rope:
    for name, kind in _ROPE.items():
        if name in given:
            kind.check(given[name], f"{key}.{name}", where)
    theta = float(given.get("rope_theta", theta))
    # "type" is the older name of "rope_type".
    names = {given[name] for name in ("rope_type", "type") if name in given} or {"default"}
    name = ", ".join(sorted(names))
    if name not in _SCALINGS:
        raise UserError(
            f"{where}: {key} with rope_type={name!r} is not supported; supported: "
            f"{', '.join(_SCALINGS)}"
        )
    if missing := [part for part in _SCALINGS[name] if part not in given]:
        raise UserError(
            f"{where}: {key} with rope_type={name!r} lacks {', '.join(missing)}; copy the whole "
            "entry from the checkpoint that it came from"
        )
    if nested := sorted(part for part, value in given.items() if isinstance(value, dict)):
        raise UserError(
            f"{where}: {key} grouped by {', '.join(nested)} is not supported in this family; "
            "use a checkpoint without it"
        )
    if name == "default":
        return Rope(theta)
    if name == "linear":
        return Rope(theta, float(given["factor"]))
    low, high = float(given["low_freq_factor"]), float(given["high_freq_factor"])
    if high <= low:
        raise UserError(
            f"{where}: {key}.high_freq_factor={high:g} must exceed low_freq_factor={low:g}"
        )
    return Rope(theta, float(given["factor"]), given["original_max_position_embeddings"], low, high)


def _check_rope_spellings(given: dict[str, Any], hf: dict[str, Any], where: str) -> None:
    """Raises a `UserError` if a config.json has both spellings and they disagree.

    `given` is the config.json as it was written; `hf` also has the class defaults.
    """
    old, new = hf["rope_scaling"] or {}, hf["rope_parameters"] or {}
    name, full = "rope_parameters", new
    if by_layer := hf["model_type"] == "gemma3_text":
        name, full = f"rope_parameters.{FULL}", new.get(FULL) or {}
    theta = f"{name}.rope_theta", full.get("rope_theta")
    pairs = [("rope_theta", given.get("rope_theta"), *theta)]
    if old:
        pairs.append(("the theta of rope_scaling", old.get("rope_theta", hf["rope_theta"]), *theta))
    if old and set(full) - {"rope_theta"}:
        pairs.append(("rope_scaling", _scaling(old), name, _scaling(full)))
    if by_layer:
        local, key = (new.get(SLIDING) or {}).get("rope_theta"), "rope_local_base_freq"
        pairs.append((key, given.get(key), f"rope_parameters.{SLIDING}.rope_theta", local))
    for left, first, right, second in pairs:
        if None not in (first, second) and first != second:
            raise UserError(
                f"{where}: {left}={first} and {right}={second} disagree; keep the one that the "
                "model was trained with, and delete the other"
            )


def _scaling(given: dict[str, Any]) -> dict[str, Any]:
    name = given.get("rope_type", given.get("type", "default"))
    return {"rope_type": name} | {part: given.get(part) for part in _SCALINGS.get(name, ())}


def llama3_scaling(rope: Rope) -> dict[str, Any]:
    """Returns the `rope_scaling` of Llama 3.1 and later."""
    return {
        "rope_type": "llama3",
        "factor": rope.factor,
        "low_freq_factor": rope.low,
        "high_freq_factor": rope.high,
        "original_max_position_embeddings": rope.original_context,
    }


def _spelled(rope: Rope, local_rope: Rope | None) -> dict[str, Any]:
    """Returns the keys of a config.json for `rope`, as transformers 4 and 5 spell them."""
    scaling: dict[str, Any] | None = None
    if rope.original_context:
        scaling = llama3_scaling(rope)
    elif rope.factor != 1:
        scaling = {"rope_type": "linear", "factor": rope.factor}
    parameters = {"rope_type": "default", "rope_theta": rope.theta} | (scaling or {})
    keys = {"rope_theta": rope.theta, "rope_scaling": scaling, "rope_parameters": parameters}
    if local_rope is None:
        return keys
    local = {"rope_type": "default", "rope_theta": local_rope.theta}
    keys["rope_parameters"] = {FULL: parameters, SLIDING: local}
    return keys | {"rope_local_base_freq": local_rope.theta}
