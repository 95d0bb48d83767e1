"""Speed and memory of accelerators per JAX device, from the manufacturers' figures."""

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bridge_jax.errors import UserError

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # As in malloc.h.
GIB = 2**30


class Chip(NamedTuple):
    """Figures of one JAX device: a chip, or one of the two halves of a TPU7x chip.

    Attributes:
      memory: bytes that a program may use. For a TPU this is XLA's limit, which is 0.25 to 1.25
        GiB below the device's memory.
      flops: bf16 matrix FLOP per second.
      bandwidth: bytes per second from the device's memory.
      interconnect: bytes per second to other devices, over all links.
      devices: number of JAX devices per chip; billing is per chip.
      f32_flops: f32 matrix FLOP per second; 0 on accelerators, where models multiply in bf16.
    """

    memory: float
    flops: float
    bandwidth: float
    interconnect: float
    devices: int = 1
    f32_flops: float = 0.0

    def flops_in(self, dtype: Any) -> float:
        """Returns the matrix FLOP per second of products of `dtype`."""
        return self.f32_flops if self.f32_flops and dtype == jnp.float32 else self.flops


# Keys are topology names for TPUs, and prefixes of `device_kind` for GPUs.
CHIPS = {
    "v4": Chip(30.75 * GIB, 275e12, 1.23e12, 300e9),
    "v5e": Chip(15.75 * GIB, 197e12, 0.82e12, 200e9),
    "v5p": Chip(95.74 * GIB, 459e12, 2.77e12, 600e9),
    "v6e": Chip(31.25 * GIB, 918e12, 1.64e12, 448e9),
    # Both halves share the links to other chips; a faster link connects the two halves.
    "tpu7x": Chip(94.75 * GIB, 2307e12 / 2, 7.38e12 / 2, 600e9 / 2, devices=2),
    "NVIDIA A100": Chip(80 * GIB, 312e12, 2.04e12, 300e9),
    "NVIDIA H100": Chip(80 * GIB, 989e12, 3.35e12, 450e9),
    "NVIDIA H200": Chip(141e9, 989e12, 4.8e12, 450e9),
    "NVIDIA B200": Chip(180e9, 2250e12, 8.0e12, 900e9),
}
# libtpu settings for a machine without a TPU: no lock, no log to the screen or to a folder, and no
# query to Google Cloud's metadata server.
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
# One device per chip, as in JAX; by default libtpu lists the two cores of a v4 chip separately.
_CHIP_CONFIG = {"v4": {"chip_config_name": "megacore"}}
# Prefix of `device_kind` -> topology name.
_KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v6": "v6e",
    "TPU7x": "tpu7x",
}


def topology(name: str) -> tuple[list[Any], Chip]:
    """Returns the devices of a TPU topology and the figures of one; no hardware is needed.

    Args:
      name: such as "v5e:4x4", "2*v5e:4x4" for two slices, or "tpu7x:2x2x1", whose dimensions
        count chips with two devices each.

    Raises:
      UserError: the kind of TPU is unknown, libtpu is missing, or it has no such topology.
    """
    from jax.experimental import topologies

    slices, _, of_slice = name.rpartition("*")
    kind = of_slice.partition(":")[0]
    if kind not in CHIPS or kind.startswith("NVIDIA"):
        known = ", ".join(chip for chip in CHIPS if not chip.startswith("NVIDIA"))
        raise UserError(f"--topology={name}: expected a TPU such as v5e:4x4; known: {known}")
    for setting, value in _WITHOUT_TPU.items():
        os.environ.setdefault(setting, value)
    more: dict[str, Any] = dict(_CHIP_CONFIG.get(kind, {}))
    try:
        if slices:
            more["num_slices"] = int(slices)
        described = topologies.get_topology_desc(of_slice, platform="tpu", **more)
        return described.devices, CHIPS[kind]
    except Exception as error:  # The plugin raises errors of many types.
        raise UserError(
            f"--topology={name}: {str(error).splitlines()[0][:200]}; compiling for a TPU needs "
            "pip install 'bridge-jax[libtpu]', and a topology that exists, such as v5e:4x4"
        ) from error


def local(device: Any) -> Chip:
    """Returns the figures of a local device; a CPU is benchmarked, which takes a second.

    Raises:
      UserError: `CHIPS` has no entry for the device.
    """
    if device.platform == "cpu":
        share = jax.local_device_count()
        bf16, f32, bandwidth = (rate / share for rate in _measure())
        return Chip(memory(device), bf16, bandwidth, bandwidth, f32_flops=f32)
    if chip := _of_kind(device.device_kind):
        return chip._replace(memory=memory(device))
    raise UserError(
        f"device {device.device_kind!r} is unknown; add its specs to bridge_jax.parallel.chips"
    )


def memory(device: Any) -> float:
    """Returns the bytes of memory of a device; infinity if unknown.

    For a device of another host, the first local device of the same kind is asked, so that all
    hosts get the same number. CPU devices share the host's memory equally.
    """
    if device.platform == "cpu":
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return total / jax.local_device_count()
    for asked in (device, *jax.local_devices()):
        if asked.device_kind != device.device_kind:
            continue
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # It is a device of another host.
            if limit := (asked.memory_stats() or {}).get("bytes_limit"):  # An A100 has 40 or 80 GB.
                return limit
    chip = _of_kind(device.device_kind)
    return chip.memory if chip else math.inf


def _of_kind(kind: str) -> Chip | None:
    for start, name in (_KINDS | {name: name for name in CHIPS}).items():
        if kind.startswith(start):
            return CHIPS[name]
    return None


def peak_flops(devices: Sequence[Any]) -> float | None:
    """Returns the total peak FLOP/s of the devices; None for CPUs and unknown devices."""
    if devices[0].platform == "cpu":
        return None
    try:
        return len(devices) * local(devices[0]).flops
    except UserError:
        return None


def _measure() -> tuple[float, float, float]:
    """Returns bf16 and f32 matrix FLOP per second, and bytes per second."""
    size = 1536
    long = jnp.ones(2**26, jnp.float32)
    copy = jax.jit(lambda a: a + 1)
    multiply = jax.jit(lambda a: jnp.dot(a, a, preferred_element_type=jnp.float32))

    def best(run: Callable[[jax.Array], jax.Array], on: jax.Array) -> float:
        times = []
        for _ in range(4):
            began = time.perf_counter()
            jax.block_until_ready(run(on))
            times.append(time.perf_counter() - began)
        return min(times)

    squares = (jnp.ones((size, size), dtype) for dtype in (jnp.bfloat16, jnp.float32))
    bf16, f32 = (2 * size**3 / best(multiply, square) for square in squares)
    return bf16, f32, 2 * long.nbytes / best(copy, long)


def keep_freed_memory() -> None:
    """Makes glibc keep the memory that this process frees, if JAX computes on the CPU.

    A step on a CPU allocates and frees gigabytes. By default glibc returns them to the kernel,
    which clears every page again for the next step, on one core. Call this before JAX creates its
    devices: it affects only threads that start afterwards.
    """
    if not _computes_on_cpu():
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        # All threads allocate from one heap, including large arrays, and the heap never shrinks.
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def _computes_on_cpu() -> bool:
    """Returns whether JAX will compute on the CPU, without starting it."""
    if platforms := jax.config.values["jax_platforms"]:
        return platforms.split(",")[0] == "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and importlib.util.find_spec("libtpu") is None
