import subprocess
import sys

import pytest

CODE = """
import ctypes, resource
import numpy as np
from bridge_jax.parallel.chips import keep_freed_memory

def cleared():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(16 << 20, np.float32)  # 64 MiB, 16,384 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

cleared()
usual = cleared()
keep_freed_memory()
cleared()
print(usual, cleared())
"""


def test_memory_that_was_freed_is_not_cleared_again():
    if not sys.platform.startswith("linux"):
        pytest.skip("glibc is of Linux")
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    usual, kept = map(int, done.stdout.split())
    # Pages may be huge: then there are few.
    assert kept < max(10, usual // 10)
