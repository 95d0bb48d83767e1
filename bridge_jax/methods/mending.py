"""Repairs damaged annotations from the ledger, which holds the teacher's replies.

What is damaged is written again from there: nobody is asked, and nothing is paid.
"""

import dataclasses
import logging
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.ledger import accounts, ledger_rows
from bridge_jax.ledger.accounts import Account
from bridge_jax.ledger.caps import Spend, bill
from bridge_jax.ledger.ledger_file import connect_to_read, explained
from bridge_jax.ledger.ledger_rows import Stored
from bridge_jax.ledger.ledger_schema import EarlierVersion
from bridge_jax.ledger.prices import in_usd
from bridge_jax.methods import teacher
from bridge_jax.methods.teacher import Asking, Count
from bridge_jax.pipeline.files import (
    read_json,
    read_rows,
    read_what_is_left,
)
from bridge_jax.pipeline.storage import Folder
from bridge_jax.teachers.protocol import Failure, Reply, Request
from bridge_jax.teachers.replies import annotation

ROWS, SPEND, ANSWERED = "annotations.jsonl", "spend.json", "answered.json"
_NO_REPLY = Failure("no reply is on the ledger")

_log = logging.getLogger(__name__)


def write(
    params: Asking,
    out: Folder,
    examples: Sequence[Example],
    count: Count,
    outcomes: Sequence[Sequence[Reply | Failure]],
    spend: dict[str, Any],
) -> None:
    """Writes a row per example, the bill, and which requests had a reply."""
    rules = teacher.rules_of(params.teacher, count)
    out.write_rows(ROWS, (annotation(e, said, rules) for e, said in zip(examples, outcomes)))
    out.write_record(SPEND, spend | {"prices": prices(params)})
    asked = [
        requests_about(params, example, len(said)) for example, said in zip(examples, outcomes)
    ]
    answered = [
        request.key
        for requests, said in zip(asked, outcomes)
        for request, outcome in zip(requests, said)
        if isinstance(outcome, Reply)
    ]
    out.write_record(ANSWERED, {"keys": answered})


def prices(params: Asking) -> dict[str, float]:
    """Returns the price list at which a bill is settled."""
    names = ("usd_per_million_input", "usd_per_million_output")
    return {name: getattr(params.teacher, name) for name in names}


def requests_about(params: Asking, example: Example, number: int) -> list[Request]:
    """Returns the first `number` requests about an example: its samples, then its retries."""
    request = teacher.make_request(params, example)
    return [dataclasses.replace(request, sample=sample) for sample in range(number)]


def mend(
    params: Asking,
    place: Folder,
    damaged: Collection[str],
    examples: Sequence[Example],
    count: Count,
    workdir: Path,
) -> bool:
    """Returns whether the annotations in `place` are whole; mends them from the ledger if it can.

    A row is compared with what the replies on the ledger say, and has to be there for every
    example. Where the ledger has no reply, for none was given or it is another ledger by now, a row
    that can be read stands.

    Args:
      params: of the stage.
      place: its folder.
      damaged: the files that are not what was written.
      examples: that were selected.
      count: of tokens.
      workdir: of the run, whose ledger it is.

    Returns:
      False where they are damaged, and the teacher can be asked again for nothing.

    Raises:
      UserError: they are damaged, and the ledger does not have what was paid for.
    """
    is_readable, out = True, place.path
    try:
        rows = read_rows(out / ROWS)
    except UserError:
        is_readable, rows = False, read_what_is_left(out / ROWS)
    by_id = {row.get("id"): row for row in rows}
    answered = None if ANSWERED in damaged else _answered(out)
    ledger = _Ledger.of(params, examples, workdir, answered)
    found = [ledger.row(params, example, count, by_id.get(example.id)) for example in examples]
    lost = [example.id for example, row in zip(examples, found) if row is None]
    spend = read_json(out / SPEND)
    has_bill = SPEND not in damaged and spend is not None
    if lost or not (has_bill or ledger.bill):
        if not teacher.is_paid(params.teacher):
            return False
        what = f"the rows of {_some(lost)}" if lost else SPEND
        raise UserError(
            f"{out}: {what} cannot be read, and {ledger.path} does not have them; put a copy of "
            "the file or of the ledger in its place, or delete the folder to ask, and pay, again"
        )
    wrong = [e.id for e, row in zip(examples, found) if row != by_id.get(e.id)]
    if found != rows or not is_readable:
        _log.warning(
            "%s: %s; the file is written again from %s, and nobody is asked",
            out / ROWS,
            f"{len(wrong)} of {len(examples)} rows are not what the teacher replied "
            f"({_some(wrong)})"
            if wrong
            else "its lines are damaged",
            ledger.path,
        )
        place.write_rows(ROWS, (row for row in found if row is not None))
    if not has_bill:
        _log.warning("%s: damaged; it is written again from %s", out / SPEND, ledger.path)
        # At which prices it was settled is lost.
        place.write_record(SPEND, (ledger.bill or {}) | {"prices": {}})
    if answered is None:
        _log.warning("%s: damaged; it is written again from %s", out / ANSWERED, ledger.path)
        place.write_record(ANSWERED, {"keys": sorted(ledger.stored)})
    return True


