"""Defines what every benchmark prints: the form of its result and its command line."""

import argparse
import json
import os
import platform
import resource
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Say = Callable[[str], None]
# Transformers' default attention on a CPU, and the ratios that a case beside transformers has.
BASE = "sdpa f32"
BASE_RATIO, BEST_RATIO = f"{BASE} / ours", "best torch / ours"
ON_GPU = {"1B", "1B-1", "1B-64"}  # Cases that are measured on a GPU, and no others there.


def spread(values: Sequence[float], digits: int = 2) -> dict[str, float]:
    """Returns median, lowest and highest."""
    found = (statistics.median(values), min(values), max(values))
    return dict(zip(("median", "low", "high"), (round(value, digits) for value in found)))


def result(
    name: str,
    ratios: dict[str, Any],
    absolute: dict[str, Any],
    devices: str = "",
    peak: dict[str, Any] | None = None,
    on_gpu: bool = False,
) -> dict[str, Any]:
    """Returns the result of a benchmark, with the machine and the memory that it took."""
    machine = f"{_processor()}, {os.cpu_count()} CPUs"
    return {
        "name": name,
        "on_gpu": on_gpu,
        "machine": f"{machine}, {devices}" if devices else machine,
        "ratios": ratios,
        "absolute": absolute,
        "peak": {"rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
        | (peak or {}),
    }


def _processor() -> str:
    """Returns the name of the processor: Linux tells it in a file alone."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def run(about: str, measure: Callable[[argparse.Namespace, Say], dict], **defaults: Any) -> None:
    """Measures and prints.

    Args:
      about: the benchmark's docstring.
      measure: from the options, and from what tells how far it is, to the result.
      **defaults: of its options; None is a text that may be left out, False a switch.
    """
    parser = argparse.ArgumentParser(description=about.split("\n")[0])
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object; progress goes to stderr"
    )
    for name, default in defaults.items():
        kind = str if default is None else type(default)
        how: Any = {"action": "store_true"} if kind is bool else {"type": kind, "default": default}
        parser.add_argument(f"--{name}", help=f"default: {default}", **how)
    options = parser.parse_args()
    found = measure(options, lambda text: print(text, file=sys.stderr, flush=True))
    print(json.dumps(found, indent=2) if options.json else found["ratios"])
