"""The config of one run."""

import dataclasses
from typing import Literal

from bridge_jax.config.data import DataConfig
from bridge_jax.config.fields import Count, Size
from bridge_jax.config.models import LoraConfig, MeshConfig, ModelConfig
from bridge_jax.config.teacher import BudgetConfig, SelectionConfig, TeacherConfig
from bridge_jax.config.training import InstructConfig, LogitsConfig, TrainConfig, WarmupConfig
from bridge_jax.config.writing import EvaluationConfig, GenerationConfig, RationalesConfig


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One run.

    Attributes:
      name: shown in the report.
      method: `bridge`, or a baseline: the student learns from the teacher's answers alone
        (`direct`), from what the assistant writes after its warm-up, without a teacher (`self`), or
        from the gold answers of the whole pool, without either (`labels`).
      form: how the student learns from a rationale: a `chain` of rationale and answer, or as in
        Distilling Step-by-Step (2305.02301) in `two_pass`es: asked to reason it writes the
        rationale, asked for the answer the answer, which is how it is tested then.
      seed: of data, selection, batch order and sampling.
      compare_direct: train the direct student too, for the report (with method `bridge`).
      max_prompt_tokens: the context left for prompts.
      on_long_prompt: a longer prompt is an error, or loses the beginning of its question.
      tensorboard: write the curves of training for TensorBoard too (`--logdir` is the workdir).
    """

    name: str = "run"
    method: str = "bridge"
    form: Literal["chain", "two_pass"] = "chain"
    seed: Count = 0
    compare_direct: bool = False
    max_prompt_tokens: Size = 160
    on_long_prompt: Literal["error", "truncate"] = "error"
    tensorboard: bool = False
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
    logits: LogitsConfig = LogitsConfig()
    student_training: TrainConfig = TrainConfig()
    direct_training: TrainConfig = TrainConfig()
    generation: GenerationConfig = GenerationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    mesh: MeshConfig = MeshConfig()
