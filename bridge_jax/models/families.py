"""What a checkpoint's `config.json` says, as a `DecoderConfig`: one reader for all families."""

from typing import Any

from bridge_jax.errors import UserError
from bridge_jax.models.config import DecoderConfig, Rope

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
_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
)
# Keys that would make another model of it when they are set.
_UNSUPPORTED = ("attention_bias", "mlp_bias", "use_bidirectional_attention", "quantization_config")


def from_hf(hf: dict[str, Any]) -> DecoderConfig:
    """Returns the config of a checkpoint's `config.json`.

    Raises:
      UserError: the family or one of its features is not supported.
    """
    family = hf.get("model_type", "")
    if family not in TRAITS:
        raise UserError(f"model_type={family!r} is not supported; supported: {', '.join(TRAITS)}")
    if missing := [key for key in _REQUIRED if key not in hf]:
        raise UserError(f"config.json of a {family} lacks {', '.join(missing)}")
    if wrong := [key for key in _UNSUPPORTED if hf.get(key)]:
        raise UserError(f"{family} with {', '.join(wrong)} is not supported")
    traits = TRAITS[family]
    activation = hf.get("hidden_activation") or hf.get("hidden_act")
    if activation and _ACTIVATIONS.get(activation) != traits.get("activation", "silu"):
        raise UserError(f"{family} with the activation {activation!r} is not supported")
    heads, layers = hf["num_attention_heads"], hf["num_hidden_layers"]
    local = local_layers(hf)
    scalar = hf.get("query_pre_attn_scalar")
    return DecoderConfig(
        vocab_size=hf["vocab_size"],
        model_dim=hf["hidden_size"],
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=hf.get("num_key_value_heads") or heads,
        head_dim=hf.get("head_dim") or hf["hidden_size"] // heads,
        mlp_dim=hf["intermediate_size"],
        rope=_rope(hf, "full_attention"),
        local_rope=_rope(hf, "sliding_attention") if family == "gemma3_text" else None,
        window=hf["sliding_window"] if any(local) else None,
        local=local if any(local) else (),
        norm_eps=float(hf.get("rms_norm_eps", 1e-6)),
        query_scale=None if scalar is None else scalar**-0.5,
        attention_softcap=hf.get("attn_logit_softcapping"),
        final_softcap=hf.get("final_logit_softcapping"),
        # A config.json leaves out what its family takes for granted.
        tied=bool(hf.get("tie_word_embeddings", family.startswith("gemma"))),
        max_positions=hf.get("max_position_embeddings", 2048),
        **traits,
    )


def local_layers(hf: dict[str, Any]) -> tuple[bool, ...]:
    """Returns which layers see only `sliding_window` tokens."""
    family, count = hf["model_type"], range(hf["num_hidden_layers"])
    if types := hf.get("layer_types"):
        return tuple(t == "sliding_attention" for t in types)
    if not hf.get("sliding_window"):
        return (False,) * len(count)
    if family == "mistral":
        return (True,) * len(count)
    if family.startswith("qwen"):
        first = hf.get("max_window_layers", 28) if hf.get("use_sliding_window") else len(count)
        return tuple(i >= first for i in count)
    if family.startswith("gemma"):
        pattern = hf.get("sliding_window_pattern") or (2 if family == "gemma2" else 6)
        return tuple((i + 1) % pattern != 0 for i in count)
    return (False,) * len(count)


def cut(hf: dict[str, Any], layers: tuple[int, ...]) -> dict[str, Any]:
    """Returns the `config.json` of the same model with only `layers`, in this order."""
    if layers == tuple(range(hf["num_hidden_layers"])):
        return dict(hf)
    local = local_layers(hf)
    kept = hf | {"num_hidden_layers": len(layers)}
    if any(local):
        names = {True: "sliding_attention", False: "full_attention"}
        kept["layer_types"] = [names[local[i]] for i in layers]
    else:
        kept.pop("layer_types", None)
    if "max_window_layers" in kept:
        kept["max_window_layers"] = min(kept["max_window_layers"], len(layers))
    return kept


def _rope(hf: dict[str, Any], kind: str) -> Rope:
    # transformers 5 moved rope_theta into rope_parameters, by kind of layer where they differ;
    # the older spellings are in circulation as well.
    given = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    given = given.get(kind, given)
    theta = hf.get("rope_theta")
    if kind == "sliding_attention" and not hf.get("rope_parameters"):
        given, theta = {}, hf.get("rope_local_base_freq", 10_000.0)
    default = 1e6 if (hf["model_type"], kind) == ("gemma3_text", "full_attention") else 10_000.0
    theta = float(given.get("rope_theta") or theta or default)
    match given.get("rope_type", given.get("type", "default")):
        case "default":
            return Rope(theta)
        case "linear":
            return Rope(theta, float(given["factor"]))
        case "llama3":
            return Rope(
                theta,
                float(given["factor"]),
                given["original_max_position_embeddings"],
                float(given["low_freq_factor"]),
                float(given["high_freq_factor"]),
            )
        case other:
            raise UserError(
                f"rope_type={other!r} is not supported; supported: default, linear, llama3"
            )
