"""Defines the settings of the data: the source of the examples."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

from bridge_jax.config.fields import Count, OneOf, Place, Range

Domain = Literal["triage", "fees", "samples", "filings", "invoices"]
Steps = Annotated[int, Range(least=1, most=12)]
Part = Annotated[float, Range(least=0, below=1)]

# Our fields that a file may have a column for (`data.rows`).
COLUMNS = (
    "id",
    "question",
    "answer",
    "split",
    "domain",
    "choices",
    "rationale",
    "rationales",
    "human_rationale",
    "teacher_answer",
)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The source of the examples, and how it is read.

    Attributes:
      source: `practice` (generated here); `jsonl`, `csv` or `parquet` (one file; CSV has a header,
        and commas, semicolons, tabs or bars between the cells); or `hf` (a dataset of the hub, or a
        local file or folder that the datasets library reads).
      path: the file, or the hub's dataset name.
      test_path: another one, of the same source and columns, whose rows are all the test; those of
        `path` need no split then, and its own test is left out.
      config, revision: of `path` on the hub: which of its configs, and which commit, tag or
        branch; empty is the default.
      columns: one of our `COLUMNS` -> the file's column. The file needs a `question` and an
        `answer` (but see `labelled`); without ids they are made from the content, and without any
        `split` the rows are divided here. Options in columns of their own are
        `choices:COLUMN|COLUMN|COLUMN`.
      splits: the file's name of a split -> `train`, `dev` or `test`; others are left out. Empty:
        all must have common names (`validation`, `val`, `training`, ...; in any case).
      test_share, dev_share: the shares of the rows of a file that become the test and the dev split
        where no row has a split and neither `columns` nor `splits` names one. The run's seed draws
        them, label by label; questions that nearly repeat each other stay together. With a
        `test_path` only dev is drawn. Our defaults.
      instruction: the task, in words for teacher, assistant and student alike; empty where the
        questions state it themselves.
      label_descriptions: label -> its meaning, of some or all labels. On the command line
        LABEL:DESCRIPTION,LABEL:DESCRIPTION, so a comma needs a Python config or a task file.
      task_file: a TOML file with both, for longer ones (`bridge_jax.data.example`).
      kind, choices: the kind of answer and its closed set, for files and `hf`. `math` is an
        expression in TeX, compared by its value (`data.mathematics`). `text` is free and scored by
        ROUGE-L; practice tasks, which have kinds of their own, then want their
        explanation as the answer.
      answer_is: how an answer names its option: by its text, by a letter (or the row's own label),
        by an index from 0 or a number from 1. `auto` takes an answer that can be read in one way
        only; whole numbers that are no strings are indices of the options that a row lists.
      min_rouge: ROUGE-L from which a free text counts as right. Our default.
      decimal: how numbers are written, for files and `hf`: with `.` spaces may group digits
        (`1 234.5`); with `,` the comma is the decimal mark (`1.234,5`, `1 234,5`); by default
        `1,234.5` is read, and the forms of other countries are not numbers.
      rationale: which recorded variant the teacher replays.
      pool, dev, test: how many examples of each split; a larger one of a file or of `hf` is sampled
        by the run's seed. 0 is all of them; of practice tasks 500, 50 and 200.
      labelled: whether gold answers of the pool are known beyond the warm-up's; if not, nothing is
        selected, filtered or trained by them, and rows of pool and dev need none. Those that are
        there are still counted in the report. Of the test, questions without an answer can be put
        to the teacher (`evaluation.teacher_test`).
      on_bad_row: malformed rows are an error, or are skipped and counted; `bad_rows.jsonl` in the
        workdir lists them.
      domains, min_steps, max_steps, families: practice only: the mix, the steps of reasoning, and
        the kinds of item per domain (0 is all).
      different_values: practice only: how many different values the items of check digits have.
    """

    source: Literal["practice", "jsonl", "csv", "parquet", "hf"] = "practice"
    path: Place = ""
    test_path: Place = ""
    config: str = ""
    revision: str = ""
    columns: Mapping[Annotated[str, OneOf(COLUMNS)], str] = dataclasses.field(default_factory=dict)
    splits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    test_share: Part = 0.2
    dev_share: Part = 0.1
    instruction: str = ""
    label_descriptions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    task_file: Place = ""
    kind: Literal["choice", "label", "numeric", "math", "text"] = "numeric"
    choices: tuple[str, ...] = ()
    answer_is: Literal["auto", "text", "letter", "index", "number"] = "auto"
    min_rouge: Annotated[float, Range(above=0, most=1)] = 0.5
    decimal: Literal["", ".", ","] = ""
    rationale: str = "medium"
    pool: Count = 0
    dev: Count = 0
    test: Count = 0
    labelled: bool = True
    on_bad_row: Literal["error", "skip"] = "error"
    domains: tuple[Domain, ...] = ("samples", "filings", "invoices")
    min_steps: Steps = 1
    max_steps: Steps = 4
    families: Count = 0
    different_values: Annotated[int, Range(least=2, most=9)] = 9
