"""Finds the ledger that a run pays from, the state of the run's account, and its bill.

A run has its own ledger in its workdir, unless `budget.ledger` names one that it shares with other
runs. On a shared ledger, an answer that one run paid for is free for all others, and the caps of a
run count only what that run has paid itself. The account on a shared ledger is recorded in
`account.json` in the workdir, so that it survives moving the workdir. If that file is lost, the
ledger still finds the account by the path of the workdir.
"""

import csv
import dataclasses
import datetime
import json
import logging
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bridge_jax import atomic, display
from bridge_jax.config import BudgetConfig
from bridge_jax.errors import UserError
from bridge_jax.ledger.database import is_alive, reading
from bridge_jax.ledger.ledger import Ledger, Stored, bill_of, stored
from bridge_jax.ledger.prices import NANO, Prices, Spend

LEDGER, ACCOUNT = "ledger.sqlite", "account.json"

# The outcomes of a request, in the order in which they are listed.
OUTCOMES = {
    "stop": "answered",
    "length": "cut at limit",
    "refused": "refused",
    "empty": "empty",
    "malformed": "malformed",
    "unknown": "unknown",
    "reserved": "in flight",
    "job": "in a job",
}

_log = logging.getLogger(__name__)


class Account(NamedTuple):
    """The ledger of a run, and the run's id there; '' on the run's own ledger."""

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
            f"{path}: damaged ({error}), and without it the caps of this run cannot be checked; "
            "restore a copy, or delete it if the workdir has not moved since the last run: the "
            "ledger then finds the account by the path"
        ) from None


def open_ledger(workdir: Path, budget: BudgetConfig, prices: Prices, local: bool) -> Ledger:
    """Opens the ledger that the run in `workdir` pays from.

    One process at a time opens the ledger of a workdir (`pipeline.leases`).

    Args:
      workdir: the run's folder.
      budget: the caps, and the path of the shared ledger if there is one.
      prices: the price list for requests made from now on.
      local: whether the teacher runs in this process (see `Ledger`).

    Raises:
      UserError: the run has paid from another ledger before, or this one cannot be opened.
    """
    before, paying = account_of(workdir), _paying(workdir, budget)
    if paying.ledger == workdir / LEDGER:
        return Ledger(paying.ledger, budget.queries, budget.usd, prices, local=local)
    if paying.run and not before.run:
        _log.warning(
            "%s is missing, but %s knows the run in this workdir: continuing with that account, "
            "and what it has paid counts towards its caps",
            workdir / ACCOUNT,
            paying.ledger,
        )
    path, run = paying.ledger, paying.run or uuid.uuid4().hex
    ledger = Ledger(path, budget.queries, budget.usd, prices, run, local)
    try:
        known = ledger.register(str(workdir.resolve()))
        if before.run and not known:
            raise _elsewhere(workdir, budget.ledger, before.ledger)
        # Only after `register`: a recorded account that the ledger does not know is an error.
        if before != (path, run):
            workdir.mkdir(parents=True, exist_ok=True)
            atomic.write_json(workdir / ACCOUNT, {"ledger": str(path), "run": run})
    except BaseException:
        ledger.close()
        raise
    return ledger


class AccountState(NamedTuple):
    """The state of a run's account before its first request.

    Attributes:
      answered: keys of requests that are answered, or in an open batch job of the run.
      queries: number of requests that count towards the run's caps.
      nanodollars: the total cost at which these requests count.
      permille: by model, the highest cost of a request so far, in permille of its reservation (at
        list prices).
    """

    answered: frozenset[str] = frozenset()
    queries: int = 0
    nanodollars: int = 0
    permille: Mapping[str, int] = {}


def account_state(workdir: Path, budget: BudgetConfig) -> AccountState:
    """Returns the state of the account of `workdir`; writes nothing and creates no ledger.

    Raises:
      UserError: as `open_ledger` does.
    """
    path, run = _paying(workdir, budget)
    if not path.is_file():
        if run:
            raise _elsewhere(workdir, budget.ledger, account_of(workdir).ledger)
        return AccountState()
    with reading(path) as connection:
        keys = connection.execute(
            "SELECT key FROM requests WHERE state = 'settled'"
            " OR (state = 'reserved' AND job IS NOT NULL AND run = ?)",
            (run,),
        )
        answered = frozenset(key for (key,) in keys)
        # Unsent reservations of a dead process are deleted when the ledger is opened.
        queries, nanodollars = connection.execute(
            "SELECT count(*), ifnull(sum(nanodollars), 0) FROM requests"
            " WHERE run = ? AND (state != 'reserved' OR sent)",
            (run,),
        ).fetchone()
        permille = dict(connection.execute("SELECT model, permille FROM overruns"))
    if not run and path != workdir / LEDGER:  # A new account on a shared ledger.
        queries = nanodollars = 0
    return AccountState(answered, queries, nanodollars, permille)


