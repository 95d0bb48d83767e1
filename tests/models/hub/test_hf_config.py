"""config.json: class defaults and nulls as transformers has them, and what is refused."""

import json
import logging
import re

import jax
import pytest
import transformers
from transformers import AutoConfig

from bridge_jax.errors import UserError
from bridge_jax.models.config import Rope
from bridge_jax.models.hub import presets
from bridge_jax.models.hub.families import FAMILIES
from bridge_jax.models.hub.hf_config import KINDS, complete, cut, from_hf

IS_FIVE = not transformers.__version__.startswith("4.")
# No value is the default of its class, so that each key that is missing makes a difference.
UNUSUAL = {
    "vocab_size": 96,
    "hidden_size": 128,
    "intermediate_size": 72,
    "num_hidden_layers": 7,
    "num_attention_heads": 64,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 640,
    "hidden_act": "silu",
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 3e-5,
    "rope_theta": 777.0,
    "rope_local_base_freq": 333.0,
    "rope_scaling": {"rope_type": "linear", "factor": 3.0},
    "rope_parameters": None,
    "use_sliding_window": True,
    "sliding_window": 6,
    "max_window_layers": 3,
    "layer_types": None,
    "sliding_window_pattern": 3,
    "query_pre_attn_scalar": 20,
    "attn_logit_softcapping": 7.0,
    "final_logit_softcapping": 9.0,
}
CASES = [(family, key) for family in FAMILIES for key in FAMILIES[family].defaults]


def unusual(family):
    """Returns a config.json with a value for each key that the family's class reads."""
    keys = FAMILIES[family].defaults
    is_tied = not keys["tie_word_embeddings"]
    values = UNUSUAL | {"tie_word_embeddings": is_tied}
    return {"model_type": family} | {key: values[key] for key in keys}


def said_by_transformers(hf):
    """Returns what transformers reads, in the words of `DecoderConfig`."""
    config = AutoConfig.for_model(**json.loads(json.dumps(hf)))
    family, heads = hf["model_type"], config.num_attention_heads
    window = getattr(config, "sliding_window", None)
    count = config.num_hidden_layers
    types = getattr(config, "layer_types", None) if family != "mistral" else None
    local = [kind == "sliding_attention" for kind in types or ()] or [family == "mistral"] * count
    if family == "mistral" and window is None:
        local = [False] * count
    if any(local) and window is None:
        raise ValueError("transformers says so when the model runs")
    head_dim = getattr(config, "head_dim", None)
    if head_dim is None and family in ("llama", "mistral", "qwen2"):
        head_dim = config.hidden_size // heads
    scalar = getattr(config, "query_pre_attn_scalar", None)
    rope, local_rope = ropes_of(config)
    read = {
        "vocab_size": config.vocab_size,
        "model_dim": config.hidden_size,
        "num_layers": count,
        "num_heads": heads,
        "num_kv_heads": config.num_key_value_heads,
        "head_dim": head_dim,
        "mlp_dim": config.intermediate_size,
        "rope": rope,
        "local_rope": local_rope,
        "window": window if any(local) else None,
        "local": tuple(local) if any(local) else (),
        "norm_eps": config.rms_norm_eps,
        "query_scale": scalar and scalar**-0.5,
        "attention_softcap": getattr(config, "attn_logit_softcapping", None),
        "final_softcap": getattr(config, "final_logit_softcapping", None),
        "tied": config.tie_word_embeddings,
        "max_positions": config.max_position_embeddings,
    }
    may_be_none = ("local_rope", "window", "query_scale", "attention_softcap", "final_softcap")
    has_scale = scalar is not None or not family.startswith("gemma")
    is_sure = getattr(config, "use_sliding_window", False) is not None
    if not (has_scale and is_sure and None not in [read[k] for k in read if k not in may_be_none]):
        raise ValueError("transformers 5 refuses it at once, 4 when the model runs, or never")
    return read


def ropes_of(config):
    if not IS_FIVE:
        full = {"rope_theta": config.rope_theta} | (getattr(config, "rope_scaling", None) or {})
        local = {"rope_theta": getattr(config, "rope_local_base_freq", None)}
    else:
        given = config.rope_parameters
        full, local = given.get("full_attention", given), given.get("sliding_attention", {})
    kind = full.get("rope_type", "default")
    rope = Rope(float(full["rope_theta"]), full["factor"] if kind != "default" else 1.0)
    if kind == "llama3":
        rope = Rope(
            *(rope.theta, rope.factor, full["original_max_position_embeddings"]),
            *(full["low_freq_factor"], full["high_freq_factor"]),
        )
    if config.model_type != "gemma3_text":
        return rope, None
    return rope, Rope(float(local["rope_theta"]))


