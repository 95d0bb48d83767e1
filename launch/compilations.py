"""What XLA compiled is kept in the workdir: a restart, and the next run of a study, read it."""

import socket
from pathlib import Path


def keep(workdir: Path) -> None:
    """Keeps compiled programs under `workdir/compilations/<host>`, unless JAX has a place already.

    Hosts have one each: a program for a CPU is for the very instructions that it has.
    """
    import jax

    if not jax.config.values["jax_compilation_cache_dir"]:
        folder = workdir / "compilations" / socket.gethostname()
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
