"""Asks the teacher about the selected examples; every request goes through the ledger.

Damaged annotations are repaired from the replies on the ledger, so that the teacher is not asked,
or paid, again.
"""

import collections
import dataclasses
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from bridge_jax.config import API_TEACHERS, RunConfig
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.ledger import accounts
from bridge_jax.ledger.accounts import Account
from bridge_jax.ledger.ledger import Stored
from bridge_jax.ledger.requests import Failure, TeacherReply, TeacherRequest
from bridge_jax.methods import inputs, teacher
from bridge_jax.methods.inputs import Examples
from bridge_jax.methods.teacher import Asking, CountTokens
from bridge_jax.parallel import hosts, preemption
from bridge_jax.pipeline.artifacts import Artifact, MeasuredModel, record, rows
from bridge_jax.pipeline.files import read_json, read_rows, read_what_is_left
from bridge_jax.pipeline.stages import Stage, Workload
from bridge_jax.pipeline.storage import HINT, Folder
from bridge_jax.teachers.replies import annotation

_ROWS, _SPEND, _ANSWERED = "annotations.jsonl", "spend.json", "answered.json"
_NO_REPLY = Failure("no reply is on the ledger")

_log = logging.getLogger(__name__)


class Annotation(TypedDict):
    """The teacher's rationale and answer for one example, and why they are kept or not.

    Attributes:
      gold, correct: None where the example has no gold answer.
    """

    id: str
    question: str
    rationale: str
    answer: str | None
    gold: str | None
    correct: bool | None
    kept: bool
    reason: str | None
    asked: int
    agreement: NotRequired[float]


class Bill(TypedDict):
    """The bill of a run (`Ledger.bill`), and the price list used to settle it."""

    queries: int
    input_tokens: int
    output_tokens: int
    usd: float
    prices: dict[str, float]
    no_answer: NotRequired[dict[str, int]]
    unknown: NotRequired[dict[str, float]]
    of_others: NotRequired[dict[str, float]]


class Answered(TypedDict):
    """The keys of the requests that received a reply."""

    keys: list[str]


ANNOTATIONS = Artifact(
    "apprenticeship/annotations",
    "Asking the teacher",
    "ask",
    None,
    (
        rows(_ROWS, Annotation),
        record(_SPEND, Bill, is_result=False),
        record(_ANSWERED, Answered, is_result=False),
    ),
    measured=MeasuredModel("teacher", "Teacher", "the model that is paid for"),
)


def annotate(
    params: Asking,
    out: Folder,
    pool: Examples,
    chosen: Folder,
    count: CountTokens,
    workdir: Path,
) -> None:
    """Asks the teacher; writes the annotations, the bill, and the keys of requests with a reply."""
    if not hosts.is_first():  # One process asks; the others read its rows later.
        return
    examples = selected(chosen, pool)
    with preemption.immediately():
        outcomes, spend = teacher.ask(params, examples, count, workdir)
    rules = teacher.rules_of(params.teacher, count)
    out.write_rows(_ROWS, (annotation(e, said, rules) for e, said in zip(examples, outcomes)))
    teacher.write_bill(out, _SPEND, spend, params.teacher)
    answered = [
        request.key
        for example, said in zip(examples, outcomes)
        for request, outcome in zip(_requests(params, example, len(said)), said)
        if isinstance(outcome, TeacherReply)
    ]
    out.write_record(_ANSWERED, {"keys": answered})


def _requests(params: Asking, example: Example, number: int) -> list[TeacherRequest]:
    """Returns the first `number` requests about an example: its samples, then its retries."""
    request = teacher.make_request(params, example)
    return [dataclasses.replace(request, sample=sample) for sample in range(number)]


def selected(chosen: Folder, pool: Examples) -> list[Example]:
    """Returns the selected examples, in the order of the selection.

    Raises:
      UserError: the selection is damaged.
    """
    ids = chosen.record("selection.json").get("ids")
    if not isinstance(ids, list) or not all(key in pool.by_id for key in ids):
        raise UserError(f"{chosen.path}: selection.json is damaged; {HINT}")
    return [pool.by_id[key] for key in ids]