def read(hf):
    """Returns the same of ours."""
    config = from_hf(hf)
    return {name: getattr(config, name) for name in said_by_transformers({"model_type": "llama"})}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_said_is_read(family):
    hf = unusual(family)
    assert read(hf) == said_by_transformers(hf)
    assert read({"model_type": family}) == said_by_transformers({"model_type": family})
    assert read(hf) != read({"model_type": family})


@pytest.mark.parametrize(("family", "key"), CASES)
def test_a_missing_key_is_its_class_default(family, key):
    hf = unusual(family)
    del hf[key]
    assert read(hf) == said_by_transformers(hf)


@pytest.mark.parametrize(("family", "key"), CASES)
def test_null_is_read_as_transformers_does_or_refused(family, key, caplog):
    caplog.set_level(logging.ERROR)
    hf = unusual(family) | {key: None}
    try:
        expected = said_by_transformers(hf)
    except Exception:  # Its checks, and PyTorch's, raise many kinds.
        expected = None
    if (family, key) == ("mistral", "num_key_value_heads"):
        assert read(hf)["num_kv_heads"] == 64  # as transformers 4 reads it; 5 refuses
    elif expected is None or key in ("hidden_act", "hidden_activation"):
        with pytest.raises(UserError, match=key):
            from_hf(hf)
    else:
        assert read(hf) == expected


def test_gemma_2_without_soft_caps_has_those_of_its_class():
    hf = presets.hf_config("google/gemma-2-2b-it")
    for key in ("attn_logit_softcapping", "final_logit_softcapping", "sliding_window"):
        hf.pop(key, None)
    config = from_hf(hf)
    assert (config.attention_softcap, config.final_softcap, config.window) == (50.0, 30.0, 4096)
    without = from_hf(hf | {"attn_logit_softcapping": None, "final_logit_softcapping": None})
    assert (without.attention_softcap, without.final_softcap) == (None, None)


def test_keys_that_a_class_does_not_read_say_nothing():
    llama = unusual("llama")
    foreign = {"sliding_window": 5, "final_logit_softcapping": 2.0, "query_pre_attn_scalar": 9}
    assert from_hf(llama | foreign) == from_hf(llama)
    with pytest.raises(UserError, match="layer_types is not supported for llama"):
        from_hf(llama | {"layer_types": ["sliding_attention"] * 7})


# Neither is right for any key.
NEVER = ["", "32", [1], {"type": 1}, [[]], -1, float("nan"), float("inf"), 10**30, -0.5]


@pytest.mark.parametrize("key", KINDS)
def test_a_wrong_value_is_named(key):
    family = next(name for name in reversed(FAMILIES) if key in FAMILIES[name].defaults)
    for value in NEVER:
        with pytest.raises(UserError, match=key.split("_")[-1]) as caught:
            from_hf(unusual(family) | {key: value})
        assert "config.json" in str(caught.value)


WHOLE = [key for key, kind in KINDS.items() if kind.said.startswith("a whole number")]


