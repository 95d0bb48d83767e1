"""Which ledger a run pays from, and on whose account.

A run has a ledger of its own in its workdir, unless `budget.ledger` names one that it shares with
other runs. There, answers that any of them paid for are free for all, and the caps of a run count
what it has paid itself: an answer that another run paid counts for nothing. Who pays is written to
`account.json` in the workdir, so that it holds after the workdir is moved. If that file is lost,
the ledger still knows the workdir by its path.
"""

import contextlib
import json
import logging
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bridge_jax import atomic
from bridge_jax.config import BudgetConfig
from bridge_jax.errors import UserError
from bridge_jax.ledger import overruns
from bridge_jax.ledger.ledger import Ledger
from bridge_jax.ledger.ledger_file import connect_to_read, explained
from bridge_jax.ledger.ledger_schema import EarlierVersion
from bridge_jax.ledger.prices import Prices

LEDGER, ACCOUNT = "ledger.sqlite", "account.json"

_log = logging.getLogger(__name__)


class Account(NamedTuple):
    """The ledger of a run, and its name there; '' in a ledger of its own."""

    ledger: Path
    run: str


def account_of(workdir: Path) -> Account:
    """Returns the account that the run in `workdir` has used, or would use by default."""
    path = workdir / ACCOUNT
    if not path.exists():
        return Account(workdir / LEDGER, "")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        ledger, run = value["ledger"], value["run"]
        if not (isinstance(ledger, str) and isinstance(run, str) and ledger and run):
            raise TypeError(f"ledger={ledger!r}, run={run!r}")
        return Account(Path(ledger), run)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}: damaged ({error}), and without it the caps of this run are not known; "
            "put a copy in its place, or delete it if the workdir was not moved since the last "
            "run: the ledger knows the account by the path"
        ) from None


def open_ledger(workdir: Path, budget: BudgetConfig, prices: Prices, local: bool) -> Ledger:
    """Opens the ledger that the run in `workdir` pays from.

    One process at a time opens the ledger of a workdir (`pipeline.leases`).

    Args:
      workdir: the run's folder.
      budget: the caps, and the shared ledger if there is one.
      prices: what requests made from now on cost.
      local: the teacher bills nobody (`Ledger`).

    Raises:
      UserError: the run has paid from another ledger before, or this one cannot be opened.
    """
    before, paying = account_of(workdir), _paying(workdir, budget)
    if paying.ledger == workdir / LEDGER:
        return Ledger(paying.ledger, budget.queries, budget.usd, prices, local=local)
    if paying.run and not before.run:
        _log.warning(
            "%s is not there, but %s knows the run in this workdir: it goes on with that account, "
            "and what it has paid counts towards its caps",
            *(workdir / ACCOUNT, paying.ledger),
        )
    path, run = paying.ledger, paying.run or uuid.uuid4().hex
    ledger = Ledger(path, budget.queries, budget.usd, prices, run, local)
    try:
        known = ledger.register(str(workdir.resolve()))
        if before.run and not known:
            raise _elsewhere(workdir, budget.ledger, before.ledger)
        # Only after that: an account that the ledger does not know would be an error.
        if before != (path, run):
            workdir.mkdir(parents=True, exist_ok=True)
            atomic.write_json(workdir / ACCOUNT, {"ledger": str(path), "run": run})
    except BaseException:
        ledger.close()
        raise
    return ledger


class Standing(NamedTuple):
    """What a run finds on its ledger before it asks anything.

    Attributes:
      answered: keys of requests that are answered, or in an open batch job of the run.
      queries: requests that count towards its caps.
      nanodollars: what they count.
      permille: by model, the highest cost of a request in permille of its reservation.
    """

    answered: frozenset[str] = frozenset()
    queries: int = 0
    nanodollars: int = 0
    permille: Mapping[str, int] = {}


def standing(workdir: Path, budget: BudgetConfig) -> Standing | None:
    """Returns how the run in `workdir` stands; nothing is written, and no ledger is made.

    Returns:
      None where the ledger is of an earlier version, and has to be opened before it can be read.

    Raises:
      UserError: as `open_ledger` does.
    """
    path, run = _paying(workdir, budget)
    if not path.is_file():
        if run:
            raise _elsewhere(workdir, budget.ledger, account_of(workdir).ledger)
        return Standing()
    is_new = not run and path != workdir / LEDGER
    with explained(path):
        try:
            connection = connect_to_read(path)
        except EarlierVersion:
            return None
        with contextlib.closing(connection):
            keys = connection.execute(
                "SELECT key FROM requests WHERE state = 'settled'"
                " OR (state = 'reserved' AND job IS NOT NULL AND run = ?)",
                (run,),
            )
            answered = frozenset(key for (key,) in keys)
            # Reservations of a process that has died and sent nothing are forgotten.
            queries, nanodollars = connection.execute(
                "SELECT count(*), ifnull(sum(nanodollars), 0) FROM requests"
                " WHERE run = ? AND (state != 'reserved' OR sent)",
                (run,),
            ).fetchone()
            permille = overruns.all_of(connection)
    return Standing(answered, *((0, 0) if is_new else (queries, nanodollars)), permille)


def _paying(workdir: Path, budget: BudgetConfig) -> Account:
    """Returns the account that a run is to pay from; without a run where it has none yet.

    Raises:
      UserError: the run has paid from another ledger before.
    """
    before, own = account_of(workdir), workdir / LEDGER
    path = Path(budget.ledger).expanduser().absolute() if budget.ledger else own
    if path.resolve() == own.resolve():
        if before.run:
            raise _elsewhere(workdir, budget.ledger, before.ledger)
        return Account(own, "")
    if not before.run and own.exists():
        raise _elsewhere(workdir, budget.ledger, own)
    return Account(path, before.run or _by_name(path, workdir))


def _by_name(ledger: Path, workdir: Path) -> str:
    """Returns the run that has paid from a shared ledger for this very workdir; "" if none has."""
    if not ledger.is_file():
        return ""
    with (
        explained(ledger),
        contextlib.suppress(EarlierVersion),  # That had no runs.
        contextlib.closing(connect_to_read(ledger)) as connection,
    ):
        found = connection.execute(
            "SELECT id FROM runs WHERE name = ? ORDER BY registered_at DESC LIMIT 1",
            (str(workdir.resolve()),),
        ).fetchone()
        return found[0] if found else ""
    return ""


def write_off(account: Account, job_id: str) -> int:
    """Closes an open batch job that its vendor no longer has.

    Args:
      account: of the run that submitted it.
      job_id: the vendor's, or ours if the vendor's never arrived.

    Returns:
      How many of its requests have no answer. They count towards the caps from now on, as maybe
      billed, and may be asked again.

    Raises:
      UserError: no such job is open.
    """
    if not account.ledger.is_file():
        raise UserError(f"{account.ledger}: no such ledger")
    with Ledger(account.ledger, 0, 0.0, Prices(0.0, 0.0), account.run) as ledger:
        names = {name: job.name for job in ledger.open_jobs() for name in (job.id, job.name)}
        if job_id not in names:
            known = ", ".join(job.id or job.name for job in ledger.open_jobs()) or "none"
            raise UserError(f"{account.ledger}: no batch job {job_id!r} is open; open are: {known}")
        return ledger.close_job(names[job_id])


def _elsewhere(workdir: Path, given: str, before: Path) -> UserError:
    return UserError(
        f"budget.ledger={given or '(empty)'}: the run in {workdir} has paid from {before} before, "
        f"and the caps would not count that; pass --budget.ledger={before}, or use a new workdir"
    )
