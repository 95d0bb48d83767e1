"""Runs the stages of methods on one device: their results do not depend on the number.

Programs for one device are compiled in half the time of those for eight. Runs on several are in
tests/launch, and every step on each shape of mesh in tests/parallel.
"""

import pytest

from tests.launch import tiny_run


@pytest.fixture(scope="module", autouse=True)
def one_device_alone(request):
    """Hides all devices but the first, unless the module says `ALL_DEVICES = True`."""
    if getattr(request.module, "ALL_DEVICES", False):
        yield
        return
    with tiny_run.one_device():
        yield