def _paying(workdir: Path, budget: BudgetConfig) -> Account:
    """Returns the account that a run must pay from; its `run` is "" if there is no account yet.

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
    if before.run or not path.is_file():
        return Account(path, before.run)
    with reading(path) as connection:
        found = connection.execute(
            "SELECT id FROM runs WHERE name = ? ORDER BY registered_at DESC LIMIT 1",
            (str(workdir.resolve()),),
        ).fetchone()
    return Account(path, found[0] if found else "")


def _elsewhere(workdir: Path, given: str, before: Path) -> UserError:
    return UserError(
        f"budget.ledger={given or '(empty)'}: the run in {workdir} has already paid from {before}, "
        f"and its caps would ignore those costs; pass --budget.ledger={before}, or use a new "
        "workdir"
    )


def write_off(account: Account, job_id: str) -> int:
    """Closes an open batch job that its vendor no longer has.

    Args:
      account: the account of the run that submitted the job.
      job_id: the vendor's id of the job, or our name for it if the vendor's id never arrived.

    Returns:
      The number of its requests without an answer. From now on they count towards the caps as
      possibly billed, and may be asked again.

    Raises:
      UserError: no such job is open.
    """
    if not account.ledger.is_file():
        raise UserError(f"{account.ledger}: no such ledger")
    with Ledger(account.ledger, 0, 0.0, Prices(0.0, 0.0), account.run) as ledger:
        jobs = ledger.open_jobs()
        for job in jobs:
            if job_id in (job.id, job.name):
                return ledger.close_job(job.name)
    known = ", ".join(job.id or job.name for job in jobs) or "none"
    raise UserError(
        f"{account.ledger}: no batch job {job_id!r} is open; the open jobs are: {known}"
    )


def answers(account: Account, keys: Iterable[str]) -> tuple[dict[str, Stored], dict[str, Any]]:
    """Returns the answers to `keys` that are on a ledger, by key, and the bill of the run.

    Nothing is written. The answers that other runs paid for appear as `of_others` on the bill.
    """
    with reading(account.ledger) as connection:
        found = stored(connection, keys)
        taken = [answer for answer in found.values() if answer.run != account.run]
        return found, bill_of(connection, account.run, taken)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One request on a bill.

    Attributes:
      run: id of the run that pays, a key of `LedgerBill.runs`.
      outcome: a key of `OUTCOMES`; a reservation of a dead process is `unknown`.
      nanodollars: its cost; until it is settled, the highest possible cost.
      reserved_at, settled_at: seconds since 1970.
    """

    id: int
    run: str
    model: str
    outcome: str
    batch: bool
    job: str | None
    example_id: str
    key: str
    input_tokens: int
    output_tokens: int
    nanodollars: int
    reserved_at: float
    settled_at: float | None


@dataclasses.dataclass(frozen=True)
class LedgerBill:
    """A ledger's requests and their costs, for tables and spreadsheets.

    Attributes:
      path: the ledger's path.
      entries: its requests, in the order in which they were reserved.
      runs: the names of the runs that share the ledger, by id; '' is the id of the run that owns
        it.
    """

    path: Path
    entries: list[Entry]
    runs: dict[str, str]

    def of(self, run: str | None) -> list[Entry]:
        """Returns the entries of a run; None selects all runs."""
        return [entry for entry in self.entries if run in (None, entry.run)]

    def lines(self, run: str | None) -> dict[tuple[str, bool, str], Spend]:
        """Returns sums by (model, batch, outcome), sorted, for one run; None selects all runs."""
        order = list(OUTCOMES)
        found: dict[tuple[str, bool, str], Spend] = {}
        for entry in sorted(self.of(run), key=lambda e: (e.model, e.batch, order.index(e.outcome))):
            key = (entry.model, entry.batch, entry.outcome)
            one = Spend(1, entry.input_tokens, entry.output_tokens, entry.nanodollars)
            found[key] = Spend.of((found.get(key, Spend()), one))
        return found


def read_bill(path: Path) -> LedgerBill:
    """Returns the bill of the ledger at `path`, without writing to the ledger.

    Raises:
      UserError: there is no ledger, or it cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such ledger; no teacher has been asked anything here")
    with reading(path) as connection:
        rows = connection.execute(
            "SELECT id, run, model, CASE WHEN state = 'settled' THEN finish"
            " WHEN state = 'reserved' AND job IS NOT NULL THEN 'job' ELSE state END,"
            " batch, job, example_id, key, input_tokens, output_tokens, nanodollars, reserved_at,"
            " settled_at, owner FROM requests ORDER BY id"
        ).fetchall()
        runs = dict(connection.execute("SELECT id, name FROM runs ORDER BY registered_at"))
        alive = {owner: is_alive(path, owner) for owner in {row[-1] for row in rows}}
    entries = []
    for *columns, owner in rows:
        entry = Entry(*columns)
        if entry.outcome == "reserved" and not alive[owner]:
            entry = dataclasses.replace(entry, outcome="unknown")
        entries.append(entry)
    if not runs or any(entry.run == "" for entry in entries):
        # The run that owns this ledger has no row in the table `runs`.
        runs = {"": str(path.parent)} | runs
    return LedgerBill(path, entries, runs)


def write_csv(bill: LedgerBill, path: Path) -> None:
    """Writes a CSV file with one row per request, for all runs; it is written whole or not at all.

    The columns are the fields of `Entry`, with `usd` (exact) in place of nanodollars, the run's
    name in place of its id, and times in UTC. The texts of requests and replies stay in the ledger.
    No cell is read as a formula.

    Raises:
      UserError: `path` cannot be written.
    """
    columns = [field.name for field in dataclasses.fields(Entry)]
    columns[columns.index("nanodollars")] = "usd"
    try:
        with atomic.written(path, atomic.part_of(path), sync=False) as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            for entry in bill.entries:
                row: dict[str, object] = dataclasses.asdict(entry)
                del row["nanodollars"]
                row["usd"] = f"{entry.nanodollars // NANO}.{entry.nanodollars % NANO:09d}"
                row["run"] = bill.runs.get(entry.run, entry.run)
                row["batch"] = int(entry.batch)
                row["reserved_at"] = utc(entry.reserved_at)
                row["settled_at"] = "" if entry.settled_at is None else utc(entry.settled_at)
                writer.writerow({name: display.csv_value(value) for name, value in row.items()})
    except OSError as error:
        raise UserError(f"--csv={path}: {error.strerror or error}; give another path") from error


def utc(seconds: float) -> str:
    """Formats a time (seconds since 1970) like 2026-01-31T12:00:00Z."""
    when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