@pytest.mark.parametrize("key", WHOLE)
def test_a_size_is_a_whole_number_within_reason(key):
    family = next(name for name in FAMILIES if key in FAMILIES[name].defaults)
    for value in (True, 8.0, 0.5, 1 << 40):
        with pytest.raises(UserError, match=f"{key}=.* must be a whole number from"):
            from_hf(unusual(family) | {key: value})


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("llama", {"model_type": ["llama"]}, r"model_type=\['llama'\] is not supported"),
        ("llama", {"head_dim": 9}, "head_dim=9 must be an even number"),
        ("llama", {"num_key_value_heads": 3}, "num_attention_heads=64 is not a multiple of"),
        ("llama", {"head_dim": None, "hidden_size": 50}, "hidden_size=50 is not a multiple of"),
        ("llama", {"architectures": ["MistralForCausalLM"]}, "contradicts model_type='llama'"),
        ("llama", {"architectures": "LlamaForCausalLM"}, "architectures=.* a list of names"),
        ("llama", {"dtype": "int8"}, 'dtype="int8" must be float32 or bfloat16'),
        ("llama", {"eos_token_id": [1, "2"]}, "eos_token_id=.* must be a token id, or a list"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5 must be 1"),
        ("llama", {"quantization_config": {"quant_method": "gptq"}}, "checkpoint that they were"),
        ("qwen2", {"layer_types": ["full_attention"]}, "1 entries for num_hidden_layers=7"),
        ("qwen2", {"layer_types": ["chunked_attention"] * 7}, "layer_types=.* must be a list of"),
        (
            "qwen2",
            {"layer_types": ["sliding_attention"] * 7, "use_sliding_window": False},
            "use_sliding_window is false",
        ),
        ("gemma2", {"sliding_window": None}, "sliding_window is null"),
        ("gemma3_text", {"sliding_window_pattern": 0}, "sliding_window_pattern=0 must be"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "bidirectional"),
    ],
)
def test_contradictions_are_named(family, change, message):
    with pytest.raises(UserError, match=message):
        from_hf(unusual(family) | change)


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "linear"}, "rope_type='linear' lacks factor; copy"),
        ({"type": "linear"}, "rope_type='linear' lacks factor; copy"),
        ({"rope_type": "llama3", "factor": 8.0}, "lacks low_freq_factor, high_freq_factor, orig"),
        ({"rope_type": "linear", "factor": None}, "rope_scaling.factor=null must be a number"),
        ({"rope_type": "linear", "factor": "8"}, 'rope_scaling.factor="8" must be a number'),
        ({"rope_type": "linear", "factor": 0}, "rope_scaling.factor=0 must be a number from 1"),
        ({"rope_type": None}, "rope_type=null must be a string"),
        ({"rope_type": "linear", "type": "llama3", "factor": 2.0}, "'linear, llama3' is not"),
        ({"rope_type": "yarn", "factor": 8.0}, "rope_type='yarn' is not supported"),
        (LLAMA3 | {"high_freq_factor": 1.0}, "high_freq_factor=1 must exceed low_freq_factor=1"),
        ({"full_attention": {"rope_type": "default"}}, "by full_attention is not supported"),
        (["linear", 8.0], r"rope_scaling=\[...\] must be an object"),
    ],
)
def test_wrong_positions_are_named(scaling, message):
    with pytest.raises(UserError, match=message):
        from_hf(unusual("llama") | {"rope_scaling": scaling})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rope_type": "default"}, "by layer type .*, not rope_type"),
        ({"full_attention": [1]}, r"rope_parameters.full_attention=.* must be an object"),
        ({"sliding_attention": {"rope_type": "linear", "factor": 2.0}}, "with a scaling is not"),
        ({"sliding_attention": {"rope_theta": -1}}, "sliding_attention.rope_theta=-1 must be"),
    ],
)
def test_wrong_positions_of_gemma_3_are_named(given, message):
    hf = unusual("gemma3_text") | {"rope_parameters": given, "rope_scaling": None}
    with pytest.raises(UserError, match=message):
        from_hf(hf)


# Each as transformers 5 writes it, what transformers 4 reads of it, and what is meant.
SPELLED = {
    "llama, theta alone": (
        {"model_type": "llama", "rope_parameters": {"rope_theta": 500_000.0}},
        {"rope_theta": 500_000.0, "rope_scaling": None},
        (Rope(500_000.0), None),
    ),
    "llama 3.1": (
        {"model_type": "llama", "rope_parameters": LLAMA3 | {"rope_theta": 500_000.0}},
        {"rope_theta": 500_000.0, "rope_scaling": LLAMA3},
        (Rope(500_000.0, 8.0, 8192, 1.0, 4.0), None),
    ),
    "qwen, linear": (
        {
            "model_type": "qwen2",
            "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
        },
        {"rope_theta": 1e6, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        (Rope(1e6, 4.0), None),
    ),
    "gemma 3": (
        {
            "model_type": "gemma3_text",
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 2e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5e4},
            },
        },
        {
            "rope_theta": 2e6,
            "rope_local_base_freq": 5e4,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
        (Rope(2e6, 8.0), Rope(5e4)),
    ),
}