def kept_annotations(
    annotated: Folder, pool: Examples, labelled: bool
) -> list[tuple[Example, str, str]]:
    """Returns (example, rationale, answer) for each kept annotation.

    The answer is the gold answer, even if `teacher.keep_wrong` let a rationale with another answer
    pass. If the pool is unlabelled, it is the teacher's answer.

    Raises:
      UserError: no annotation is kept.
    """
    found, written = [], annotated.rows(_ROWS)
    for row in written:
        example = pool.by_id[row["id"]]
        answer = example.gold if labelled else row["answer"]
        if row["kept"] and answer is not None:
            found.append((example, row["rationale"], answer))
    if not found:
        reasons = collections.Counter(row["reason"] or "no answer" for row in written)
        listed = "; ".join(f"{count:,} x {reason}" for reason, count in reasons.most_common(3))
        raise UserError(
            f"there is nothing to learn from the teacher: none of its {len(written):,} answers was "
            f"kept ({listed}). They are in {annotated.path / _ROWS}, and their cost is already "
            "spent; relax teacher.keep_wrong or other settings of `teacher` to keep some"
        )
    return found


def repair(
    params: Asking,
    place: Folder,
    damaged: Collection[str],
    pool: Examples,
    chosen: Folder,
    count: CountTokens,
    workdir: Path,
) -> bool:
    """Repairs the annotations in `place` from the ledger, and returns whether they are whole.

    Every example needs a row that agrees with the replies on the ledger. If a reply was given that
    the ledger lacks (it may be another ledger by now), or it is not known which were given, a
    readable row is kept as it is. If none was given, the row is rebuilt with the reason from
    the file.

    Args:
      params: the parameters of the stage.
      place: the folder of the stage.
      damaged: the names of files whose content has changed since they were written.
      pool: the examples.
      chosen: the selection.
      count: counts tokens.
      workdir: the folder of the run whose ledger is read.

    Returns:
      False if the annotations cannot be repaired and the teacher is free, so that it can be asked
      again.

    Raises:
      UserError: they cannot be repaired, and asking again would cost money.
    """
    examples = selected(chosen, pool)
    is_readable, out = True, place.path
    try:
        written = read_rows(out / _ROWS)
    except UserError:
        is_readable, written = False, read_what_is_left(out / _ROWS)
    by_id = {row.get("id"): row for row in written}
    answered = None if _ANSWERED in damaged else _answered(out)
    ledger = _RecordedReplies.of(params, examples, workdir, answered)
    found = [ledger.row(params, example, count, by_id.get(example.id)) for example in examples]
    lost = [example.id for example, row in zip(examples, found) if row is None]
    spend = read_json(out / _SPEND)
    has_bill = _SPEND not in damaged and spend is not None
    if lost or not (has_bill or ledger.bill):
        if not teacher.is_paid(params.teacher):
            return False
        what = f"the rows of {_some(lost)}" if lost else _SPEND
        raise UserError(
            f"{out}: {what} cannot be read, and {ledger.path} does not have them; restore the "
            "file or the ledger from a copy, or delete the folder to ask, and pay, again"
        )
    wrong = [e.id for e, row in zip(examples, found) if row != by_id.get(e.id)]
    if found != written or not is_readable:
        _log.warning(
            "%s: %s; the file is rewritten from %s, and the teacher is not asked again",
            out / _ROWS,
            f"{len(wrong)} of {len(examples)} rows do not match the teacher's replies "
            f"({_some(wrong)})"
            if wrong
            else "its lines are damaged",
            ledger.path,
        )
        place.write_rows(_ROWS, (row for row in found if row is not None))
    if not has_bill:
        _log.warning("%s: damaged; it is rewritten from %s", out / _SPEND, ledger.path)
        # The prices used to settle it are lost.
        place.write_record(_SPEND, (ledger.bill or {}) | {"prices": {}})
    if answered is None:
        _log.warning("%s: damaged; it is rewritten from %s", out / _ANSWERED, ledger.path)
        place.write_record(_ANSWERED, {"keys": sorted(ledger.stored)})
    return True


