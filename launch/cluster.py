"""Prepares JAX for a run: joins the processes of several hosts, and caches compiled programs.

TPU pods on GKE, multislice, Slurm and Open MPI are detected from the environment. On TPU VMs pass
`--multihost`; elsewhere pass `--coordinator`, `--num_processes` and `--process_id`.
"""

import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from absl import flags

from bridge_jax import display
from bridge_jax.errors import Lost, UserError

_COORDINATOR = flags.DEFINE_string("coordinator", None, "Address of process 0, HOST:PORT.")
_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes of the run.")
_PROCESS = flags.DEFINE_integer("process_id", None, "Index of this process, from 0.")
_MULTIHOST = flags.DEFINE_bool("multihost", False, "Let JAX find the hosts (TPU VMs).")
_LOST_PEER = re.compile(r"gloo|peer|another task|heartbeat|connection (reset|closed)", re.I)
_JOIN = flags.DEFINE_integer("join_timeout", 300, "Seconds to wait for the other processes.")
_LOST = flags.DEFINE_integer("lost_timeout", 100, "Seconds without a heartbeat before giving up.")


def join() -> None:
    """Prepares JAX's memory, and starts `jax.distributed` if this is one of several processes.

    Raises:
      UserError: the flags are incomplete, or the processes could not join.
    """
    from bridge_jax.parallel import chips, preemption

    chips.keep_freed_memory()
    preemption.stop_at_notice()
    explicit = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    if any(value is not None for value in explicit):
        if None in explicit:
            raise UserError("--coordinator, --num_processes, --process_id: pass all three")
    elif not (_MULTIHOST.value or is_one_of_several(os.environ)):
        return
    import jax

    who = "" if _PROCESS.value is None else f"process {_PROCESS.value} of {_PROCESSES.value}: "

    def give_up() -> None:
        display.print_error(
            f"error: {who}the processes did not all join within --join_timeout={_JOIN.value} s; "
            "check that each of them is started with the same --coordinator and --num_processes, "
            "and can reach the coordinator's port"
        )
        os._exit(2)  # JAX waits in native code and would print a stack trace.

    timer = threading.Timer(_JOIN.value, give_up)
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            *explicit,
            initialization_timeout=_JOIN.value + 60,
            heartbeat_timeout_seconds=_LOST.value + 60,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{who}the processes could not join: {str(error).splitlines()[0]}"
        ) from error
    finally:
        timer.cancel()
    preemption.stop_at_notice()


@contextlib.contextmanager
def together(workdir: Path) -> Iterator[None]:
    """Runs the block as one of several processes, which all end if one of them is lost."""
    import jax

    from bridge_jax.parallel import hosts

    with hosts.together(workdir / "hosts", _LOST.value):
        try:
            yield
        # With one device per process, a collective runs synchronously and raises a ValueError.
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            if jax.process_count() == 1 or not _LOST_PEER.search(str(error)):
                raise
            raise Lost(
                f"another process of the run was lost: {str(error).splitlines()[0][:200]}. Run the "
                "same command again on all hosts to resume"
            ) from error


def is_one_of_several(environment: Mapping[str, str]) -> bool:
    """Returns whether a scheduler has started several processes of this run."""
    tasks = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("OMPI_COMM_WORLD_SIZE")
    workers = environment.get("TPU_WORKER_HOSTNAMES", "").count(",") + 1
    slices = environment.get("MEGASCALE_NUM_SLICES", "1")
    return int(tasks or 1) > 1 or workers > 1 or int(slices) > 1


def keep_compilations(workdir: Path) -> None:
    """Caches compiled programs in `workdir/compilations/<host>`, unless JAX has a cache already.

    A restart, and the next run of a study, read them. Each host has its own folder, since a program
    for a CPU uses exactly the instructions that this CPU has.
    """
    import jax

    if not jax.config.values["jax_compilation_cache_dir"]:
        folder = workdir / "compilations" / socket.gethostname()
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
