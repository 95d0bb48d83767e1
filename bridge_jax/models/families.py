"""What a checkpoint's `config.json` says, as a `DecoderConfig`: one reader for all families."""

from typing import Any

from bridge_jax.errors import UserError
from bridge_jax.models import hf_fields, rope_config
from bridge_jax.models.config import DecoderConfig

_GEMMA = {
    "norm_offset": 1.0,
    "post_norms": True,
    "activation": "gelu_tanh",
    "scale_embedding": True,
}

# What a family always is; everything else is read from its config.json.
TRAITS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": True},
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA | {"qk_norm": True},
}

_ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
# Keys that would make another model of it when they are set.
_UNSUPPORTED = ("attention_bias", "mlp_bias", "use_bidirectional_attention")


def from_hf(hf: dict[str, Any]) -> DecoderConfig:
    """Returns the config of a checkpoint's `config.json`.

    Raises:
      UserError: the family or one of its features is not supported, or a value is wrong.
    """
    hf = _read_by_its_class(complete(hf))
    local = tuple(kind == "sliding_attention" for kind in _layer_types(hf, "config.json"))
    scalar = hf.get("query_pre_attn_scalar")
    rope, local_rope = rope_config.read(hf, "config.json")
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
        **TRAITS[hf["model_type"]],
    )


def complete(hf: dict[str, Any], where: str = "config.json") -> dict[str, Any]:
    """Returns a config.json in which everything that makes the model is said, and is right.

    Class defaults are filled in, derived sizes computed, and the positions and the dtype spelled as
    transformers 4 and as transformers 5 read them. What is complete stays as it is.

    Args:
      hf: as it was read.
      where: names the file in errors.

    Raises:
      UserError: the family or one of its features is not supported, or a value is wrong.
    """
    family = hf.get("model_type")
    if not isinstance(family, str) or family not in TRAITS:
        raise UserError(
            f"{where}: model_type={family!r} is not supported; supported: {', '.join(TRAITS)}"
        )
    if hf.get("quantization_config"):
        raise UserError(
            f"{where}: quantised weights (quantization_config) are not supported; give the "
            "checkpoint that they were made from, in bfloat16, float16 or float32"
        )
    if wrong := [key for key in _UNSUPPORTED if hf.get(key)]:
        raise UserError(
            f"{where}: {family} with {', '.join(wrong)} is not supported; "
            "use a checkpoint without it"
        )
    given, hf = hf, hf_fields.with_defaults(hf, where)
    known = _read_by_its_class(hf)
    known |= _head_sizes(known, where)
    _check_activation(known, where)
    types = _layer_types(known, where)
    if "layer_types" in known:
        known["layer_types"] = types
    elif hf.get("layer_types") not in (None, types):
        raise UserError(f"{where}: layer_types of a {family} are not supported")
    ropes = rope_config.read(known, where)
    rope_config.check_spellings(given, known, where)
    known |= rope_config.spelled(*ropes)
    if dtype := hf.get("dtype") or hf.get("torch_dtype"):
        # Both spellings: transformers 5 reads the first, older releases and servers the second.
        dtype = dtype.removeprefix("torch.")
        known |= {"dtype": dtype, "torch_dtype": dtype}
    return hf | known | {"architectures": _architectures(hf, where)}


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
    return {"model_type": family} | {key: hf[key] for key in hf_fields.DEFAULTS[family]}


def _architectures(hf: dict[str, Any], where: str) -> list[str]:
    family, given = hf["model_type"], hf.get("architectures")
    ours = hf_fields.ARCHITECTURES[family]
    # Some early conversions write LLaMAForCausalLM.
    if given and ours.lower() not in [name.lower() for name in given]:
        raise UserError(
            f"{where}: architectures={', '.join(given)} contradicts model_type={family!r}, which "
            f"is {ours}; give a causal language model, or correct the one that is wrong"
        )
    return [ours]


def _head_sizes(hf: dict[str, Any], where: str) -> dict[str, int]:
    heads, dim = hf["num_attention_heads"], hf["head_dim"]
    kv_heads = hf["num_key_value_heads"] or heads
    if heads % kv_heads:
        raise UserError(
            f"{where}: num_attention_heads={heads} is no multiple of num_key_value_heads={kv_heads}"
        )
    if dim is None:
        dim, rest = divmod(hf["hidden_size"], heads)
        if rest:
            raise UserError(
                f"{where}: hidden_size={hf['hidden_size']} is no multiple of "
                f"num_attention_heads={heads}, and there is no head_dim"
            )
        hf_fields.require(hf_fields.KINDS["head_dim"], dim, "hidden_size / heads", where)
    return {"num_key_value_heads": kv_heads, "head_dim": dim}


def _check_activation(hf: dict[str, Any], where: str) -> None:
    family = hf["model_type"]
    given = hf["hidden_act" if "hidden_act" in hf else "hidden_activation"]
    if _ACTIVATIONS.get(given) != TRAITS[family].get("activation", "silu"):
        raise UserError(f"{where}: {family} with the activation {given!r} is not supported")


def _layer_types(hf: dict[str, Any], where: str) -> list[str]:
    count = hf["num_hidden_layers"]
    types = hf.get("layer_types")
    if types is None:
        full, sliding = hf_fields.LAYER_TYPES
        types = [sliding if is_local else full for is_local in _local_by_default(hf)]
    if len(types) != count:
        raise UserError(
            f"{where}: layer_types has {len(types)} entries for num_hidden_layers={count}"
        )
    window = hf.get("sliding_window") if hf.get("use_sliding_window", True) else None
    if "sliding_attention" in types and window is None:
        raise UserError(
            f"{where}: layers have sliding attention, but sliding_window is null, or "
            "use_sliding_window is false; set what the model was trained with"
        )
    return types


def _local_by_default(hf: dict[str, Any]) -> list[bool]:
    family, layers = hf["model_type"], range(hf["num_hidden_layers"])
    if family.startswith("gemma"):
        period = hf.get("sliding_window_pattern", 2)  # Gemma 2 alternates.
        return [(i + 1) % period != 0 for i in layers]
    has_window = hf.get("sliding_window") is not None and hf.get("use_sliding_window", True)
    return [has_window and i >= hf.get("max_window_layers", 0) for i in layers]
