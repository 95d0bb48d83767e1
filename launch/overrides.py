"""Parses command lines: absl flags for the launcher, dotted flags for the config."""

import functools
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

import bridge_jax
from bridge_jax import display
from bridge_jax.errors import EXIT_CODE, Lost, Preempted, UserError
from bridge_jax.revision import revision

_HELP = re.compile(r"--?(?:help|helpfull|helpshort|h|\?)(?:=(.*))?")


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns (arguments for absl, "a.b=value" assignments).

    `--config.budget.queries=200` and `--budget.queries=200` are the same; the value may also be the
    next argument. Fields of the config itself need the prefix: `--config.seed=1`.
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


def run_main(
    main: Callable[[list[str]], int | None], on_interrupt: str = "", takes_config: bool = True
) -> None:
    """Runs an absl main function and passes it the config's assignments.

    A `UserError` is printed without a traceback and exits with 2. Ctrl-C exits with 130. SIGTERM,
    once the training state is saved, exits with 75, and so does the loss of another process.
    `--help` and `--version` exit with 0. Nothing here imports JAX, so that all of them and a
    mistyped flag are answered at once.

    Args:
      main: returns the exit code; None is 0.
      on_interrupt: what the user can do after an interrupt.
      takes_config: whether config fields are flags, for `--help`.
    """
    show_plainly()
    # Flag files may contain config fields too.
    argv = [sys.argv[0], *_answered(lambda: flags.FLAGS.read_flags_from_files(sys.argv[1:], False))]
    theirs, assignments = split(argv)
    for argument in theirs[1:]:
        if wanted := _HELP.fullmatch(argument):
            group = wanted[1] or ""
            print(_answered(functools.partial(_help, main, group, takes_config)))
            sys.exit(0)
        if argument == "--version":
            print(version())
            sys.exit(0)

    def guarded(rest: list[str]) -> int | None:
        signal.signal(signal.SIGTERM, _stop)  # Until `parallel.preemption` takes over.
        try:
            if rest[1:]:
                raise UserError(f"unexpected argument {rest[1]!r}: flags are --NAME=VALUE")
            return main(assignments)
        except UserError as error:
            _complain(error)
            if _is_joined():  # A normal exit would make JAX wait for all other processes.
                sys.stdout.flush()
                os._exit(2)
            return 2
        except Lost as error:
            display.print_error(str(error))
            sys.stdout.flush()
            os._exit(EXIT_CODE)  # As above.
        except (KeyboardInterrupt, Preempted) as error:
            display.print_error(f"\ninterrupted{'; ' + on_interrupt if on_interrupt else ''}")
            return 130 if isinstance(error, KeyboardInterrupt) else EXIT_CODE

    app.run(guarded, argv=theirs, flags_parser=lambda argv: _answered(lambda: flags.FLAGS(argv)))


def version() -> str:
    """Returns the version of the package, with the revision if this is a checkout."""
    found = revision()
    return f"bridge-jax {bridge_jax.__version__}" + (f" ({found})" if found else "")


def show_plainly() -> None:
    """Escapes control characters in log lines and tracebacks."""
    handler = logging.get_absl_handler().python_handler
    if not isinstance(handler.formatter, display.PlainFormatter):
        handler.setFormatter(display.PlainFormatter(handler.formatter))
    sys.excepthook = display.print_traceback


def _help(main: Callable[..., Any], wanted: str, takes_config: bool) -> str:
    from launch import help

    if not wanted:
        return help.command(sys.modules[main.__module__], takes_config)
    if not takes_config:
        raise UserError(f"--help={wanted}: this command takes no config; see --help")
    return help.config(wanted)


def _answered(answer: Callable[[], Any]) -> Any:
    """Returns the answer, or ends the process with 2 if the flags are wrong."""
    try:
        return answer()
    except flags.Error as error:
        display.print_error(f"error: {error}\nSee --help.")
    except UserError as error:
        _complain(error)
    sys.exit(2)


def _complain(error: UserError) -> None:
    display.print_error(f"error: {error}")
    for note in getattr(error, "__notes__", ()):
        display.print_error(f"  {note}")


def _is_joined() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _stop(number: int, frame: Any) -> None:
    raise Preempted
