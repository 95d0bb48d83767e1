"""How the tests have XLA compile."""


def flags(count: int) -> str:
    """Returns XLA_FLAGS for `count` CPU devices and for programs that are small and run once.

    XLA's own passes are the usual ones. LLVM does not optimise: 16 to 30% less processor time.
    """
    return f"--xla_force_host_platform_device_count={count} --xla_backend_optimization_level=0"
