"""Records what made a result: the revision of this code, the versions of libraries, the machine.

It is in no key, so a change of it reruns nothing. It names no host, user or folder.
"""

import functools
import os
import platform
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax

from bridge_jax import caches
from bridge_jax.revision import revision

LIBRARIES = ("bridge-jax", "jax", "jaxlib", "flax", "optax", "transformers", "tokenizers", "numpy")
FIELD = "made_with"  # A field of config.json besides those of the config.


def made_with() -> dict[str, str]:
    """Returns the versions and the hardware of this process.

    Returns:
      library -> version, for installed libraries; `python`; `revision`, if this project is a
      checkout: its commit, and whether files differ from it; `machine`: the processor and the
      number of cores; `backend` and `devices` of JAX.
    """
    versions = zip(LIBRARIES, caches.versions_of(*LIBRARIES))
    found = {name: version for name, version in versions if version}
    found["python"] = platform.python_version()
    if commit := revision():
        found["revision"] = commit
    found["machine"] = f"{_processor()}, {os.cpu_count()} cores"
    devices = f"{jax.device_count()} {jax.devices()[0].device_kind}"
    return found | {"backend": jax.default_backend(), "devices": devices}


def merged(each: Iterable[Mapping[str, str | list[str]]]) -> dict[str, list[str]]:
    """Returns each name with its distinct values, in order of first appearance."""
    found: dict[str, list[str]] = {}
    for one in each:
        for name, values in one.items():
            for value in [values] if isinstance(values, str) else values:
                if value not in found.setdefault(name, []):
                    found[name].append(value)
    return found


@functools.cache
def _processor() -> str:
    """Returns the processor's name, or its architecture if the system does not name it."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        told = ""
    name = re.search(r"^model name\s*:\s*(\S.*)$", told, re.MULTILINE)
    return name.group(1).strip() if name else platform.processor() or platform.machine()
