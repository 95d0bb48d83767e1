"""Checkpoints of more than a language model: its part is read, or how to save it is said."""

import dataclasses
import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bridge_jax.config import LoraConfig, ModelConfig
from bridge_jax.errors import UserError
from bridge_jax.models.hub import checkpoint, export
from tests import tiny
from tests.models.test_model_parity import all_logits

torch = pytest.importorskip("torch")

TOKENS = np.random.default_rng(0).integers(0, 60, (2, 30))
TEXT = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}


def write(model, folder):
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_(0, 0.15)
    model.eval().save_pretrained(folder)
    tiny.write_tokenizer(folder, 512)
    return model


def logits_of(model):
    with torch.no_grad():
        return model(torch.tensor(TOKENS)).logits.float().numpy()


def write_gemma3(folder):
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = TEXT | {"sliding_window": 5, "query_pre_attn_scalar": 12}
    config = Gemma3Config(
        text_config=text,
        vision_config=VISION | {"num_hidden_layers": 1},
        **{"image_token_index": 500, "boi_token_index": 501, "eoi_token_index": 502},
        mm_tokens_per_image=4,
    )
    return write(Gemma3ForConditionalGeneration(config), folder)


def change(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def rename(folder, renamed):
    tensors = load_file(folder / "model.safetensors")
    tensors = {renamed(name): value for name, value in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def by_module(name):
    name = name.replace("language_model.model.", "model.language_model.")
    return re.sub(r"^(vision_tower|multi_modal_projector)", r"model.\1", name)


@pytest.mark.slow
@pytest.mark.parametrize("naming", ["hub", "module"])
def test_the_language_model_of_a_gemma_3_is_read(naming, tmp_path):
    from transformers import AutoModelForCausalLM

    theirs = write_gemma3(tmp_path / "in")
    assert "language_model.model.norm.weight" in load_file(tmp_path / "in/model.safetensors")
    if naming == "module":
        rename(tmp_path / "in", by_module)
    model = ModelConfig(str(tmp_path / "in"))
    config, params = checkpoint.load(model)
    expected = logits_of(theirs)
    assert expected.std() > 0.1 and config.tied and config.local[:6] == (True,) * 5 + (False,)
    ours = np.asarray(all_logits(config, params, TOKENS))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)

    with export.folder(tmp_path / "out") as out:
        export.write_model(out, config, params, checkpoint.cut_hf_config(model))
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert type(alone).__name__ == "Gemma3ForCausalLM" and alone.dtype == torch.float32
    np.testing.assert_allclose(logits_of(alone), expected, rtol=0, atol=1e-4)


def test_an_adapter_of_a_composite_is_not_exported(tmp_path):
    write_gemma3(tmp_path / "in")
    model = ModelConfig(str(tmp_path / "in"))
    config, params = checkpoint.load(model)
    config = dataclasses.replace(config, lora=LoraConfig(rank=2))
    hf = checkpoint.cut_hf_config(model)
    with (
        pytest.raises(UserError, match=r"parts besides its language model.*export the full"),
        export.folder(tmp_path / "out") as out,
    ):
        export.write_adapter(out, config, params, hf, model.checkpoint)
    assert not (tmp_path / "out").exists()


def test_a_gemma_3_says_little_of_its_language_model(tmp_path):
    write_gemma3(tmp_path)
    text = json.loads((tmp_path / "config.json").read_text())["text_config"]
    # As google/gemma-3-4b-it: what is the default of the class, or said of the whole, is left out.
    for key in ("model_type", "query_pre_attn_scalar", "tie_word_embeddings", "rope_parameters"):
        text.pop(key)
    change(tmp_path, text_config=text, dtype="bfloat16", eos_token_id=[1, 106])
    hf = checkpoint.cut_hf_config(ModelConfig(str(tmp_path)))
    assert hf["model_type"] == "gemma3_text" and hf["architectures"] == ["Gemma3ForCausalLM"]
    assert (hf["dtype"], hf["eos_token_id"]) == ("bfloat16", [1, 106])
    assert hf["query_pre_attn_scalar"] == 256
    assert (hf["rope_theta"], hf["rope_local_base_freq"]) == (1e6, 1e4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_config": [1]}, "is not supported; use a text-only checkpoint"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized weights"),
        ({"model_type": ["gemma3"]}, r"model_type=\['gemma3'\] has a language model among"),
    ],
)
def test_a_damaged_composite(changes, message, tmp_path):
    write_gemma3(tmp_path)
    change(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        checkpoint.load(ModelConfig(str(tmp_path)))


def test_other_composites_are_saved_as_the_error_says(tmp_path):
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    vision = VISION | {"model_type": "clip_vision_model", "projection_dim": 8}
    text = TEXT | {"model_type": "llama", "tie_word_embeddings": False}
    config = LlavaConfig(text_config=text, vision_config=vision, image_token_index=500)
    theirs = write(LlavaForConditionalGeneration(config), tmp_path / "in")
    with pytest.raises(UserError, match="model_type='llava' has a language model among") as caught:
        checkpoint.load(ModelConfig(str(tmp_path / "in")))
    program = "\n".join(str(caught.value).splitlines()[1:]).replace("  ", "")
    exec(program, {"IN": str(tmp_path / "in"), "OUT": str(tmp_path / "out")})
    config, params = checkpoint.load(ModelConfig(str(tmp_path / "out")))
    ours = np.asarray(all_logits(config, params, TOKENS))
    np.testing.assert_allclose(ours, logits_of(theirs), rtol=0, atol=1e-4)
    assert (tmp_path / "out/tokenizer.json").is_file()


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "qwen2_5_vl", "vision_config": {}, "hidden_size": 32},
        {"model_type": "qwen2_5_vl", "text_config": {"model_type": "qwen2_5_vl_text"}},
        {"model_type": "qwen2_audio", "audio_config": {}},
    ],
)
def test_a_language_model_of_another_family_is_named(config, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    said = f"model_type='{config['model_type']}' has a .* use a text-only checkpoint of llama"
    with pytest.raises(UserError, match=said):
        checkpoint.load(ModelConfig(str(tmp_path)))
