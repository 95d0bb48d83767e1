"""Defines the settings of the teacher, its budget, and the selection of examples."""

import dataclasses
from typing import Annotated, Literal

from bridge_jax.config.fields import (
    UNKEYED,
    Address,
    Count,
    NotNegative,
    Place,
    Positive,
    Range,
    Share,
    Size,
)

API_TEACHERS = ("openai", "gemini")
MOST_PARTS = 6  # of a selection


@dataclasses.dataclass(frozen=True)
class BudgetConfig:
    """The hard caps on what the teacher may cost.

    Attributes:
      queries: the most requests to the teacher. Unless `selection.size` is set, they also decide
        how many examples are selected: as many as they pay for after `evaluation.teacher_test` and
        `evaluation.teacher_dev`.
      usd: US dollars at most.
      ledger: the path of a ledger to share with other runs, whose answers are then free; the caps
        count only what this run pays itself. Empty: a ledger of its own, in the workdir.
    """

    queries: Count = 25
    usd: NotNegative = 1.0
    ledger: Place = ""


@dataclasses.dataclass(frozen=True)
class TeacherConfig:
    """The expensive model. An "API" below is `openai` or `gemini`.

    Attributes:
      kind: `oracle` (the program that generates the practice tasks), `replay` (recorded answers),
        `openai` (GPT, and every server that speaks its protocol) or `gemini`. Keys are read from
        the environment: OPENAI_API_KEY, GEMINI_API_KEY.
      model: the name of the model in requests and in the ledger.
      base_url: the address of a server other than the vendor's, such as http://localhost:8000/v1.
      allow_http: allow sending a key over plain HTTP to a server that is not this machine.
      backend: the SDK that is used for Gemini.
      usd_per_million_input, usd_per_million_output: the price list, in US dollars per 10^6 tokens.
      free: the API costs nothing, like a server of your own. Its prices must then be 0; otherwise
        they must be above 0.
      batch: use the vendor's batch mode: half the price, replies within a day.
      batch_share: the price of a request in batch mode, as a share of the price list.
      batch_poll_seconds: seconds between two checks of the state of a batch job.
      max_output_tokens: the longest reply, in tokens; money for it is reserved before a request is
        sent.
      temperature: sampling temperature of an API, 0 to 2; -1 is the vendor's default, the only one
        that reasoning models accept.
      concurrency: the most requests in flight at once.
      requests_per_minute, tokens_per_minute: rate limits of an API; 0 is no limit.
      timeout: seconds without receiving a byte of an API's reply after which the call counts as
        lost.
      attempts: the most calls for one request, if they fail.
      structured: ask an API for JSON. If false, or if a reply is not JSON, the answer is read from
        the text.
      show_gold: show an API the gold answer, and ask only for the reasoning.
      reasoning: whether to ask an API for a few `short` sentences, or for `long` reasoning in full,
        which can be shortened to several budgets (`thinking`).
      samples: replies of an API per example.
      retries: the most further replies per example while none is good, as far as the budget allows.
      keep_wrong: keep teacher rationales whose answer differs from the gold one.
      min_agreement: the smallest share of the samples that must give the answer of the kept
        rationale.
      min_rationale_tokens, max_rationale_tokens: the shortest and longest rationale to keep, in the
        student's tokens; a maximum of 0 is no limit.
      replay_from: a recorded run's ledger, or a JSONL file of answers (`teachers.recorded`), that
        replies instead of `kind`; no key is needed and nothing is paid. With a ledger, the rest of
        the config must be that of the recorded run.
    """

    kind: Literal["oracle", "replay", "openai", "gemini"] = "oracle"
    model: str = "oracle"
    base_url: Annotated[Address, UNKEYED] = ""
    allow_http: Annotated[bool, UNKEYED] = False
    backend: Literal["google-genai", "google-generativeai"] = "google-genai"
    usd_per_million_input: Annotated[NotNegative, UNKEYED] = 1.25
    usd_per_million_output: Annotated[NotNegative, UNKEYED] = 10.0
    free: Annotated[bool, UNKEYED] = False
    batch: Annotated[bool, UNKEYED] = False
    batch_share: Annotated[Share, UNKEYED] = 0.5
    batch_poll_seconds: Annotated[Positive, UNKEYED] = 30.0
    max_output_tokens: Size = 512
    temperature: Annotated[float, Range(least=0, most=2, also=-1)] = -1.0
    concurrency: Annotated[Size, UNKEYED] = 8
    requests_per_minute: Annotated[Count, UNKEYED] = 0
    tokens_per_minute: Annotated[Count, UNKEYED] = 0
    timeout: Annotated[Positive, UNKEYED] = 120.0
    attempts: Size = 6
    structured: bool = True
    show_gold: bool = False
    reasoning: Literal["short", "long"] = "short"
    samples: Size = 1
    retries: Count = 0
    keep_wrong: bool = False
    min_agreement: Share = 0.0
    min_rationale_tokens: Count = 0
    max_rationale_tokens: Count = 0
    replay_from: Place = ""


