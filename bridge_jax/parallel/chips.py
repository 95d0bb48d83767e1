"""Speed and memory of the accelerators: their makers' figures, for one device of JAX."""

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import math
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bridge_jax.errors import UserError

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # Of malloc.h.
GIB = 2**30


class Chip(NamedTuple):
    """Describes one device of JAX: a chip, or one of the two halves of a TPU7x chip.

    Attributes:
      memory: bytes that a program may use; of a TPU as XLA counts them, 0.25 to 1.25 GiB less
        than the device has.
      flops: bf16 matrix FLOP a second (f32 on a CPU).
      bandwidth: bytes a second from its memory.
      interconnect: bytes a second to the other devices, over all links.
      devices: how many a chip has; what is billed is chips.
    """

    memory: float
    flops: float
    bandwidth: float
    interconnect: float
    devices: int = 1


# By the name in a topology, and by what `device_kind` begins with.
CHIPS = {
    "v4": Chip(30.75 * GIB, 275e12, 1.23e12, 300e9),
    "v5e": Chip(15.75 * GIB, 197e12, 0.82e12, 200e9),
    "v5p": Chip(95.74 * GIB, 459e12, 2.77e12, 600e9),
    "v6e": Chip(31.25 * GIB, 918e12, 1.64e12, 448e9),
    # The links between chips are shared by both halves, which have a faster one between them.
    "tpu7x": Chip(94.75 * GIB, 2307e12 / 2, 7.38e12 / 2, 600e9 / 2, devices=2),
    "NVIDIA A100": Chip(80 * GIB, 312e12, 2.04e12, 300e9),
    "NVIDIA H100": Chip(80 * GIB, 989e12, 3.35e12, 450e9),
    "NVIDIA H200": Chip(141e9, 989e12, 4.8e12, 450e9),
    "NVIDIA B200": Chip(180e9, 2250e12, 8.0e12, 900e9),
}
# Settings of libtpu where no TPU is there: no lock, no log on the screen or in a folder, and no
# question to the metadata of a machine on Google Cloud.
_WITHOUT_TPU = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_LOG_DIR": "disabled",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}
# One device a chip, as JAX has them; by default libtpu describes the two cores of a v4 each.
_CHIP_CONFIG = {"v4": {"chip_config_name": "megacore"}}
_KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v6": "v6e",
    "TPU7x": "tpu7x",
}


def topology(name: str) -> tuple[list[Any], Chip]:
    """Returns the devices of a TPU topology that need not be there.

    Args:
      name: such as "v5e:4x4", "2*v5e:4x4" for two slices, or "tpu7x:2x2x1", whose sizes count
        chips, of two devices each.

    Raises:
      UserError: libtpu is missing, or it has no such topology.
    """
    from jax.experimental import topologies

    slices, _, of_slice = name.rpartition("*")
    kind = of_slice.partition(":")[0]
    if kind not in CHIPS or kind.startswith("NVIDIA"):
        known = ", ".join(chip for chip in CHIPS if not chip.startswith("NVIDIA"))
        raise UserError(f"--topology={name}: a TPU as in v5e:4x4; known are {known}")
    for setting, value in _WITHOUT_TPU.items():
        os.environ.setdefault(setting, value)
    more: dict[str, Any] = dict(_CHIP_CONFIG.get(kind, {}))
    try:
        if slices:
            more["num_slices"] = int(slices)
        described = topologies.get_topology_desc(of_slice, platform="tpu", **more)
        return described.devices, CHIPS[kind]
    except Exception as error:  # The plugin raises many kinds.
        raise UserError(
            f"--topology={name}: {str(error).splitlines()[0][:200]}; compiling for a TPU needs "
            "pip install 'bridge-jax[libtpu]', and a topology that exists, such as v5e:4x4"
        ) from error


def local(device: Any) -> Chip:
    """Returns the figures of a device here; a CPU is measured, for half a second.

    Raises:
      UserError: its kind is not in `CHIPS`.
    """
    if device.platform == "cpu":
        share = jax.local_device_count()
        flops, bandwidth = _measure()
        return Chip(memory(device), flops / share, bandwidth / share, bandwidth / share)
    if chip := _of_kind(device.device_kind):
        return chip._replace(memory=memory(device))
    raise UserError(
        f"device {device.device_kind!r} is not known to bridge_jax.parallel.chips; add its figures"
    )


def memory(device: Any) -> float:
    """Returns the bytes of memory of a device; infinity if they are not known.

    The device may be that of another host: the first one of its kind here answers for it, so all
    hosts are told the same. Those of a CPU share its memory.
    """
    if device.platform == "cpu":
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return total / jax.local_device_count()
    for asked in (device, *jax.local_devices()):
        if asked.device_kind != device.device_kind:
            continue
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # It is not here.
            if limit := (asked.memory_stats() or {}).get("bytes_limit"):  # Of an A100 40 or 80 GB.
                return limit
    chip = _of_kind(device.device_kind)
    return chip.memory if chip else math.inf


def _of_kind(kind: str) -> Chip | None:
    for start, name in (_KINDS | {name: name for name in CHIPS}).items():
        if kind.startswith(start):
            return CHIPS[name]
    return None


def peak_flops(devices: Sequence[Any]) -> float | None:
    """Returns the FLOP/s of all devices together, None for CPUs and unknown ones."""
    if devices[0].platform == "cpu":
        return None
    try:
        return len(devices) * local(devices[0]).flops
    except UserError:
        return None


def _measure() -> tuple[float, float]:
    size = 1536
    square = jnp.ones((size, size), jnp.float32)
    long = jnp.ones(2**26, jnp.float32)
    multiply, copy = jax.jit(jnp.dot), jax.jit(lambda a: a + 1)

    def best(run, *inputs: jax.Array) -> float:
        times = []
        for _ in range(4):
            began = time.perf_counter()
            jax.block_until_ready(run(*inputs))
            times.append(time.perf_counter() - began)
        return min(times)

    return 2 * size**3 / best(multiply, square, square), 2 * long.nbytes / best(copy, long)


def keep_freed_memory() -> None:
    """Lets this process keep memory that it has freed, where it computes on a CPU with glibc.

    A step on a CPU allocates gigabytes and frees them. By default glibc gives them back to the
    kernel, which clears every page again for the next step, on one core. To be called before JAX
    has devices: what its threads allocate is kept only if they start after this.
    """
    if not _computes_on_cpu():
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        # All threads allocate from one heap, large arrays too, and it does not shrink.
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def _computes_on_cpu() -> bool:
    """Returns whether JAX will compute on the CPU, without starting it."""
    if platforms := jax.config.values["jax_platforms"]:
        return platforms.split(",")[0] == "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and importlib.util.find_spec("libtpu") is None
