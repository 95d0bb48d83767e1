"""When a call that failed is made again: after a jittered backoff, or when the vendor says."""

import datetime
import logging
from collections.abc import Awaitable, Callable

import tenacity

from bridge_jax.teachers.protocol import Request, TeacherError

ATTEMPTS = 6
LONGEST_SECONDS = 600.0  # Above that nobody wants a program to wait without being asked.
_BACKOFF = tenacity.wait_random_exponential(multiplier=1, max=60)
_NOTED_SECONDS = 60.0  # The longest backoff: only a vendor asks for more.


async def while_it_may_pass(
    ask: Callable[[Request], Awaitable[None]],
    request: Request,
    attempts: int,
    sleep: Callable[[float], Awaitable[None]],
    logger: logging.Logger,
) -> None:
    """Asks, and asks again while the trouble may pass, `attempts` times at most.

    Raises:
      TeacherError: that of the last attempt.
    """
    # tenacity takes a tenth of the processor time of a call, so it hears only of what went wrong.
    try:
        return await ask(request)
    except TeacherError as error:
        failed = [error]

    async def again() -> None:
        if failed:
            raise failed.pop()
        await ask(request)

    await tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(_may_pass),
        stop=tenacity.stop_after_attempt(attempts),
        wait=seconds_to_wait,
        sleep=sleep,
        before_sleep=logs(logger),
        reraise=True,
    )(again)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, TeacherError) and error.trouble in ("transient", "unknown")


def seconds_to_wait(state: tenacity.RetryCallState) -> float:
    """Returns what tenacity waits before the next attempt."""
    error = state.outcome and state.outcome.exception()
    return max(_BACKOFF(state), getattr(error, "retry_after", 0.0))


def bounded(error: TeacherError) -> TeacherError:
    """Returns the error, or a fatal one if the vendor asks to come back after a long time."""
    if not _may_pass(error) or error.retry_after <= LONGEST_SECONDS:
        return error
    wait = datetime.timedelta(seconds=min(round(error.retry_after), 10**9))
    when = datetime.datetime.now(datetime.UTC) + wait
    return TeacherError(
        f"{error}; it asks to come back in {wait}, at {when:%Y-%m-%d %H:%M} UTC: run the same "
        "command again then",
        "fatal",
    )


def logs(logger: logging.Logger) -> Callable[[tenacity.RetryCallState], None]:
    """Returns what tenacity calls before it waits: a wait above a minute is a warning."""
    quiet = tenacity.before_sleep_log(logger, logging.INFO)

    def log(state: tenacity.RetryCallState) -> None:
        seconds = state.next_action.sleep if state.next_action else 0.0
        if seconds <= _NOTED_SECONDS:
            quiet(state)
        elif state.outcome:
            logger.warning("%s; trying again in %.0f s", state.outcome.exception(), seconds)

    return log
