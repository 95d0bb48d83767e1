"""GGUF files of tiny models, written by the gguf package."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.tiny import CHAT_TEMPLATE

# llama.cpp's names, spelled out apart from bridge_jax.models.hub.families.
# Gemma's, before the others: it has four norms.
GEMMA_NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def their_name(name, family):
    names = GEMMA_NAMES | NAMES if family.startswith("gemma") else NAMES
    for hf, llama_cpp in names.items():
        name = name.replace(hf, llama_cpp)
    return name.replace("model.layers.", "blk.")


def interleaved(weight, heads):
    """Returns queries or keys with the two rotary halves interleaved, as for Llama."""
    halves = weight.reshape(heads, 2, -1, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write_tokenizer(writer, folder, size):
    """Writes a byte-level BPE as llama.cpp does, filled up to `size` tokens; or names alone."""
    if not (folder / "tokenizer.json").exists():
        writer.add_token_list([f"[PAD{i}]" for i in range(size)])
        return
    content = json.loads((folder / "tokenizer.json").read_text())
    ids = content["model"]["vocab"]
    tokens = sorted(ids, key=ids.get)
    special = {token["content"] for token in content["added_tokens"]}
    tokens += [f"[PAD{i}]" for i in range(len(tokens), size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in content["model"]["merges"]])
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|pad|>"))
    writer.add_chat_template(CHAT_TEMPLATE)


def add_positions(writer, config):
    """Writes what llama.cpp's converter does of the rotary positions and the windows."""
    import gguf

    ropes = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta")}
    rope = ropes.get("full_attention", ropes)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if local := ropes.get("sliding_attention"):
        writer.add_rope_freq_base_swa(local["rope_theta"])
        writer.add_sliding_window(config["sliding_window"])


def write_gguf(folder, path, factors=None, scaling=None):
    """Writes the model and the tokenizer of a folder as one GGUF file; returns its path."""
    config = json.loads((folder / "config.json").read_text())
    family = config["model_type"]
    import gguf

    writer = gguf.GGUFWriter(path, family.removesuffix("_text"))
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    add_positions(writer, config)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if scaling:
        writer.add_rope_scaling_type(scaling)
        writer.add_rope_scaling_factor(4.0)
    write_tokenizer(writer, folder, config["vocab_size"])
    tensors = {}
    for file in folder.glob("model*.safetensors"):
        tensors |= load_file(file)
    for name, value in tensors.items():
        if family == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            kind = "num_attention_heads" if "q_proj" in name else "num_key_value_heads"
            value = interleaved(value, config[kind])
        if family.startswith("gemma") and name.endswith("norm.weight"):
            value = value + 1
        writer.add_tensor(their_name(name, family), np.ascontiguousarray(value))
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_changed(folder, path, change):
    """Writes the GGUF file with other values of the keys in `change`; None leaves one out."""
    import gguf

    written = gguf.GGUFWriter.add_key_value

    def add(writer, key, value, *rest):
        if key in change:
            value = change[key]
            if value is None:
                return
            rest = (gguf.GGUFValueType.get_type(value),)
        written(writer, key, value, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf.GGUFWriter, "add_key_value", add)
        return write_gguf(folder, path)
