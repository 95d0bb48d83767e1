"""FLOPs, memory traffic and traffic between chips of a step, by arithmetic.

XLA's own count of a compiled step takes the body of a scan once, so it is of no use here. Matrix
products and attention are counted; norms, rotations and softmax are not. All figures are sums over
the chips. F = forward pass over the layers.

    training      F + head, its double backward (once for an adapter), F again where activations are
                  recomputed, and head again where a chip has more than `head.KEPT_LOGITS`
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
# A layer's activations that go through memory in a pass, in multiples of its widths: each is
# written once and read about twice.
TOUCHES = 3


class Cost(NamedTuple):
    """Of one step: floating point operations, bytes to and from memory, bytes between chips."""

    flops: float
    bytes: float
    collective_bytes: float

    def times(self, steps: int) -> "Cost":
        """Returns the cost of `steps` steps."""
        return Cost(*(steps * part for part in self))


def layer_parameters(config: DecoderConfig) -> int:
    """Returns the entries of the matrices of all layers."""
    c = config
    attention = 2 * c.model_dim * c.head_dim * (c.num_heads + c.num_kv_heads)
    return c.num_layers * (attention + 3 * c.model_dim * c.mlp_dim)


def head_parameters(config: DecoderConfig) -> int:
    """Returns the entries of the output head."""
    return config.vocab_size * config.model_dim


def adapter_parameters(config: DecoderConfig) -> int:
    """Returns the entries of the adapter."""
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
    if logits // (data * fsdp * mesh.shape["tensor"]) > KEPT_LOGITS:  # of a chip
        flops += head  # Chunk by chunk, it computes its logits twice.

    width = _bytes(config)
    trained, kept = _trained(config), _kept_bytes(config)
    passes = 2 + again
    micro = train.accumulate
    weights = data * fsdp * kept * passes * micro  # every replica reads them all
    # Gradient read, parameter and two moments read and written.
    update = data * trained * F32 * 7
    traffic = (
        weights + update + _activations(config, rows * steps, steps, width) * (passes + backward)
    )

    gathered = 2 * micro * kept + micro * trained * F32  # gathers, and one scatter
    between = data * gathered * (fsdp - 1)
    between += 2 * trained * F32 * (data - 1)
    sums = 2 * (1 + again + 1)  # after attention and after the MLP, in each pass
    between += _tensor_sums(config, rows * steps, mesh) * sums
    return Cost(flops, traffic, between)


def model_flops(config: DecoderConfig, rows: int, steps: int, targets: int) -> float:
    """Returns the FLOPs that the mathematics of a training step needs, nothing computed twice.

    Model FLOPs utilisation (2204.02311, appendix B) is their share of what the chips can do.
    """
    backward = 1 if config.lora else 2
    head = 2 * head_parameters(config) * rows * targets
    # `_forward` has the adapter; its own gradients are what a frozen matrix does without.
    gradients = 2 * adapter_parameters(config) * rows * steps
    return (_forward(config, rows * steps, steps) + head) * (1 + backward) + gradients


def scoring_step(config: DecoderConfig, rows: int, width: int, targets: int, mesh: Any) -> Cost:
    """Returns the cost of a batch of `rows` sequences of `width` tokens."""
    data, fsdp = mesh.shape["data"], mesh.shape["fsdp"]
    tokens, kept = rows * width, _kept_bytes(config)
    flops = _forward(config, tokens, width) + 2 * head_parameters(config) * rows * targets
    traffic = data * fsdp * kept + _activations(config, tokens, width, _bytes(config))
    between = data * kept * (fsdp - 1) + 2 * _tensor_sums(config, tokens, mesh)
    return Cost(flops, traffic, between)


def generation_step(
    config: DecoderConfig, rows: int, width: int, new: int, prefilled: int, mesh: Any
) -> Cost:
    """Returns the cost of `rows` prompts of `width` tokens and `new` tokens after each.

    Args:
      rows: sequences that are decoded together.
      width: tokens of a prompt.
      new: tokens that are decoded after it.
      prefilled: tokens of prompts that are read together.
      mesh: sizes of its axes.
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
    # The cache is read whole at every token.
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
    """Returns the bytes of one sum over `tensor` of every layer's output."""
    outputs = config.num_layers * tokens * config.model_dim * _bytes(config)
    return 2 * (mesh.shape["tensor"] - 1) * outputs


def _trained(config: DecoderConfig) -> int:
    whole = layer_parameters(config) + head_parameters(config) * (1 if config.tied else 2)
    return adapter_parameters(config) if config.lora else whole


def _kept_bytes(config: DecoderConfig) -> int:
    """Returns the bytes of the weights where a model is trained or scores: int8 kernels are one."""
    width = _bytes(config)
    kernel = 1 if config.lora and config.lora.base == "int8" else width
    return layer_parameters(config) * kernel + head_parameters(config) * width


def _bytes(config: DecoderConfig) -> int:
    return np.dtype(config.dtype).itemsize