@dataclasses.dataclass(frozen=True)
class SelectionConfig:
    """The selection of the examples that the teacher is asked about.

    Attributes:
      size: number of examples; 0 is as many as `budget.queries` pays for at `teacher.samples`
        requests each. A smaller number leaves room for `teacher.retries` and for calls that are
        lost.
      strategy: `random`, for which the pool is not scored; `difficulty`, the hardest examples;
        `diversity`, k-center greedy (1708.00489); `coverage`, from every cluster hard examples
        unlike those chosen; `typicality`, from every cluster examples in dense regions unlike those
        chosen (TypiClust, 2202.02794); `badge`, k-means++ on gradient embeddings (1906.03671);
        `herding` (Welling 2009). No strategy has been shown to be better than `random`
        (docs/results.md), so `random` is our default.
      difficulty: `nll` of the gold answer or, for pools without labels, `entropy` of the
        assistant's predictions or their `margin`, 1 - (p1 - p2) of the two likeliest tokens; each
        is a mean over the answer's own tokens.
      within_labels: compare the difficulty of an example only with that of examples of the same
        gold label (`rank_within`), if the answers are labels.
      clusters: number of clusters of `coverage` and `typicality`; 0 is one for every 100 examples
        of the pool, at most 1,000. It does not depend on the budget, so a smaller selection is the
        beginning of a larger one.
      difficulty_weight: w in w * rank + (1 - w) * distance to the chosen examples, by which the
        next example of a cluster is chosen. The rank is in difficulty (`coverage`) or in density
        (`typicality`); rank and distance are scaled to 0..1.
      noise_fraction: share of the pool, the examples of highest difficulty, that is set aside as
        label noise; none with `random`.
      batch_tokens: the most tokens in a scoring batch, padding included.
      parts: number of parts in which the questions are chosen, 6 at most. The strategy chooses the
        first part. Before each later part the assistant is trained further, on all the answers so
        far, and drafts rationales for other questions. The questions asked next are those whose
        drafts have the most token n-grams that no kept answer has (`selection.novelty`); if the
        pool has labels, those with wrong drafts come first. So a selection in parts is not the
        beginning of a larger one, and whatever changes the drafts, such as `assistant_training`,
        changes what is asked and paid for.
      drafts: number of questions, drawn at random, that are drafted for each question that is asked
        next.
    """

    size: Count = 0
    strategy: Literal[
        "random", "difficulty", "diversity", "coverage", "typicality", "badge", "herding"
    ] = "random"
    difficulty: Literal["nll", "entropy", "margin"] = "nll"
    within_labels: bool = True
    clusters: Count = 0
    difficulty_weight: Share = 0.5
    noise_fraction: Annotated[float, Range(least=0, below=1)] = 0.01
    batch_tokens: Annotated[Size, UNKEYED] = 4096
    # Unkeyed: the parameters of the stages hold the resulting counts, which are keyed.
    parts: Annotated[int, Range(least=1, most=MOST_PARTS), UNKEYED] = 1
    drafts: Annotated[Size, UNKEYED] = 20
