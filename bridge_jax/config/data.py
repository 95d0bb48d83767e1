"""Defines the data settings: where the examples come from and how they are read."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

from bridge_jax.config.fields import Count, OneOf, Place, Range

Domain = Literal["triage", "fees", "samples", "filings", "invoices"]
Steps = Annotated[int, Range(least=1, most=12)]
Part = Annotated[float, Range(least=0, below=1)]

# Fields of an example that a file may have a column for (`data.rows`).
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
      source: `practice` (tasks generated here); `jsonl`, `csv` or `parquet` (one file; a CSV file
        has a header, and commas, semicolons, tabs or bars as delimiters); or `hf` (a dataset of the
        hub, or a local file or folder that the datasets library reads).
      path: the file, or the hub's dataset name.
      test_path: another file or dataset, with the same source and columns, whose rows are all test
        rows. Rows of `path` then need no split, and those marked as test are left out.
      config, revision: for a dataset of the hub in `path`: which of its configs, and which commit,
        tag or branch; empty is the default.
      columns: our field name -> the file's column name. The file needs a `question` and an `answer`
        (but see `labelled`); missing ids are made from the content, and if no row has a split, the
        rows are divided here (`test_share`, `dev_share`). Options in several columns are given as
        `choices:COLUMN|COLUMN|COLUMN`.
      splits: the file's split name -> `train`, `dev` or `test`; rows of other splits are left out.
        Empty: every split must have a common name (`validation`, `val`, `training`, ...; in any
        case).
      test_share, dev_share: shares of a file's rows that become the test and the dev split if no
        row has a split, `splits` is empty and `columns` maps no `split`. The rows are drawn by the
        run's seed, label by label; questions that nearly repeat each other stay in one split. With
        a `test_path` only dev is drawn. Our defaults.
      instruction: the task in words, for teacher, assistant and student alike; empty if every
        question states it.
      label_descriptions: label -> its meaning, for some or all labels. On the command line
        LABEL:DESCRIPTION,LABEL:DESCRIPTION, so a description with a comma needs a Python config or
        a task file.
      task_file: a TOML file with the instruction and the label descriptions, for longer ones
        (`bridge_jax.data.example`).
      kind, choices: the kind of answer and the closed set of answers, for files and `hf`. `math` is
        a TeX expression, compared by value (`data.mathematics`). `text` is free text, scored by
        ROUGE-L. Practice tasks have kinds of their own; with `text` their explanation becomes the
        answer.
      answer_is: how an answer names its option: by its `text`, by a `letter` (or the row's own
        label), by an `index` from 0 or by a `number` from 1. `auto` accepts an answer that can be
        read in only one way; whole numbers that are not strings are indices into the options that
        the row lists.
      min_rouge: ROUGE-L from which a free text counts as right. Our default.
      decimal: how numbers are written, for files and `hf`. With `.`, spaces may group digits
        (`1 234.5`); with `,`, the comma is the decimal mark (`1.234,5`, `1 234,5`). Empty, the
        default: `1,234.5` is read, and notations of other countries are not numbers.
      rationale: which variant of its recorded rationales a recorded teacher replays.
      pool, dev, test: number of examples in each split; a larger split of a file or of `hf` is
        sampled by the run's seed. 0 is all of them; for practice tasks it is 500, 50 and 200.
      labelled: whether gold answers of the pool are known beyond those of the warm-up. If false, no
        gold answer is used to select, filter or train after it, and rows of pool and dev need none;
        those that exist are still counted in the report. Test questions without an answer can be
        put to the teacher (`evaluation.teacher_test`).
      on_bad_row: whether malformed rows are an error, or are skipped and counted; `bad_rows.jsonl`
        in the workdir lists them.
      domains, min_steps, max_steps, families: for practice tasks only: the domains to mix, the
        steps of reasoning, and the number of item kinds per domain (0 is all).
      different_values: for practice tasks only: how many different values the items of check-digit
        questions have.
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
