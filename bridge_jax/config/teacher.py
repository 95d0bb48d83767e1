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
    """The hard cap on what the teacher may cost.

    Attributes:
      queries: teacher requests at most; what `evaluation.teacher_test` and `teacher_dev` leave of
        them is also the size of the selection, unless `selection.size` says otherwise.
      usd: US dollars at most.
      ledger: a ledger to share with other runs, whose answers are free then; the caps count what
        this run pays itself. Empty: one of its own, in the workdir.
    """

    queries: Count = 25
    usd: NotNegative = 1.0
    ledger: Place = ""


@dataclasses.dataclass(frozen=True)
class TeacherConfig:
    """The expensive model. An "API" below is `openai` or `gemini`.

    Attributes:
      kind: `oracle` (the program of the practice tasks), `replay` (recorded answers), `openai` (GPT
        and every server that speaks its protocol) or `gemini`. Keys are read from the environment:
        OPENAI_API_KEY, GEMINI_API_KEY.
      model: the name in requests and in the ledger.
      base_url: of another server than the vendor's, such as http://localhost:8000/v1.
      allow_http: send a key over plain http to a server that is not this machine.
      backend: the SDK that asks Gemini.
      usd_per_million_input, usd_per_million_output: the price list, US dollars per 10^6 tokens.
      free: an API costs nothing, as a server of one's own; its prices are 0 then, and else above 0.
      batch: ask an API through its vendor's batch mode: half the price, within a day.
      batch_share: what a request costs there, as a share of the price list.
      batch_poll_seconds: seconds between two requests for the state of a batch job.
      max_output_tokens: the longest reply, for which a request reserves money before it is sent.
      temperature: of an API, 0 to 2; -1 is the vendor's default, all that reasoning models take.
      concurrency: requests in flight at once.
      requests_per_minute, tokens_per_minute: of an API, at most; 0 is no limit.
      timeout: seconds without a byte of an API's answer after which it is lost.
      attempts: calls per request at most, where they fail.
      structured: ask an API for JSON. Without it, or where the JSON is none, the text is read.
      show_gold: show an API the gold answer, and ask for the reasoning alone.
      reasoning: ask an API for a few `short` sentences, or for `long` reasoning in full, which can
        be shortened to several budgets (`thinking`).
      samples: replies of an API per example.
      retries: further ones, where none is good, as far as the budget allows.
      keep_wrong: keep teacher rationales whose answer differs from gold.
      min_agreement: share of the samples at least that gives the answer of the kept rationale.
      min_rationale_tokens, max_rationale_tokens: lengths kept, in the student's tokens; a maximum
        of 0 is none.
      replay_from: a recorded run's ledger, or a JSONL file of answers (`teachers.recorded`), that
        answers in place of `kind`; no key is needed and nothing is paid. The rest of the config
        stays that of the recorded run.
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
      size: how many; 0 is what `budget.queries` pays for at `teacher.samples` requests each. Fewer
        leave room for `teacher.retries` and for calls that are lost.
      strategy: `random`; `difficulty`, the hardest; `diversity`, k-center greedy (1708.00489);
        `coverage`, the hard and unlike of every cluster; `typicality`, the dense and unlike of
        every cluster (TypiClust, 2202.02794); `badge`, k-means++ on gradient embeddings
        (1906.03671); `herding` (Welling 2009).
      difficulty: `nll` of the gold answer, or, for pools without one, `entropy` of the predictions
        over it or their `margin`, 1 - (p1 - p2) of the two likeliest tokens; each a mean over the
        answer's own tokens.
      within_labels: compare the difficulty of an example only with those of the same gold label
        (`rank_within`; where the answers are labels).
      clusters: of `coverage` and `typicality`; 0 is one for every 100 examples of the pool, 1,000
        at most. It does not depend on the budget, so a smaller selection is the beginning of a
        larger one.
      difficulty_weight: w in w * rank + (1 - w) * distance to the chosen, by which a cluster's
        next one is found: its rank in difficulty (`coverage`) or in density (`typicality`); both
        from 0 to 1.
      noise_fraction: share of the pool with the highest difficulty set aside as label noise.
      batch_tokens: tokens a scoring batch, padding included.
      parts: number of parts in which the questions are chosen, 6 at most. The strategy chooses the
        first part. Before each later one the assistant is trained further, on all the answers so
        far, and drafts rationales for other questions. Next are asked those whose drafts have the
        most n-grams of tokens that no kept answer has (`selection.novelty`); where the pool has
        labels, those with wrong drafts first. So a selection in parts is not the beginning of a
        larger one, and what changes the drafts, such as `assistant_training`, changes what is asked
        and paid.
      drafts: questions that are drafted for each one that is asked next, drawn at random.
    """

    size: Count = 0
    strategy: Literal[
        "random", "difficulty", "diversity", "coverage", "typicality", "badge", "herding"
    ] = "diversity"
    difficulty: Literal["nll", "entropy", "margin"] = "nll"
    within_labels: bool = True
    clusters: Count = 0
    difficulty_weight: Share = 0.5
    noise_fraction: Annotated[float, Range(least=0, below=1)] = 0.01
    batch_tokens: Annotated[Size, UNKEYED] = 4096
    # Unkeyed: the counts in the parameters of the stages are keyed.
    parts: Annotated[int, Range(least=1, most=MOST_PARTS), UNKEYED] = 1
    drafts: Annotated[Size, UNKEYED] = 20
