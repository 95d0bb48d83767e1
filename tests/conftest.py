"""Eight simulated CPU devices, and a tiny checkpoint that is written once."""

import gc
import os
import signal
from pathlib import Path

from tests import xla

# Before anything imports jax, which reads them once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", xla.flags(8))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tests build the same programs again and again; XLA compiles each once.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "compilations")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")

import pytest

# A shell tells what it starts in the background to ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Tracing makes many small objects that live on, and what is imported is never garbage.
gc.set_threshold(50_000, 20, 50)


def pytest_collection_finish():
    """Leaves what was imported and collected out of later garbage collections."""
    gc.collect()
    gc.freeze()


# The files that take longest begin, so that two workers end together.
LONG_FIRST = (
    "test_readme.py",
    "test_notebook.py",
    "launch",
    "parallel",
    "benchmarks",
    "models",
    "methods",
    "training",
    "generation",
    "teachers",
    "selection",
    "ledger",
    "test_library.py",
    "config",
)


def pytest_collection_modifyitems(items):
    """Puts the folders and files of `LONG_FIRST` first, and leaves the order within them."""
    here = Path(__file__).parent

    def rank(item):
        first = item.path.relative_to(here).parts[0]
        return LONG_FIRST.index(first) if first in LONG_FIRST else len(LONG_FIRST)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A tiny Llama with a tokenizer, as a folder of safetensors. Read only."""
    from tests import tiny

    return tiny.write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def tiny_tokenizer(checkpoint):
    """The tokenizer of `checkpoint`."""
    from bridge_jax.text import tokenizer

    return tokenizer.load(checkpoint)


@pytest.fixture(scope="session")
def tiny_model(checkpoint):
    """The config and parameters (numpy) of `checkpoint`."""
    from bridge_jax.config import ModelConfig
    from bridge_jax.models.hub import checkpoint as checkpoints

    return checkpoints.load(ModelConfig(str(checkpoint)))


@pytest.fixture(scope="session")
def one_device():
    """A mesh of one device."""
    import jax

    from bridge_jax.parallel.sharding import make_mesh

    return make_mesh(devices=jax.devices()[:1])
