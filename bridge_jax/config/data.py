"""Where the examples come from."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

Domain = Literal["dosing", "deadlines", "fees", "triage"]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the examples come from.

    Attributes:
      source: `practice` (generated here), `jsonl` (one file) or `hf` (a dataset of the hub).
      path: the JSONL file, or the hub's dataset name.
      columns: our field -> the file's column (`id`, `question`, `answer`, `domain`, `split`).
      kind, choices: the kind of answer and its closed set, for `jsonl` and `hf`. `text` is free and
        scored by ROUGE-L; practice tasks, which have kinds of their own, then want their
        explanation as the answer.
      min_rouge: ROUGE-L from which a free text counts as right. Our default.
      decimal: how numbers are written, for `jsonl` and `hf`: with `.` spaces may group digits
        (`1 234.5`); with `,` the comma is the decimal mark (`1.234,5`, `1 234,5`); by default
        `1,234.5` is read, and what other countries write is no number.
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
    decimal: Literal["", ".", ","] = ""
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
