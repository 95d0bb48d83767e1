"""Orbax checkpoints: the parameters between stages, and the whole state within one.

Not compressed: trained numbers shrink by less than a tenth, and that takes time.
"""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from bridge_jax.errors import UserError


def save_params(path: Path, params: Any) -> None:
    """Writes the parameters of a finished stage."""
    with ocp.PyTreeCheckpointer(use_compression=False) as checkpointer:
        checkpointer.save(path.absolute(), params)


def load_params(path: Path, like: Any) -> Any:
    """Returns the parameters at `path` with the shapes, dtypes and shardings of `like`.

    Raises:
      UserError: the checkpoint is missing or damaged.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no checkpoint here; run the stage that writes it")
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            return checkpointer.restore(path.absolute(), args=_restoring(like))
    except Exception as error:  # Orbax and TensorStore raise many kinds.
        raise UserError(
            f"{path}: the checkpoint is damaged ({type(error).__name__}: {str(error)[:200]}); "
            f"delete the stage's folder {path.parent} and run the same command again"
        ) from error


class StateCheckpoints:
    """The training state of a running stage: saved in the background, the newest one kept."""

    def __init__(self, folder: Path, every: int):
        self.folder = folder
        self.manager = ocp.CheckpointManager(
            folder.absolute(),
            handler_registry=ocp.handlers.create_default_handler_registry(
                default=ocp.PyTreeCheckpointHandler(use_compression=False)
            ),
            options=ocp.CheckpointManagerOptions(
                # `save_interval_steps` would also save the first step, which is hardly worth it.
                save_decision_policy=ocp.checkpoint_managers.FixedIntervalPolicy(every),
                max_to_keep=1,
            ),
        )

    def restore(self, state: Any) -> Any:
        """Returns the newest state that can be read, or `state` when there is none."""
        step = self.manager.latest_step()
        if step is None:
            return state
        try:
            return self.manager.restore(step, args=_restoring(state))
        except Exception as error:
            raise UserError(
                f"{self.folder}/{step}: the checkpoint is damaged ({type(error).__name__}: "
                f"{str(error)[:200]}); delete {self.folder} to begin this stage again"
            ) from error

    def is_due(self, step: int) -> bool:
        """Returns whether the state after `step` steps is one of those that are saved."""
        return self.manager.should_save(step)

    def save(self, step: int, state: Any) -> None:
        """Saves `state`, in the background."""
        self.manager.save(step, args=ocp.args.PyTreeSave(state), force=True)

    def close(self) -> None:
        """Waits for the writer."""
        self.manager.wait_until_finished()
        self.manager.close()


def _restoring(like: Any) -> ocp.args.PyTreeRestore:
    """Returns what asks for arrays of the shapes, dtypes and shardings of `like`."""
    like = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    return ocp.args.PyTreeRestore(like, ocp.checkpoint_utils.construct_restore_args(like))
