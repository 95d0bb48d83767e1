"""FLOPs, memory traffic and inter-chip traffic of a step, computed from its shapes.

XLA's cost analysis of a compiled step counts the body of a scan only once, so it cannot be used
here. Matrix products and attention are counted; norms, rotations and softmax are not. All figures
are totals over all chips. F is a forward pass over the layers.

    training      F + head, twice that for the backward pass (once with an adapter), F again if
                  activations are recomputed, and head again if a chip has more logits than
                  `head.KEPT_LOGITS`
    scoring       F + head at the answer tokens
    generation    F of the prompts, then F + head for each token
"""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from bridge_jax.config import TrainConfig
from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.head import KEPT_LOGITS
from bridge_jax.models.projection import is_adapted
from bridge_jax.parallel.sharding import filled_rows

F32 = 4
# How often each activation of a layer crosses the memory bus in a pass: it is written once and read
# about twice.
TOUCHES = 3


class Cost(NamedTuple):
    """Cost in floating-point operations, bytes to and from memory, and bytes between chips."""

    flops: float
    bytes: float
    collective_bytes: float

    def times(self, steps: int) -> "Cost":
        """Returns the cost of `steps` steps."""
        return Cost(*(steps * part for part in self))


def layer_parameters(config: DecoderConfig) -> int:
    """Returns the number of entries in the matrices of all layers."""
    c = config
    attention = 2 * c.model_dim * c.head_dim * (c.num_heads + c.num_kv_heads)
    return c.num_layers * (attention + 3 * c.model_dim * c.mlp_dim)


def head_parameters(config: DecoderConfig) -> int:
    """Returns the number of entries in the output head."""
    return config.vocab_size * config.model_dim


def adapter_parameters(config: DecoderConfig) -> int:
    """Returns the number of entries in the adapter."""
    c, lora = config, config.lora
    if lora is None:
        return 0
    heads, kv, mlp = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim, c.mlp_dim
    outs = {
        "attention/query": heads, "attention/key": kv, "attention/value": kv,
        "attention/out": heads, "mlp/gate": mlp, "mlp/up": mlp, "mlp/down": mlp,
    }  # fmt: skip
    widths = (c.model_dim + out for name, out in outs.items() if is_adapted(lora, name))
    return c.num_layers * lora.rank * sum(widths)


def train_step(config: DecoderConfig, train: TrainConfig, targets: int, mesh: Any) -> Cost:
    """Returns the cost of a step of `train.batch_rows` rows with `targets` targets each."""
    data, fsdp = mesh.shape["data"], mesh.shape["fsdp"]
    rows, steps = filled_rows(train.batch_rows, mesh, train.accumulate), train.row_tokens
    body = _forward(config, rows * steps, steps)
    head = 2 * head_parameters(config) * rows * targets
    backward = 1 if config.lora else 2
    again = {"full": 1.0, "attention": 1.0, "dots": 0.0, "none": 0.0}[train.remat]
    flops = model_flops(config, rows, steps, targets) + body * again
    if train.remat == "attention" and config.kernel == "splash":
        flops -= _scores(config, rows * steps, steps)
    logits = rows * targets // train.accumulate * config.vocab_size
    if logits // (data * fsdp * mesh.shape["tensor"]) > KEPT_LOGITS:  # per chip
        flops += head  # Streamed in chunks, it computes its logits twice.

    width = _bytes(config)
    trained, kept = _trained(config), _kept_bytes(config)
    passes = 2 + again
    micro = train.accumulate
    weights = data * fsdp * kept * passes * micro  # every data x fsdp part reads all of them
    # Reads the gradient; reads and writes the parameter and two moments.
    update = data * trained * F32 * 7
    traffic = (
        weights + update + _activations(config, rows * steps, steps, width) * (passes + backward)
    )

    gathered = 2 * micro * kept + micro * trained * F32  # all-gathers, and a reduce-scatter
    between = data * gathered * (fsdp - 1)
    between += 2 * trained * F32 * (data - 1)
    sums = 2 * (1 + again + 1)  # after attention and MLP, in each pass
    between += _tensor_sums(config, rows * steps, mesh) * sums
    return Cost(flops, traffic, between)


def model_flops(config: DecoderConfig, rows: int, steps: int, targets: int) -> float:
    """Returns the model FLOPs of a training step: those it needs without any recomputation.

    Model FLOPs utilisation (2204.02311, appendix B) is their rate as a share of the chips' peak.
    """
    backward = 1 if config.lora else 2
    head = 2 * head_parameters(config) * rows * targets
    # `_forward` includes the adapter. Unlike frozen matrices, it also has weight gradients.
    gradients = 2 * adapter_parameters(config) * rows * steps
    return (_forward(config, rows * steps, steps) + head) * (1 + backward) + gradients


