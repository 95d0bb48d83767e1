"""Where the examples come from."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

from bridge_jax.config.fields import Count, OneOf, Range, Share

Domain = Literal["dosing", "deadlines", "fees", "triage"]
Steps = Annotated[int, Range(least=1, most=5)]

# Our fields that a file may have a column for (`tasks.rows`).
COLUMNS = (
    *("id", "question", "answer", "split", "domain", "choices"),
    *("rationale", "rationales", "human_rationale", "teacher_answer"),
)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the examples come from.

    Attributes:
      source: `practice` (generated here), `jsonl` (one file) or `hf` (a dataset of the hub).
      path: the JSONL file, or the hub's dataset name.
      columns: one of our `COLUMNS` -> the file's column.
      kind, choices: the kind of answer and its closed set, for `jsonl` and `hf`. `text` is free and
        scored by ROUGE-L; practice tasks, which have kinds of their own, then want their
        explanation as the answer.
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
    columns: Mapping[Annotated[str, OneOf(COLUMNS)], str] = dataclasses.field(default_factory=dict)
    kind: Literal["choice", "label", "numeric", "text"] = "numeric"
    choices: tuple[str, ...] = ()
    min_rouge: Annotated[float, Range(above=0, most=1)] = 0.5
    rationale: str = "medium"
    pool: Count = 500
    dev: Count = 50
    test: Count = 200
    labelled: bool = True
    on_bad_row: Literal["error", "skip"] = "error"
    domains: tuple[Domain, ...] = ("dosing", "deadlines", "fees")
    min_steps: Steps = 1
    max_steps: Steps = 5
    families: Count = 0
    label_share: Share = 0.4
