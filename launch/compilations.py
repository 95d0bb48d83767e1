"""Keeps compiled programs in the workdir, for a restart and for the next run of a study."""

import socket
from pathlib import Path


def keep(workdir: Path) -> None:
    """Keeps compiled programs under `workdir/compilations/<host>`, unless JAX has a place already.

    Each host has a folder of its own, since a program for a CPU uses the instructions of that CPU.
    """
    import jax

    if not jax.config.values["jax_compilation_cache_dir"]:
        folder = workdir / "compilations" / socket.gethostname()
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
