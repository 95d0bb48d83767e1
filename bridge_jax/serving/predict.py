"""Answers the questions of a file with a model, in parts, so that a killed run can resume.

Questions are rendered and asked in parts of `PART` rows, so memory does not grow with the file. A
finished part is a file in `OUT.parts`. The engine allocates new slots for each part, so the answers
do not depend on which other parts this process has written, and a resumed file is the same, byte
for byte.

Answers equal those of the run's own test on the same questions if the weights are the same. The
weights of a workdir are. An f32 export has the same weights as a model that was trained without an
adapter. A bf16 export has the same weights as a model that was tested with bf16 matrix products
(`matmul=bfloat16`, or on a TPU or GPU), which round the weights in the same way. Otherwise rounding
(to bf16, or of a merged adapter) can change an answer now and then.
"""

import contextlib
import csv
import dataclasses
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bridge_jax import atomic, display
from bridge_jax.config.fields import check
from bridge_jax.config.io import to_json
from bridge_jax.errors import UserError
from bridge_jax.evaluation import confidence
from bridge_jax.pipeline import files
from bridge_jax.pipeline.content import Hashes
from bridge_jax.pipeline.leases import held
from bridge_jax.progress import track
from bridge_jax.serving.answering import Answering, Questions
from bridge_jax.serving.models import FILE, AskingConfig, FoundModel, QuestionsConfig

PART = 512  # Rows per part; each waits once for its longest answers. A kill loses no answer.
FORMAT = 1
SUFFIXES = (".jsonl", ".csv")  # Of the output file.
_SETTINGS = "settings.json"


@dataclasses.dataclass
class Counts:
    """Numbers of result rows by outcome.

    Attributes:
      rows: all rows.
      errors: rows with an error.
      first_error: place and text of the first error; empty if there is none.
      unparsed: rows that were asked, but whose answer could not be parsed.
      compared: rows that were compared with a gold answer.
      correct: rows whose answer is correct.
      trusted: rows whose answer is marked as trusted.
      trusted_compared, trusted_correct: likewise, among the trusted rows.
    """

    rows: int = 0
    errors: int = 0
    first_error: str = ""
    unparsed: int = 0
    compared: int = 0
    correct: int = 0
    trusted: int = 0
    trusted_compared: int = 0
    trusted_correct: int = 0

    def add(self, row: dict[str, Any]) -> None:
        """Counts a row of the result."""
        self.rows += 1
        if row["error"]:
            self.errors += 1
            self.first_error = self.first_error or f"{row['row']}: {row['error']}"
        elif row["answer"] is None:
            self.unparsed += 1
        if row.get("correct") is not None:
            self.compared += 1
            self.correct += row["correct"]
        if row.get("trusted"):
            self.trusted += 1
            if row.get("correct") is not None:
                self.trusted_compared += 1
                self.trusted_correct += row["correct"]


def predict(
    found: FoundModel, asking: AskingConfig, out: Path, gold: bool = False, budget: int = 0
) -> tuple[Counts, list[str]]:
    """Writes the model's answer to each question of a file.

    A result row has `id` (null if the question has none); `row` (its place in the file); `answer`
    (canonical; null if none can be parsed); `rationale` (without an answer, the whole reply);
    `confidence`; `trusted`, if `asking.least_confidence` is above 0: whether there is an answer of
    at least this confidence; `correct`, with `gold` (null if the gold answer cannot be read); and
    `error`: null, or why the row could not be asked or compared.

    `confidence` is exp of the mean log-probability of the answer's own tokens, given the question
    and the generated rationale: 0 to 1, null without an answer. It is not the probability that the
    answer is right: it is not calibrated, a wrong rationale can lead to a confident answer, and
    answers of different lengths are hardly comparable.

    Args:
      found: the model.
      asking: settings for asking it, with the question file.
      out: the output file, .jsonl or .csv; parts are kept beside it until it is complete.
      gold: whether to compare with gold answers.
      budget: number of thinking tokens, which the prompt states and which cuts the thinking off; 0
        for no budget.

    Returns:
      The counts, and notes for the user.

    Raises:
      UserError: settings or files cannot be used, `out` exists, or its parts belong to other
        predictions.
    """
    check(asking)
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"--out={out}: the name must end in {' or '.join(SUFFIXES)}")
    if not asking.data.kind:
        raise UserError(
            f"{found.where}: has no {FILE} that says what kind of answers it gives; pass "
            "--data.kind=label with --data.choices=A,B, or --data.kind=choice, numeric or text; "
            "and the task, if the questions do not state it, as --data.instruction"
        )
    questions = Questions(asking.data, gold)
    notes: list[str] = []
    try:
        with _parts(out) as folder:
            hashes = Hashes(folder / "hashes.json")
            settings = _settings(found, asking, gold, budget, hashes)
            _claim(folder, settings)
            _write_parts(folder, found, asking, questions, gold, budget, notes)
            counts = _join(folder, out, questions.total, asking.least_confidence)
            shutil.rmtree(folder)
    except OSError as error:
        raise UserError(
            f"--out={out}: {error.strerror or error}; free some space or fix the disk, then run "
            "the same command again to resume"
        ) from error
    return counts, notes


