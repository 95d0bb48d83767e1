"""A random Llama of about 30 thousand parameters with a real tokenizer, written in a second.

The tensor names are spelled out here, apart from `bridge_jax.models.hub.families`, so that a test
which loads the checkpoint would notice a wrong name there.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = ("<|im_start|>", "<|im_end|>", "<|pad|>")


def write_checkpoint(
    folder: Path,
    seed: int = 0,
    layers: int = 3,
    vocab: int = 512,
    dim: int = 32,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 8,
    mlp: int = 64,
    tied: bool = True,
    rope_theta: float = 10_000.0,
    max_positions: int = 512,
) -> Path:
    """Writes config.json, model.safetensors and the tokenizer's files; returns `folder`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": dim,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate_size": mlp,
        "rope_theta": rope_theta,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "max_position_embeddings": max_positions,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    save_file(tensors(config, seed), folder / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(folder, vocab)
    return folder


def tensors(config: dict, seed: int) -> dict[str, np.ndarray]:
    """Returns random f32 tensors with the names and shapes of transformers' Llama."""
    rng = np.random.default_rng(seed)
    d, f, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    n = config["num_attention_heads"] * config["head_dim"]
    k = config["num_key_value_heads"] * config["head_dim"]

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.1, shape).astype(np.float32)

    def scale() -> np.ndarray:
        return rng.uniform(0.5, 1.5, d).astype(np.float32)

    out = {"model.embed_tokens.weight": normal(v, d), "model.norm.weight": scale()}
    if not config["tie_word_embeddings"]:
        out["lm_head.weight"] = normal(v, d)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        out |= {
            f"{layer}.input_layernorm.weight": scale(),
            f"{layer}.post_attention_layernorm.weight": scale(),
            f"{layer}.self_attn.q_proj.weight": normal(n, d),
            f"{layer}.self_attn.k_proj.weight": normal(k, d),
            f"{layer}.self_attn.v_proj.weight": normal(k, d),
            f"{layer}.self_attn.o_proj.weight": normal(d, n),
            f"{layer}.mlp.gate_proj.weight": normal(f, d),
            f"{layer}.mlp.up_proj.weight": normal(f, d),
            f"{layer}.mlp.down_proj.weight": normal(d, f),
        }
    return out


def write_tokenizer(folder: Path, vocab: int) -> None:
    """Trains a byte-level BPE of at most `vocab` entries on practice questions, digits single."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from bridge_jax.data import practice

    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    drawn = practice.generate(99, 40, 0, 0, ("triage", "fees", "samples"), 1, 3)
    bpe.train_from_iterator([e.question for e in drawn.pool], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHAT_TEMPLATE,
    )
    fast.save_pretrained(folder)
