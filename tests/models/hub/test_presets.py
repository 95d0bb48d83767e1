"""The presets are the published checkpoints: exact counts, positions and windows."""

import dataclasses

import pytest

from bridge_jax.errors import UserError
from bridge_jax.models import decoder
from bridge_jax.models.config import Rope
from bridge_jax.models.hub import gguf_file, presets
from bridge_jax.models.hub.families import FAMILIES
from bridge_jax.models.hub.files import read_hf_config
from bridge_jax.models.hub.hf_config import from_hf

# As published with the weights; a tied embedding counts once (the files of Qwen3-0.6B and
# Qwen3-1.7B hold it twice: 751,632,384 and 2,031,739,904).
PUBLISHED = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M-Instruct": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": 1_711_376_384,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-14B-Instruct": 14_770_033_664,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "meta-llama/Llama-2-7b-chat-hf": 6_738_415_616,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "mistralai/Mistral-7B-Instruct-v0.1": 7_241_732_096,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
    "google/gemma-2-2b-it": 2_614_341_888,
    "google/gemma-2-9b-it": 9_241_705_984,
    "google/gemma-3-270m-it": 268_098_176,
    "google/gemma-3-1b-it": 999_885_952,
}
LLAMA_31_ROPE = Rope(500_000.0, 8.0, 8192, 1.0, 4.0)


def config_of(hub_id):
    return from_hf(presets.hf_config(hub_id))


def test_every_preset_is_counted_and_every_family_has_one():
    assert set(presets.PRESETS) == set(PUBLISHED)
    assert {hf["model_type"] for hf in presets.PRESETS.values()} == set(FAMILIES)


@pytest.mark.parametrize("hub_id", PUBLISHED)
def test_the_parameters_are_as_many_as_published(hub_id):
    config = config_of(hub_id)
    assert decoder.count_parameters(config) == PUBLISHED[hub_id]
    fewer = dataclasses.replace(config, num_layers=config.num_layers - 1, local=config.local[:-1])
    assert decoder.count_parameters(fewer) != PUBLISHED[hub_id]


# What no count can tell.
@pytest.mark.parametrize(
    ("hub_id", "rope", "norm_eps", "max_positions"),
    [
        ("HuggingFaceTB/SmolLM2-360M-Instruct", Rope(100_000.0), 1e-5, 8192),
        ("HuggingFaceTB/SmolLM2-1.7B-Instruct", Rope(130_000.0), 1e-5, 8192),
        ("Qwen/Qwen2.5-7B-Instruct", Rope(1e6), 1e-6, 32_768),
        ("Qwen/Qwen3-0.6B", Rope(1e6), 1e-6, 40_960),
        ("meta-llama/Llama-2-7b-chat-hf", Rope(10_000.0), 1e-5, 4096),
        ("meta-llama/Llama-3.1-8B-Instruct", LLAMA_31_ROPE, 1e-5, 131_072),
        (
            "meta-llama/Llama-3.2-1B-Instruct",
            dataclasses.replace(LLAMA_31_ROPE, factor=32.0),
            1e-5,
            131_072,
        ),
        ("mistralai/Mistral-7B-Instruct-v0.1", Rope(10_000.0), 1e-5, 32_768),
        ("mistralai/Mistral-7B-Instruct-v0.3", Rope(1e6), 1e-5, 32_768),
        ("google/gemma-2-9b-it", Rope(10_000.0), 1e-6, 8192),
        ("google/gemma-3-270m-it", Rope(1e6), 1e-6, 32_768),
    ],
)
def test_positions_and_norms_are_the_published_ones(hub_id, rope, norm_eps, max_positions):
    config = config_of(hub_id)
    assert (config.rope, config.norm_eps, config.max_positions) == (rope, norm_eps, max_positions)


@pytest.mark.parametrize(
    ("hub_id", "window", "full"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", None, range(28)),
        ("mistralai/Mistral-7B-Instruct-v0.1", 4096, ()),
        ("mistralai/Mistral-7B-Instruct-v0.3", None, range(32)),
        ("google/gemma-2-2b-it", 4096, range(1, 26, 2)),
        ("google/gemma-3-270m-it", 512, (5, 11, 17)),
        ("google/gemma-3-1b-it", 512, (5, 11, 17, 23)),
    ],
)
def test_windows_are_on_the_published_layers(hub_id, window, full):
    config = config_of(hub_id)
    local = config.local or (False,) * config.num_layers
    assert config.window == window
    assert [i for i, is_local in enumerate(local) if not is_local] == list(full)


def test_gemma_has_its_own_scales_and_caps():
    two, three = config_of("google/gemma-2-9b-it"), config_of("google/gemma-3-1b-it")
    # 9b divides scores by sqrt(256), the head dimension; by D / N it would be sqrt(224).
    assert (two.query_scale, three.query_scale) == (1 / 16, 1 / 16)
    assert (two.attention_softcap, two.final_softcap) == (50.0, 30.0)
    assert (three.attention_softcap, three.final_softcap) == (None, None)
    assert (two.local_rope, three.local_rope) == (None, Rope(10_000.0))


def test_a_preset_is_what_the_checkpoint_itself_says():
    try:
        path = gguf_file.bundled_smollm2()
    except UserError as error:
        pytest.skip(str(error))
    theirs = from_hf(read_hf_config(path))
    # GGUF holds the epsilon in f32.
    assert theirs.norm_eps == pytest.approx(1e-5, rel=1e-6)
    ours = config_of("HuggingFaceTB/SmolLM2-135M-Instruct")
    assert dataclasses.replace(theirs, norm_eps=1e-5) == ours


def test_what_is_returned_is_a_copy():
    first = presets.hf_config("meta-llama/Llama-3.2-1B-Instruct")
    first["rope_scaling"]["factor"] = 1.0
    assert presets.hf_config("meta-llama/Llama-3.2-3B-Instruct")["rope_scaling"]["factor"] == 32.0


def test_an_unknown_id_is_an_error_that_lists_the_known_ones():
    with pytest.raises(UserError, match=r"no preset for 'Qwen/Qwen2\.5-7B'; .*-7B-Instruct,"):
        presets.hf_config("Qwen/Qwen2.5-7B")
