"""Several processes as one run: what only the first does, and where they meet.

Every process runs the same stages over its own devices. The first one alone writes rows and
reports and calls the teacher; all of them see the workdir, which lies on a shared disk.
"""

import itertools
import json
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

_LONGEST = 7 * 24 * 3600  # Seconds until a wait for the others is given up.
_meetings = itertools.count()  # No name is met at twice.


def is_first() -> bool:
    """Returns whether this process is the one that writes."""
    return jax.process_index() == 0


def meet(name: str) -> None:
    """Waits until every process is here, so that what was written before can be read.

    It waits on the host: while the first one asks the teacher, which may take a day, no chip of
    the others is in a computation that could time out. A lost process still ends the wait.
    """
    everyone = set(range(jax.process_count()))
    ocp.multihost.sync_global_processes(
        f"{name} {next(_meetings)}", timeout=_LONGEST, processes=everyone
    )


def agree(value: Any) -> Any:
    """Returns the first process's `value` (JSON) on all of them."""
    if jax.process_count() == 1:
        return value
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = np.zeros(size, np.uint8)
    padded[: len(data)] = data[:size]
    return json.loads(multihost_utils.broadcast_one_to_all(padded).tobytes())


def fetch(tree: Any) -> Any:
    """Returns arrays of a mesh, whole, as NumPy's on every process."""
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(np.asarray, tree)


def gather(value: Any) -> list[Any]:
    """Returns the `value` (JSON) of every process, in their order, on all of them."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.int32(len(data)))).reshape(-1)
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(data)] = data
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(sizes), -1)
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes)]
