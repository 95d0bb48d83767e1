"""Parses command lines: absl flags for the launcher, dotted flags for the config."""

import os
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from bridge_jax import shown
from bridge_jax.errors import UserError


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns (arguments for absl, "a.b=value" assignments).

    `--config.budget.queries=200` and `--budget.queries=200` are the same; the value may also be
    the next argument. Fields of the config itself need the prefix: `--config.seed=1`.
    """
    ours, theirs = [], []
    arguments = iter(argv)
    for argument in arguments:
        name, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or "." not in name:
            theirs.append(argument)
            continue
        value = value if equals else next(arguments, "")
        ours.append(f"{name.removeprefix('config.')}={value}")
    return theirs, ours


def run_main(main: Callable[[list[str]], int | None], on_interrupt: str = "") -> None:
    """Runs an absl main that is given the config's assignments.

    A `UserError` is printed without a traceback and exits with 2; Ctrl-C exits with 130, and
    SIGTERM, once what was trained is saved, with 75, as does the loss of another process.
    """
    show_plainly()
    theirs, assignments = split(sys.argv)

    def guarded(_: list[str]) -> int | None:
        # These take a second: flags are read before.
        import jax

        from bridge_jax.parallel import preemption

        preemption.stop_at_notice()
        try:
            return main(assignments)
        except UserError as error:
            shown.complain(f"error: {error}")
            for note in getattr(error, "__notes__", ()):
                shown.complain(f"  {note}")
            if jax.distributed.is_initialized():  # At its exit JAX would wait for all the others.
                sys.stdout.flush()
                os._exit(2)
            return 2
        except preemption.Lost as error:
            shown.complain(str(error))
            sys.stdout.flush()
            os._exit(preemption.EXIT_CODE)  # As above.
        except (KeyboardInterrupt, preemption.Preempted) as error:
            shown.complain(f"\ninterrupted{'; ' + on_interrupt if on_interrupt else ''}")
            return 130 if isinstance(error, KeyboardInterrupt) else preemption.EXIT_CODE

    app.run(guarded, argv=theirs, flags_parser=_parse)


def show_plainly() -> None:
    """Escapes what would steer the terminal in log lines and tracebacks."""
    handler = logging.get_absl_handler().python_handler
    if not isinstance(handler.formatter, shown.PlainFormatter):
        handler.setFormatter(shown.PlainFormatter(handler.formatter))
    sys.excepthook = shown.print_traceback


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        shown.complain(f"error: {error}\nSee --help.")
        sys.exit(2)