@pytest.mark.parametrize("case", SPELLED)
def test_positions_are_written_as_both_transformers_read_them(case):
    new, old, meant = SPELLED[case]
    whole = complete(new)
    assert {key: whole[key] for key in old} == old
    assert complete(whole) == whole
    only_old = {key: value for key, value in whole.items() if key != "rope_parameters"}
    only_new = {key: value for key, value in whole.items() if key not in old}
    for hf in (new, whole, only_old, only_new, {"model_type": new["model_type"]} | old):
        config = from_hf(hf)
        assert (config.rope, config.local_rope) == meant
        if IS_FIVE or "rope_theta" in hf:
            assert ropes_of(AutoConfig.for_model(**json.loads(json.dumps(hf)))) == meant


SCALED = {"rope_type": "linear", "factor": 2.0}
PLAIN = {"rope_type": "default", "rope_theta": 5e5}


@pytest.mark.parametrize(
    ("hf", "message"),
    [
        (
            {"rope_theta": 1e6, "rope_parameters": PLAIN},
            "rope_theta=1000000.0 and rope_parameters.rope_theta=500000.0 disagree; keep the one",
        ),
        # transformers 4 writes this of a file that had the second alone.
        (
            {"rope_theta": 10_000.0, "rope_scaling": None, "rope_parameters": {"rope_theta": 5e5}},
            "rope_theta=10000.0 and rope_parameters.rope_theta=500000.0 disagree",
        ),
        (
            {"rope_scaling": SCALED, "rope_parameters": {"rope_theta": 5e5}},
            "the theta of rope_scaling=10000.0 and rope_parameters.rope_theta=500000.0 disagree",
        ),
        (
            {"rope_theta": 5e5, "rope_scaling": SCALED, "rope_parameters": PLAIN},
            "rope_scaling={'rope_type': 'linear', 'factor': 2.0} and rope_parameters={'rope_type': "
            "'default'} disagree",
        ),
        (
            {
                "model_type": "gemma3_text",
                "rope_local_base_freq": 1e4,
                "rope_parameters": {"sliding_attention": PLAIN},
            },
            "=10000.0 and rope_parameters.sliding_attention.rope_theta=500000.0 disagree",
        ),
    ],
)
def test_two_spellings_that_disagree_are_an_error(hf, message):
    with pytest.raises(UserError, match=re.escape(message)):
        complete({"model_type": "llama"} | hf)


def test_two_spellings_that_agree_are_read():
    old = {"type": "linear", "factor": 2.0, "rope_theta": 5e5}
    hf = {"rope_theta": 5e5, "rope_scaling": old, "rope_parameters": SCALED | {"rope_theta": 5e5}}
    assert from_hf({"model_type": "llama"} | hf).rope == Rope(5e5, 2.0)


@pytest.mark.parametrize("spelling", ["dtype", "torch_dtype"])
def test_a_dtype_is_spelled_with_and_without_torch(spelling):
    whole = complete({"model_type": "llama", spelling: "torch.bfloat16"})
    assert (whole["dtype"], whole["torch_dtype"]) == ("bfloat16", "bfloat16")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_largest_sizes_can_be_counted(family):
    from bridge_jax.models import decoder

    largest = {
        "vocab_size": 1 << 24,
        "hidden_size": 1 << 20,
        "intermediate_size": 1 << 22,
        "num_hidden_layers": 1 << 12,
        "num_attention_heads": 1 << 14,
        "num_key_value_heads": 1 << 14,
        "head_dim": 1 << 14,
        "tie_word_embeddings": True,
    }
    config = from_hf({"model_type": family} | largest)
    one = 4 * 2**48 + 3 * 2**42 + (config.qkv_bias * 3 * 2**28) + config.qk_norm * 2 * 2**14
    norms = (4 if config.post_norms else 2) * 2**20
    assert decoder.count_parameters(config) == 2**44 + 2**12 * (one + norms) + 2**20


def test_a_cut_config_keeps_the_kind_of_each_layer():
    hf = unusual("gemma3_text")  # Each third layer of 7 sees everything.
    kept = cut(hf, (0, 2, 6, 5))
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    assert kept["layer_types"] == kinds
    assert from_hf(kept).local == (True, False, True, False)
    assert jax.tree.structure(complete(kept)) == jax.tree.structure(kept)
    assert "layer_types" not in cut(unusual("mistral"), (0, 1))
