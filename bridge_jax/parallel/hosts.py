"""Several processes as one run: what only the first does, and where they meet.

Every process runs the same stages over its own devices. The first one alone writes rows and
reports and calls the teacher; all of them see the workdir, which lies on a shared disk.
"""

import json
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def is_first() -> bool:
    """Returns whether this process is the one that writes."""
    return jax.process_index() == 0


def meet(name: str) -> None:
    """Waits until every process is here, so that what was written before can be read."""
    multihost_utils.sync_global_devices(name)


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