@contextlib.contextmanager
def _parts(out: Path) -> Iterator[Path]:
    """Yields the folder of the parts of `out`, locked by this process."""
    folder = out.with_name(f"{out.name}.parts")
    if out.exists() and not (folder / _SETTINGS).is_file():
        raise UserError(f"--out={out}: already exists; choose a new file, or remove it")
    with held(folder / ".lock") as ours:
        if not ours:
            raise UserError(f"--out={out}: another process is writing it; wait for it to finish")
        yield folder


def _settings(
    found: FoundModel, asking: AskingConfig, gold: bool, budget: int, hashes: Hashes
) -> dict[str, Any]:
    """Returns everything that the answers depend on, as JSON values, with hashes for files."""
    told = to_json(dataclasses.replace(asking, data=_without_files(asking)))
    del told["least_confidence"]  # Answers are marked only when the parts are joined.
    settings: dict[str, Any] = {
        "format": FORMAT,
        "--model": found.identity(hashes),
        "--gold": gold,
        "--budget": budget,
    }
    for name, value in told.items():
        if isinstance(value, dict):
            settings |= {f"{name}.{inner}": each for inner, each in value.items()}
        else:
            settings[name] = value
    settings["data.path"] = hashes.of_file(Path(asking.data.path))
    hashes.save()
    return settings


def _without_files(asking: AskingConfig) -> QuestionsConfig:
    told = asking.data.as_data()
    return dataclasses.replace(
        asking.data,
        path="",
        task_file="",
        instruction=told.instruction,
        label_descriptions=told.label_descriptions,
    )


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Claims the folder for these settings; raises a UserError if it has parts of others."""
    before = files.read_json(folder / _SETTINGS)
    if before == settings:
        return
    if before is not None and any(folder.glob("[0-9]*.jsonl")):
        names = [n for n in settings | before if settings.get(n) != before.get(n)]
        raise UserError(
            f"{folder}: contains results from a run with different settings ({', '.join(names)}); "
            "rerun with those settings, choose another --out, or remove the folder"
        )
    for stray in folder.glob("[0-9]*.jsonl"):
        stray.unlink()
    files.write_json(folder / _SETTINGS, settings)


def _part(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.jsonl"


def _begun(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.begun.jsonl"


def _write_parts(
    folder: Path,
    found: FoundModel,
    asking: AskingConfig,
    questions: Questions,
    gold: bool,
    budget: int,
    notes: list[str],
) -> None:
    """Writes the missing parts."""
    count = -(-questions.total // PART)
    missing = [number for number in range(count) if not _part(folder, number).is_file()]
    if not missing:
        return
    answering = Answering(found, asking, gold, budget)
    notes += answering.notes
    left = sum(min(PART, questions.total - number * PART) for number in missing)
    left -= sum(len(files.read_appended(_begun(folder, number))) for number in missing)
    rows = iter(questions)
    with track("answers", left, "questions") as advance:
        for number in range(count):
            part = list(itertools.islice(rows, PART))
            if _part(folder, number).is_file():
                continue
            begun = _begun(folder, number)
            files.write_rows(_part(folder, number), answering.answer(part, begun, advance))
            begun.unlink(missing_ok=True)


def _join(folder: Path, out: Path, total: int, least: float) -> Counts:
    """Joins the parts into one file, marks trusted answers, and counts the rows."""
    counts = Counts()
    with atomic.written(out, folder / "whole", sync=True) as file:
        table = None
        for number in range(-(-total // PART)):
            for row in files.read_rows(
                _part(folder, number), "remove the file, then run the same command again"
            ):
                row = _marked(row, least) if least else row
                counts.add(row)
                if out.suffix.lower() == ".jsonl":
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    continue
                if table is None:
                    table = csv.DictWriter(file, list(row), lineterminator="\n")
                    table.writeheader()
                table.writerow({name: _cell(value) for name, value in row.items()})
    return counts


def _marked(row: dict[str, Any], least: float) -> dict[str, Any]:
    """Returns the row with `trusted` inserted after `confidence`."""
    mark = {"trusted": confidence.is_trusted(row, least)}
    names = list(row)
    at = names.index("confidence") + 1
    return {name: row[name] for name in names[:at]} | mark | {n: row[n] for n in names[at:]}


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else display.csv_value(value)
