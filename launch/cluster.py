"""Joins the processes of a run on several hosts, before anything else touches JAX.

TPU pods on GKE, multislice, Slurm and Open MPI are told from the environment; on TPU VMs pass
`--multihost`; elsewhere `--coordinator`, `--num_processes` and `--process_id`.
"""

import os
from collections.abc import Mapping

from absl import flags

from bridge_jax.errors import UserError

_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0.")
_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes the run has.")
_PROCESS = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
_MULTIHOST = flags.DEFINE_bool("multihost", False, "Let JAX find the hosts (TPU VMs).")
_JOIN = flags.DEFINE_integer("join_timeout", 300, "Seconds to wait for the others at the start.")
_LOST = flags.DEFINE_integer("lost_timeout", 100, "Seconds without a sign of life until the end.")


def join() -> None:
    """Starts `jax.distributed` if this is one process of several.

    Raises:
      UserError: the flags are incomplete, or a process did not come in time.
    """
    explicit = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    if any(value is not None for value in explicit):
        if None in explicit:
            raise UserError("--coordinator, --num_processes, --process_id: pass all three")
    elif not (_MULTIHOST.value or is_one_of_several(os.environ)):
        return
    import jax

    from bridge_jax.parallel import preemption

    try:
        jax.distributed.initialize(
            *explicit,
            initialization_timeout=_JOIN.value,
            heartbeat_timeout_seconds=_LOST.value,
        )
        preemption.stop_at_notice()
    except (RuntimeError, ValueError) as error:
        who = "" if _PROCESS.value is None else f"process {_PROCESS.value} of {_PROCESSES.value}: "
        raise UserError(
            f"{who}the processes did not all join within --join_timeout={_JOIN.value} s: "
            f"{str(error).splitlines()[0]}; see that each of them is started and reaches the "
            "coordinator's port"
        ) from error


def is_one_of_several(environment: Mapping[str, str]) -> bool:
    """Returns whether a scheduler has started several processes of this run."""
    tasks = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("OMPI_COMM_WORLD_SIZE")
    workers = environment.get("TPU_WORKER_HOSTNAMES", "").count(",") + 1
    slices = environment.get("MEGASCALE_NUM_SLICES", "1")
    return int(tasks or 1) > 1 or workers > 1 or int(slices) > 1
