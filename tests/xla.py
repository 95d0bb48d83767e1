"""How the tests have XLA compile."""

from importlib import metadata


def flags(count: int) -> str:
    """Returns XLA_FLAGS for `count` CPU devices and for programs that are small and run once.

    XLA's own passes are the usual ones. LLVM does not optimise: 16 to 30% less processor time.
    Fusions are emitted to LLVM itself and not through MLIR: up to half the time again. From
    jaxlib 0.11 on XLA lacks that choice, and ends a process with a flag that it does not know.
    Code is made in one piece: pieces are for several threads, and cost 3 to 10% more in all.
    """
    found = (
        f"--xla_force_host_platform_device_count={count} --xla_backend_optimization_level=0"
        " --xla_cpu_parallel_codegen_split_count=1"
    )
    major, minor = metadata.version("jaxlib").split(".")[:2]
    if (int(major), int(minor)) < (0, 11):
        found += " --xla_cpu_use_fusion_emitters=false"
    return found
