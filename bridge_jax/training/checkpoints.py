"""Orbax checkpoints: the parameters between stages, and the whole training state within a stage.

They are not compressed: that takes time and shrinks trained parameters by less than a tenth.
"""

import contextlib
import functools
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from bridge_jax.errors import UserError

STATE = "state"  # The folder of the training states, beside the folder of the parameters.
_HALF = ".orbax-checkpoint-tmp*"  # Orbax's suffix for unfinished folders.
# TensorStore raises a ValueError whose text contains the errno.
_OS_ERROR = re.compile(r"\[os_error_code='(\d+)'\]")


def save_params(path: Path, params: Any) -> None:
    """Writes the parameters of a finished stage, atomically.

    Raises:
      UserError: the disk is full or fails.
    """
    with (
        _disk_errors(path, "the parameters", path.with_name(STATE)),
        ocp.PyTreeCheckpointer(use_compression=False) as checkpointer,
    ):
        checkpointer.save(path.absolute(), params)


def load_params(path: Path, like: Any) -> Any:
    """Returns the parameters at `path` with the shapes, dtypes and shardings of `like`.

    Raises:
      UserError: the checkpoint is missing or damaged.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no checkpoint here; run the stage that writes it")
    hint = f"delete the stage's folder {path.parent} and run the same command again"
    with _damage(path, hint), ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(path.absolute(), args=_restoring(like))


class StateCheckpoints:
    """Checkpoints of a running stage: the training state and the position in the data.

    They are written in the background. Only the newest is kept.
    """

    def __init__(self, folder: Path, every: int):
        self.folder = folder
        self.manager = ocp.CheckpointManager(
            folder.absolute(),
            item_handlers={
                "state": ocp.PyTreeCheckpointHandler(use_compression=False),
                "position": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                # `save_interval_steps` would also save the first step, which is hardly worth it.
                save_decision_policy=ocp.checkpoint_managers.FixedIntervalPolicy(every),
                max_to_keep=1,
            ),
        )

    def restore(self, state: Any) -> tuple[Any, Any]:
        """Returns the newest state and position, or `state` and None if there is no checkpoint.

        Raises:
          UserError: the checkpoint is damaged.
        """
        step = self.manager.latest_step()
        if step is None:
            return state, None
        args = ocp.args.Composite(state=_restoring(state), position=ocp.args.JsonRestore())
        with _damage(self.folder / str(step), f"delete {self.folder} to restart this stage"):
            found = self.manager.restore(step, args=args)
            return found["state"], found["position"]

    def is_due(self, step: int) -> bool:
        """Returns whether a checkpoint is due after `step` steps."""
        return self.manager.should_save(step)

    def save(self, step: int, state: Any, position: Any) -> None:
        """Saves the state after `step` steps and the position in the data (JSON values).

        Raises:
          UserError: the disk is full or fails, or the previous state could not be saved.
        """
        with self._disk_errors():
            args = ocp.args.Composite(
                state=ocp.args.PyTreeSave(state), position=ocp.args.JsonSave(position)
            )
            self.manager.save(step, args=args, force=True)

    def close(self, needed: bool = True) -> None:
        """Waits for pending writes, and closes the checkpoint manager.

        Args:
          needed: whether to raise a `UserError` if the last state could not be saved.
        """
        try:
            with self._disk_errors():
                self.manager.wait_until_finished()
        except UserError:
            if needed:
                raise
        finally:
            with contextlib.suppress(Exception):  # It raises the same error as the wait.
                self.manager.close()

    def _disk_errors(self) -> contextlib.AbstractContextManager[None]:
        return _disk_errors(self.folder, "the training state", self.folder)


@contextlib.contextmanager
def _damage(path: Path, hint: str) -> Iterator[None]:
    """Turns an error while reading the checkpoint at `path` into a `UserError`."""
    _say_errors_once()
    try:
        yield
    except Exception as error:  # Orbax and TensorStore raise many kinds.
        raise UserError(
            f"{path}: the checkpoint is damaged ({type(error).__name__}: {str(error)[:200]}); "
            f"{hint}"
        ) from error


@contextlib.contextmanager
def _disk_errors(path: Path, what: str, states: Path) -> Iterator[None]:
    """Turns a disk error into a `UserError`, and removes half-written folders at `path`."""
    _say_errors_once()
    try:
        yield
    except Exception as error:
        number = _os_error(error)
        if number is None:
            raise
        for half in (*path.parent.glob(f"{path.name}{_HALF}"), *path.glob(f"*{_HALF}")):
            shutil.rmtree(half, ignore_errors=True)
        steps = [int(folder.name) for folder in states.glob("*") if folder.name.isdigit()]
        goes_on = f"it resumes after step {max(steps)}" if steps else "it restarts this stage"
        raise UserError(
            f"{path}: {os.strerror(number)}: {what} could not be saved. Free some space or fix "
            f"the disk, then run the same command again: {goes_on}"
        ) from error


def _os_error(error: BaseException | None) -> int | None:
    """Returns the errno of an operating system error, or None for any other error."""
    # Orbax passes on the ValueError that TensorStore raises.
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        if found := _OS_ERROR.search(str(error)):
            return int(found[1])
        error = error.__cause__
    return None


@functools.cache  # Once per process: Orbax's threads still run after the error was raised here.
def _say_errors_once() -> None:
    """Stops Orbax and TensorStore from printing tracebacks of errors that are raised here too."""

    def is_of_orbax(file: str) -> bool:
        return f"{os.sep}orbax{os.sep}" in file

    def is_news(record: logging.LogRecord) -> bool:
        return not (record.exc_info and is_of_orbax(record.pathname))

    logging.getLogger("absl").addFilter(is_news)
    show = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        # Reads and writes that end after another one has failed.
        code = getattr(unraisable.object, "cr_code", None)
        is_late = code is not None and is_of_orbax(code.co_filename)
        if not is_late and str(unraisable.exc_value) != "Event loop is closed":
            show(unraisable)

    sys.unraisablehook = hook


def _restoring(like: Any) -> ocp.args.PyTreeRestore:
    """Returns the arguments to restore arrays with the shapes, dtypes and shardings of `like`."""
    like = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    return ocp.args.PyTreeRestore(like, ocp.checkpoint_utils.construct_restore_args(like))