@dataclasses.dataclass(frozen=True)
class _Ledger:
    """The replies on a ledger to the requests about a run's selection.

    Attributes:
      path: of the ledger.
      stored: the replies that made the annotations, by key.
      is_known: whether a request without a reply is known to have had none.
      lost: keys of replies that made the annotations and are not here.
      bill: as `Ledger.bill` has it; None if there is no such ledger.
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
    ) -> "_Ledger":
        """Returns what the ledger of a run says; `answered` are the keys that had a reply."""
        config = params.teacher
        most = config.samples + config.retries
        keys = {r.key for example in examples for r in requests_about(params, example, most)}
        # Otherwise the words of the requests are others in this version of the program.
        is_known = answered is not None and answered <= keys
        wanted = keys & answered if answered is not None and is_known else keys
        account = _account(params, workdir)
        nothing = cls(account.ledger, {}, is_known, frozenset(wanted), None)
        if not account.ledger.is_file():
            return nothing
        try:
            with explained(account.ledger):
                connection = connect_to_read(account.ledger)
        except EarlierVersion:
            return nothing
        with explained(account.ledger), closing(connection):
            stored = ledger_rows.settled(connection, wanted)
            others = [found for found in stored.values() if found.run != account.run]
            of_others = Spend(
                len(others),
                sum(found.reply.input_tokens for found in others),
                sum(found.reply.output_tokens for found in others),
                in_usd(sum(found.nanodollars for found in others)),
            )
            paid = bill(connection, account.run, of_others)
        return cls(account.ledger, stored, is_known, frozenset(wanted - stored.keys()), paid)

    def row(
        self, params: Asking, example: Example, count: Count, written: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """Returns the row of an example; None if neither the file nor the ledger has it."""

        def look_up(requests: Sequence[Request], _: bool) -> list[Reply | Failure]:
            return [
                self.stored[r.key].reply if r.key in self.stored else _NO_REPLY for r in requests
            ]

        (outcomes,) = teacher.in_rounds(params, [example], count, look_up)
        asked = requests_about(params, example, len(outcomes))
        row = annotation(example, outcomes, teacher.rules_of(params.teacher, count))
        missing = [r.key for r, said in zip(asked, outcomes) if isinstance(said, Failure)]
        if not missing:
            return row
        if not self.is_known or not self.lost.isdisjoint(missing):
            return written if _is_readable(written) else None
        # Why there was no reply is in the file alone.
        said = written.get("reason") if written else None
        return row | {"reason": said} if row["reason"] and isinstance(said, str) else row


def _account(params: Asking, workdir: Path) -> Account:
    """Returns the account of a run; one whose stages others have made may have none yet."""
    account = accounts.account_of(workdir)
    shared = params.budget.ledger
    if account.ledger.is_file() or not shared:
        return account
    return Account(Path(shared).expanduser().absolute(), "")


def _answered(out: Path) -> frozenset[str] | None:
    """Returns the keys of requests that had a reply; None if that is not known."""
    keys = (read_json(out / ANSWERED) or {}).get("keys")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        return None
    return frozenset(keys)


def _is_readable(row: dict[str, Any] | None) -> bool:
    if row is None:
        return False
    answer, kept = row.get("answer"), row.get("kept")
    return (
        isinstance(row.get("rationale"), str)
        and (answer is None or isinstance(answer, str))
        and isinstance(kept, bool)
    )


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
    return ", ".join(map(repr, ids[:3])) + more
