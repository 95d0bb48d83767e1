import os
import subprocess
import sys

import pytest

CODE = """
import ctypes, resource, sys

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: all pages are of 4 KiB.
import jax, jax.numpy as jnp
from bridge_jax.parallel.chips import keep_freed_memory

if "keep" in sys.argv:
    keep_freed_memory()

@jax.jit
def step(x):  # A temporary array of 128 MiB, 32,768 pages.
    return (x @ x.T) @ x

def cleared():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    jax.block_until_ready(step(jnp.ones((5800, 8))))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

for _ in range(4): cleared()
print(min(cleared() for _ in range(4)))
"""


def pages(*arguments):
    """Returns the fewest pages that the kernel clears for a step after four equal ones."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        env={name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
        | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_memory_that_a_step_has_freed_is_not_cleared_for_the_next():
    if not sys.platform.startswith("linux"):
        pytest.skip("glibc is of Linux")
    assert pages("keep") < pages() // 10
