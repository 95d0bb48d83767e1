"""What becomes of a request on the ledger, as operations of its writer (`ledger_writer.Operation`).

The methods of `Ledger` that have the same names wait for them and block; coroutines await
`Ledger.soon` of one.
"""

import dataclasses
import sqlite3
from collections.abc import Callable
from pathlib import Path

from bridge_jax.errors import UserError
from bridge_jax.ledger import ledger_rows, overruns
from bridge_jax.ledger.caps import BudgetExceeded, Caps
from bridge_jax.ledger.ledger_rows import Holder, InFlight, Stored
from bridge_jax.ledger.prices import Prices
from bridge_jax.teachers.protocol import Reply, Request


class RequestInFlight(UserError):  # noqa: N818
    """The same request is being answered now, by another thread, process or batch job."""


class RequestInBatchJob(RequestInFlight):
    """An open batch job has the request: waiting is of no use before somebody collects it."""


@dataclasses.dataclass(frozen=True)
class Operations:
    """The operations on requests, for one who pays.

    Attributes:
      path: of the ledger.
      caps: what may be spent.
      prices: what requests cost.
      holder: who reserves.
      local: the teacher bills nobody.
      of_others: by key, the answers found here that other runs have paid.
    """

    path: Path
    caps: Caps
    prices: Prices
    holder: Holder
    local: bool
    of_others: dict[str, Stored] = dataclasses.field(default_factory=dict)

    def reserve(
        self, request: Request, input_tokens_estimate: int, batch: bool = False
    ) -> Callable[[sqlite3.Connection], Reply | None]:
        """Returns `Ledger.reserve` as an operation."""
        listed = self.prices.cost(input_tokens_estimate, request.max_output_tokens, batch)
        sent = not (batch or self.local)

        def operation(connection: sqlite3.Connection) -> Reply | None:
            found = ledger_rows.find(connection, self.path, request.key, self.holder)
            if isinstance(found, InFlight):
                raise self._in_flight(request, found)
            if found is not None:
                if found.run != self.holder.run:
                    self.of_others[request.key] = found
                return found.reply
            permille = overruns.times(connection, request.model)
            cost = overruns.worst_case(listed, permille)
            try:
                self.caps.check(connection, self.holder.run, cost)
            except BudgetExceeded as error:
                why = overruns.in_words(request.model, permille)
                raise BudgetExceeded(f"{self.path}: {error}{why}") from None
            ledger_rows.reserve(
                connection, request, self.holder, input_tokens_estimate, cost, batch, sent
            )
            return None

        return operation

    def settle(self, request: Request, reply: Reply) -> Callable[[sqlite3.Connection], None]:
        """Returns `Ledger.settle` as an operation."""
        tokens = (reply.input_tokens, reply.output_tokens)
        costs = [self.prices.cost(*tokens, batch) for batch in (False, True)]

        def operation(connection: sqlite3.Connection) -> None:
            reserved = ledger_rows.reserved_tokens(connection, request.key, self.holder)
            if not ledger_rows.settle(connection, request.key, reply, self.holder, *costs):
                raise ValueError(f"settled without a reservation: {request.example_id!r}")
            if reserved:
                overruns.note(
                    connection, self.holder.run, request.model, self.prices, reserved, tokens
                )

        return operation

    def release(self, request: Request) -> Callable[[sqlite3.Connection], None]:
        """Returns `Ledger.release` as an operation."""
        return lambda connection: ledger_rows.release(connection, request.key, self.holder)

    def abandon(self, request: Request) -> Callable[[sqlite3.Connection], None]:
        """Returns `Ledger.abandon` as an operation."""
        return lambda connection: ledger_rows.abandon(connection, request.key, self.holder)

    def _in_flight(self, request: Request, found: InFlight) -> RequestInFlight:
        at_work = (
            f"{self.path}: the request about example {request.example_id!r} is being answered "
            f"by {found.by}"
        )
        if found.in_job:
            return RequestInBatchJob(
                f"{at_work}; start that run again, asking that vendor: it collects the job"
            )
        return RequestInFlight(f"{at_work}; wait for it to end")
