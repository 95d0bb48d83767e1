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
    method: Literal["bridge", "direct", "self", "labels"] = "bridge"
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

    @property
    def asks_teacher(self) -> bool:
        """Whether the method has a teacher; without one the budget stays as it is."""
        return self.method in ("bridge", "direct")

    @property
    def has_rationales(self) -> bool:
        """Whether the assistant writes rationales for the pool."""
        return self.method in ("bridge", "self")

    @property
    def needs_assistant(self) -> bool:
        """Whether there is an assistant; direct distillation may have one to select with."""
        blind = self.method == "direct" and self.selection.strategy == "random"
        return not blind and self.method != "labels"

    @property
    def student_mode(self) -> Literal["reason", "answer"]:
        """Whether the student is asked to reason, or for the answer alone, as it was trained."""
        return "answer" if self.method == "labels" or self.form == "two_pass" else "reason"

    @property
    def shows_gold(self) -> bool:
        """Whether the assistant is shown the gold answers that its rationales are to end in."""
        return self.method == "bridge" and self.data.labelled and self.rationales.show_gold

    @property
    def writing_mode(self) -> Literal["reason", "explain"]:
        """How the assistant is asked for the rationales of the pool."""
        return "explain" if self.shows_gold else "reason"

    @property
    def assistant_modes(self) -> tuple[Literal["reason", "explain"], ...]:
        """How the assistant is asked for what it learns: as it is when tested, and when writing."""
        return ("reason", "explain") if self.shows_gold else ("reason",)

    @property
    def selected(self) -> int:
        """How many examples the teacher is asked about."""
        if not self.asks_teacher:
            return 0
        return self.selection.size or self.budget.queries // self.teacher.samples