def scoring_step(config: DecoderConfig, rows: int, width: int, targets: int, mesh: Any) -> Cost:
    """Returns the cost of scoring `targets` tokens each in `rows` sequences of `width` tokens."""
    data, fsdp = mesh.shape["data"], mesh.shape["fsdp"]
    tokens, kept = rows * width, _kept_bytes(config)
    flops = _forward(config, tokens, width) + 2 * head_parameters(config) * rows * targets
    traffic = data * fsdp * kept + _activations(config, tokens, width, _bytes(config))
    between = data * kept * (fsdp - 1) + 2 * _tensor_sums(config, tokens, mesh)
    return Cost(flops, traffic, between)


def generation_step(
    config: DecoderConfig, rows: int, width: int, new: int, prefilled: int, mesh: Any
) -> Cost:
    """Returns the cost of prefilling `rows` prompts of `width` tokens and decoding `new` each.

    Args:
      rows: sequences that are decoded together.
      width: tokens per prompt.
      new: tokens that are decoded after each prompt.
      prefilled: prompt tokens per prefill call.
      mesh: only its axis sizes are read.
    """
    data, fsdp = mesh.shape["data"], mesh.shape["fsdp"]
    plain, size = dataclasses.replace(config, kernel="plain"), _bytes(config)
    layers, tokens = layer_parameters(config), rows * width
    calls = math.ceil(tokens / prefilled)
    prefill = Cost(
        _forward(config, tokens, width),
        calls * data * fsdp * layers * size + _activations(plain, tokens, width, size),
        calls * data * layers * size * (fsdp - 1) + 2 * _tensor_sums(config, tokens, mesh),
    )
    total, slots = layers + head_parameters(config), width + new
    matrices = 2 * total * rows
    # Every token reads the whole cache.
    attend = 4 * config.num_layers * config.num_heads * config.head_dim * slots * rows
    a_token = Cost(
        matrices + attend,
        data * fsdp * total * size + cache_bytes(config, rows, slots),
        data * total * size * (fsdp - 1) + 2 * _tensor_sums(config, rows, mesh),
    )
    return Cost(*(a + b for a, b in zip(prefill, a_token.times(new))))


def cache_bytes(config: DecoderConfig, rows: int, slots: int) -> int:
    """Returns the bytes of the keys and values of `rows` sequences of `slots` tokens."""
    c = config
    size = {"compute": _bytes(c), "bf16": 2, "int8": 1}[c.cache]
    scale = F32 if c.cache == "int8" else 0
    return 2 * c.num_layers * rows * slots * c.num_kv_heads * (c.head_dim * size + scale)


def _forward(config: DecoderConfig, tokens: int, context: int) -> float:
    matrices = 2 * (layer_parameters(config) + adapter_parameters(config)) * tokens
    return matrices + _scores(config, tokens, context)


def _scores(config: DecoderConfig, tokens: int, context: int) -> float:
    return 4 * config.num_layers * config.num_heads * config.head_dim * context * tokens


def _activations(config: DecoderConfig, tokens: int, context: int, width: int) -> float:
    """Returns the bytes that a pass over the layers moves besides the weights."""
    c = config
    widths = 4 * c.model_dim + 2 * (c.num_heads + c.num_kv_heads) * c.head_dim + 3 * c.mlp_dim
    # Kernels keep the scores on the chip.
    scores = c.num_heads * context * F32 if c.kernel == "plain" else 0
    return TOUCHES * c.num_layers * tokens * (widths * width + scores)


def _tensor_sums(config: DecoderConfig, tokens: int, mesh: Any) -> float:
    """Returns the bytes of one all-reduce over `tensor` of each layer's output."""
    outputs = config.num_layers * tokens * config.model_dim * _bytes(config)
    return 2 * (mesh.shape["tensor"] - 1) * outputs


def _trained(config: DecoderConfig) -> int:
    whole = layer_parameters(config) + head_parameters(config) * (1 if config.tied else 2)
    return adapter_parameters(config) if config.lora else whole


def _kept_bytes(config: DecoderConfig) -> int:
    """Returns the bytes of the weights in training and scoring; int8 kernels take one per entry."""
    width = _bytes(config)
    kernel = 1 if config.lora and config.lora.base == "int8" else width
    return layer_parameters(config) * kernel + head_parameters(config) * width


def _bytes(config: DecoderConfig) -> int:
    return np.dtype(config.dtype).itemsize
