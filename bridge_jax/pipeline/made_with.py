"""Records the library versions, backend and devices behind a result; they are in no key."""

import importlib.metadata
from typing import Any

import jax

_LIBRARIES = ("bridge-jax", "jax", "jaxlib", "flax", "optax", "transformers", "tokenizers", "numpy")


def describe() -> dict[str, Any]:
    """Returns {"made_with": library or "backend" or "devices" -> what it was}."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # Run from a folder, not installed.
            continue
    kind = jax.devices()[0].device_kind
    devices = f"{jax.device_count()} {kind}"
    return {"made_with": {**versions, "backend": jax.default_backend(), "devices": devices}}
