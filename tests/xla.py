"""How the tests have XLA compile."""


def flags(count: int) -> str:
    """Returns XLA_FLAGS for `count` CPU devices and for programs that are small and run once.

    XLA's own passes are the usual ones. LLVM does not optimise: 16 to 30% less processor time.
    Fusions are emitted to LLVM itself and not through MLIR: up to half the time again. Code is
    made in one piece: pieces are for several threads, and cost 3 to 10% more in all.
    """
    return (
        f"--xla_force_host_platform_device_count={count} --xla_backend_optimization_level=0"
        " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    )