@dataclasses.dataclass(frozen=True)
class _RecordedReplies:
    """The replies on a ledger to the requests about a run's selection.

    Attributes:
      path: the path of the ledger.
      stored: the replies that the annotations were made from, by request key.
      is_known: whether it is known which requests had a reply, so that all others had none.
      lost: keys of requests whose reply is not on the ledger, without those known to have had none.
      bill: the result of `Ledger.bill`; None if the ledger does not exist.
    """

    path: Path
    stored: dict[str, Stored]
    is_known: bool
    lost: frozenset[str]
    bill: dict[str, Any] | None

    @classmethod
    def of(
        cls,
        params: Asking,
        examples: Sequence[Example],
        workdir: Path,
        answered: frozenset[str] | None,
    ) -> "_RecordedReplies":
        """Reads the ledger of a run; `answered` has the keys of requests with a reply, if known."""
        config = params.teacher
        most = config.samples + config.retries
        keys = {r.key for example in examples for r in _requests(params, example, most)}
        # Other keys come from a version of the program that worded its requests differently.
        is_known = answered is not None and answered <= keys
        wanted = keys & answered if answered is not None and is_known else keys
        account = _account(params, workdir)
        if not account.ledger.is_file():
            return cls(account.ledger, {}, is_known, frozenset(wanted), None)
        stored, paid = accounts.answers(account, wanted)
        return cls(account.ledger, stored, is_known, frozenset(wanted - stored.keys()), paid)

    def row(
        self, params: Asking, example: Example, count: CountTokens, written: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """Returns the row of an example; None if neither the file nor the ledger has it."""

        def look_up(requests: Sequence[TeacherRequest], _: bool) -> list[TeacherReply | Failure]:
            return [
                self.stored[r.key].reply if r.key in self.stored else _NO_REPLY for r in requests
            ]

        (outcomes,) = teacher.in_rounds(params, [example], count, look_up)
        asked = _requests(params, example, len(outcomes))
        row = annotation(example, outcomes, teacher.rules_of(params.teacher, count))
        missing = [r.key for r, said in zip(asked, outcomes) if isinstance(said, Failure)]
        if not missing:
            return row
        if not self.is_known or not self.lost.isdisjoint(missing):
            return written if written is not None and _is_readable(written) else None
        # The file alone has the reason why there was no reply.
        said = written.get("reason") if written else None
        return row | {"reason": said} if row["reason"] and isinstance(said, str) else row


def _account(params: Asking, workdir: Path) -> Account:
    """Returns the account of a run, or the shared ledger if the run has no account yet.

    A run that reuses the stages of other runs may not have asked the teacher itself.
    """
    account = accounts.account_of(workdir)
    shared = params.budget.ledger
    if account.ledger.is_file() or not shared:
        return account
    return Account(Path(shared).expanduser().absolute(), "")


def _answered(out: Path) -> frozenset[str] | None:
    """Returns the keys of requests that had a reply; None if they are not known."""
    keys = (read_json(out / _ANSWERED) or {}).get("keys")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        return None
    return frozenset(keys)


def _is_readable(row: dict[str, Any]) -> bool:
    return (
        isinstance(row.get("rationale"), str)
        and isinstance(row.get("answer"), str | None)
        and isinstance(row.get("kept"), bool)
    )


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
    return ", ".join(map(repr, ids[:3])) + more


def annotations_stage(
    config: RunConfig, selection: Artifact, into: Artifact = ANNOTATIONS, new: int | None = None
) -> Stage:
    """Returns the stage that asks the teacher about a selection.

    Args:
      selection: the artifact of the selection stage.
      into: the artifact of this stage; only `ANNOTATIONS`, that of the last part, has retries.
      new: number of selected examples that no earlier part has asked about; None is all of them.
    """
    reads = {
        "pool": inputs.POOL,
        "chosen": selection.name,
        "count": inputs.COUNT,
        "workdir": inputs.WORKDIR,
    }
    recorded = []  # The inputs with recorded answers: the examples, or a file.
    if config.teacher.kind not in API_TEACHERS:
        recorded.append(inputs.RECORDED)
    if config.teacher.replay_from:
        recorded.append(inputs.REPLAY)
    count = teacher.selected_count(config) if new is None else new
    workload = Workload("selected", count, samples=config.teacher.samples)
    params = teacher.asking(config)
    if into != ANNOTATIONS:
        # Retries are paid from the budget that the first answers to all parts leave over.
        params = dataclasses.replace(params, teacher=dataclasses.replace(params.teacher, retries=0))
    return Stage(into, annotate, params, reads, workload, repair, tuple(recorded))
