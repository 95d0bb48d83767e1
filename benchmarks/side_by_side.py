"""Compares ways to compute the same thing, ours and those of transformers (torch), in turns.

Both sides have the same random weights, the same inputs and the same cores or GPU. Before they are
timed, what each way of theirs computes is compared with what ours computes. Then all take turns in
one process, so a ratio is of neighbours in time. A way of theirs that took over `SLOW` times as
long as their fastest when it was tried is not timed again; sdpa in f32 always is.
"""

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

# JAX takes memory of a GPU as it needs it, and leaves torch the rest. Read when JAX starts.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from jax.sharding import Mesh

from benchmarks.result import BASE, BASE_RATIO, BEST_RATIO, ON_GPU, Say, result, run, spread
from bridge_jax.config import ModelConfig
from bridge_jax.models.config import DecoderConfig, computing_on
from bridge_jax.models.costs import Cost
from bridge_jax.models.hub import checkpoint, presets
from bridge_jax.parallel import chips
from bridge_jax.parallel.sharding import make_mesh

_SMOLLM2 = presets.hf_config("HuggingFaceTB/SmolLM2-135M-Instruct") | {"torch_dtype": "float32"}


def _smaller(layers: int, width: int, heads: int, kv_heads: int, mlp: int) -> dict[str, Any]:
    return _SMOLLM2 | {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": mlp,
    }


# SmolLM2-135M's config.json, smaller models of its family, and the sizes of Llama 3.2 1B, for a
# GPU. All have heads of 64 and a tied embedding.
SHAPES = {
    "135M": _SMOLLM2,
    "30M": _smaller(7, 384, 6, 2, 1024),  # 29.9 million, 18.9 of them in the embedding
    "1B": _smaller(16, 2048, 32, 8, 8192) | {"vocab_size": 128_256},  # 1.24 billion
    "tiny": _smaller(2, 128, 2, 1, 256) | {"vocab_size": 512},
}
OURS = "ours"
SLOW = 1.5
REST = 0.5  # Seconds before a way: threads of the one before may still wait for work, busily.
F32, BF16 = 1e-4, 5e-2  # Nats by which both sides may differ, by the dtype that they compute in.
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Matmul = Literal["auto", "bfloat16"]


class DifferError(Exception):
    """Both sides should compute the same thing and do not."""


class Twins(NamedTuple):
    """One model twice.

    Attributes:
      config, params, mesh: ours, on one device, computing in the dtype that a run has there.
      model: transformers' own, f32, on torch's device.
    """

    config: DecoderConfig
    params: Any
    mesh: Mesh
    model: Any

    @property
    def frozen(self) -> "Twins":
        """Both, ours with weights in the dtype of products, as a run loads them to read."""
        dtype = self.config.matmul_dtype
        return self._replace(params=jax.tree.map(lambda a: a.astype(dtype), self.params))


def twins(shape: str, matmul: Matmul = "auto") -> Twins:
    """Returns a Llama of random weights; ours are read from the files that theirs wrote.

    Args:
      shape: its name in `SHAPES`.
      matmul: of ours (`ModelConfig.matmul`).
    """
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SHAPES[shape])
    with torch.device(DEVICE):
        model: Any = transformers.LlamaForCausalLM(config).float()
    model.generation_config.eos_token_id = None  # Nothing ends a text before its limit.
    mesh = make_mesh(devices=jax.devices()[:1])
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        ours, params = checkpoint.load(ModelConfig(folder), mesh)
    ours = computing_on(ours, ModelConfig(matmul=matmul))
    return Twins(ours, params, mesh, model.to(DEVICE).eval())


def by_dtype(model: Any) -> dict[torch.dtype, Any]:
    """Returns transformers' model in both dtypes."""
    return {torch.float32: model, torch.bfloat16: copy.deepcopy(model).bfloat16()}


class Variant(NamedTuple):
    """A way to run transformers' model: kernel of attention, dtype, and compiled or not."""

    attention: str
    dtype: torch.dtype
    compiled: bool = False

    @property
    def name(self) -> str:
        """Its name in the results, such as "compiled sdpa bf16"."""
        dtype = {torch.float32: "f32", torch.bfloat16: "bf16"}[self.dtype]
        return f"{'compiled ' if self.compiled else ''}{self.attention} {dtype}"


def variants(quick: bool) -> list[Variant]:
    """Returns all variants; a smoke run compiles nothing, and eager is too slow for a GPU."""
    both = torch.float32, torch.bfloat16
    kernels = ("sdpa", "eager") if DEVICE == "cpu" else ("sdpa",)
    found = [Variant(attention, dtype) for attention in kernels for dtype in both]
    return found if quick else [*found, *(Variant("sdpa", dtype, True) for dtype in both)]


def set_up(quick: bool) -> None:
    """Keeps freed memory, as a run does, and gives torch the cores that JAX has; one if `quick`.

    On a GPU both multiply f32 in TF32, which is JAX's default.
    """
    chips.keep_freed_memory()
    torch.set_num_threads(1 if quick else len(os.sched_getaffinity(0)))
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.recompile_limit = 64  # After eight shapes it would compile no more.
    transformers.utils.logging.disable_progress_bar()


class Setup(NamedTuple):
    """Describes how a case is measured.

    Attributes:
      case: its name.
      quick: a smoke run: a tiny model, few tokens, nothing compiled by torch.
      pairs: how often each way is timed.
      peak: what the machine can do.
      say: is told how far it is.
      matmul: of our model (`ModelConfig.matmul`).
    """

    case: str
    quick: bool
    pairs: int
    peak: "Peak"
    say: Say
    matmul: Matmul = "auto"

    def tolerance(self, variant: Variant) -> float:
        """Returns the nats by which the results of a variant may differ from ours."""
        all_f32 = DEVICE == "cpu" and self.matmul == "auto" and variant.dtype == torch.float32
        return F32 if all_f32 else BF16

    def twins(self, shape: str) -> Twins:
        """Returns the models of a shape, or tiny ones for a smoke run."""
        return twins("tiny" if self.quick else shape, self.matmul)


class Figures(NamedTuple):
    """The ratios and the absolute figures of a case, by their names."""

    ratios: dict[str, dict[str, float]]
    absolute: dict[str, Any]


class Way(NamedTuple):
    """One way to do a case.

    Attributes:
      first: does it once, compiling what is needed, and returns what is compared: f32[...].
      run: what is timed; it returns when all is done.
      tolerance: by which what it returns may differ from ours.
    """

    first: Callable[[], Any]
    run: Callable[[], Any]
    tolerance: float = 0.0


class Found(NamedTuple):
    """Seconds of each way, in turns; and why ways were left out."""

    seconds: dict[str, list[float]]
    left_out: dict[str, str]

    @property
    def best(self) -> str:
        """Their fastest way, by the median."""
        theirs = {n: np.median(s) for n, s in self.seconds.items() if n != OURS}
        return min(theirs, key=lambda name: theirs[name])

    def ratio(self, name: str) -> dict[str, float]:
        """Returns how many times as long as ours a way of theirs took."""
        return spread([b / a for a, b in zip(self.seconds[OURS], self.seconds[name])])


def check_same(what: str, ours: Any, theirs: Any, tolerance: float) -> None:
    """Raises a `DifferError` unless f[...] and f[...] are equal within `tolerance`."""
    ours, theirs = np.asarray(ours, np.float32), np.asarray(theirs, np.float32)
    off = float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else float("inf")
    if not off <= tolerance:  # a NaN is not
        raise DifferError(f"{what}: differs from ours by {off:.2g}, more than {tolerance}")


def compare(setup: Setup, ours: Way, theirs: Mapping[str, Way]) -> Found:
    """Checks and times the ways to do a case; of theirs, all but `BASE` may fail.

    Raises:
      DifferError: one of theirs computed something else.
    """
    torch.compiler.reset()  # of what the case before compiled
    expected, left_out, tried = ours.first(), {}, {}
    ours.run()
    for name, way in theirs.items():
        setup.say(f"{setup.case}: trying {name}")
        try:
            began = time.perf_counter()
            value = way.first()
            tried[name] = min(time.perf_counter() - began, _seconds(way.run))
        except Exception as error:
            if name == BASE:
                raise
            left_out[name] = f"{type(error).__name__}: {str(error)[:200]}"
            continue
        check_same(f"{setup.case}, {name}", expected, value, way.tolerance)
    limit = SLOW * min(tried.values())
    slow = [name for name, took in tried.items() if took > limit and name != BASE]
    left_out |= {name: f"took {tried[name]:.3g} s when tried" for name in slow}
    kept = {OURS: ours} | {n: way for n, way in theirs.items() if n in tried and n not in slow}
    return Found(take_turns(setup, {name: way.run for name, way in kept.items()}), left_out)


def take_turns(setup: Setup, ways: Mapping[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Returns the seconds of every run: each way once, and all of it `setup.pairs` times."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(setup.pairs):
        for name, way in ways.items():
            time.sleep(REST)
            seconds[name].append(_seconds(way))
        last = ", ".join(f"{name} {found[-1]:.3g} s" for name, found in seconds.items())
        setup.say(f"{setup.case}: {last}")
    return seconds


def figures(setup: Setup, found: Found, tokens: int, phases: Sequence[Cost] = ()) -> Figures:
    """Returns the figures of a case.

    Args:
      setup: of the case.
      found: its times.
      tokens: those that count as done, without padding.
      phases: the least that has to be computed and moved, one phase after another; empty if it is
        not known.
    """
    case, mine = setup.case, float(np.median(found.seconds[OURS]))
    absolute: dict[str, Any] = {
        f"{case}: seconds": {name: spread(s, 4) for name, s in found.seconds.items()},
        f"{case}: tokens_per_second": round(tokens / mine, 1),
        f"{case}: best torch": found.best,
        f"{case}: left out": found.left_out,
    }
    if phases:
        absolute |= {
            f"{case}: flops_per_second": round(sum(phase.flops for phase in phases) / mine),
            f"{case}: bytes_per_second": round(sum(phase.bytes for phase in phases) / mine),
            f"{case}: share of the limit": round(sum(map(setup.peak.seconds, phases)) / mine, 3),
        }
    ratios = {BASE_RATIO: found.ratio(BASE), BEST_RATIO: found.ratio(found.best)}
    return Figures({f"{case}: {what}": value for what, value in ratios.items()}, absolute)


def cut(items: Sequence[Any], size: int) -> list[Any]:
    """Returns slices of `size`, the last one as long as it is."""
    return [items[start : start + size] for start in range(0, len(items), size)]


class Peak(NamedTuple):
    """Holds the peak rates of this machine, as measured: FLOPs and bytes moved in a second.

    Attributes:
      flops, bytes: the better of JAX and torch.
      jax_flops, torch_flops: of each.
    """

    flops: float
    bytes: float
    jax_flops: float = 0.0
    torch_flops: float = 0.0

    def seconds(self, cost: Cost) -> float:
        """Returns the least seconds that a cost can take."""
        return max(cost.flops / self.flops, cost.bytes / self.bytes)


def measured_peak(quick: bool, matmul: Matmul = "auto") -> Peak:
    """Returns the better of JAX and torch: a square product, and reading or copying an array.

    The product is of f32 on a CPU, unless ours are not (`matmul`), and of bf16 on a GPU.
    """
    side, count, repeats = (256, 1 << 20, 1) if quick else (4096, 1 << 27, 5)
    if DEVICE == "cuda" and not quick:
        side, count = 2 * side, 4 * count
    dtype = torch.float32 if DEVICE == "cpu" and matmul == "auto" else torch.bfloat16
    square = torch.randn(side, side, device=DEVICE, dtype=dtype)
    line, there = (torch.zeros(count, device=DEVICE) for _ in range(2))
    is_wide = dtype == torch.float32
    mine = jnp.asarray(square.float().cpu().numpy(), jnp.float32 if is_wide else jnp.bfloat16)
    row = jnp.zeros(count, jnp.float32)
    product = jax.jit(partial(jnp.matmul, preferred_element_type=jnp.float32))
    total, copy = jax.jit(jnp.sum), jax.jit(jnp.negative)

    def best(*ways: Callable[[], Any]) -> float:
        for way in ways:
            way()
        return min(_seconds(way) for _ in range(repeats) for way in ways)

    by_jax = best(lambda: product(mine, mine).block_until_ready())
    by_torch = best(lambda: _synced(square @ square))
    read = best(lambda: total(row).block_until_ready(), lambda: _synced(line.sum()))
    copied = best(lambda: copy(row).block_until_ready(), lambda: _synced(there.copy_(line)))
    size = 4 * count
    rates = 2 * side**3 / by_jax, 2 * side**3 / by_torch
    return Peak(max(rates), max(size / read, 2 * size / copied), *rates)


def peak_result(peak: Peak) -> dict[str, Any]:
    """Returns what a benchmark's `peak` says besides the memory of the process."""
    found: dict[str, Any] = {
        "flops_per_second": round(peak.flops),
        "jax_flops_per_second": round(peak.jax_flops),
        "torch_flops_per_second": round(peak.torch_flops),
        "bytes_per_second": round(peak.bytes),
    }
    if stats := jax.devices()[0].memory_stats():
        found["jax_device_mib"] = stats["peak_bytes_in_use"] >> 20
    if DEVICE == "cuda":
        found["torch_device_mib"] = torch.cuda.max_memory_allocated() >> 20
    return found


def main(name: str, about: str, cases: Mapping[str, Callable[[Setup], Figures]]) -> None:
    """Measures the cases that `--cases` names, all by default, and prints.

    Each of several has a process of its own: the memory that one took would slow the next.

    Args:
      name: of the benchmark.
      about: its docstring.
      cases: what measures each; by default those of the device that torch finds.
    """

    def measure(options: argparse.Namespace, say: Say) -> dict:
        here = [case for case in cases if (case in ON_GPU) == (DEVICE == "cuda")]
        names = options.cases.split(",") if options.cases else here
        if len(names) > 1:
            return joined([_alone(name, case, options) for case in names])
        set_up(options.quick)
        peak = measured_peak(options.quick, options.matmul)
        setup = Setup(names[0], options.quick, options.pairs, peak, say, options.matmul)
        ratios, absolute = cases[names[0]](setup)
        devices = f"{jax.devices()[0].device_kind}, torch on {DEVICE}"
        on_gpu = DEVICE == "cuda"
        return result(name, ratios, absolute, devices, peak_result(peak), on_gpu)

    run(about, measure, cases="", pairs=5, quick=False, matmul="auto")


def joined(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the results of cases of one benchmark as one, with the largest of each peak.

    Other processes can only slow a machine down, so the largest peak is the nearest to its own.
    """
    one = dict(results[0])
    for part in "ratios", "absolute":
        one[part] = {name: value for found in results for name, value in found[part].items()}
    one["peak"] = {name: max(found["peak"][name] for found in results) for name in one["peak"]}
    return one


def _alone(name: str, case: str, options: argparse.Namespace) -> dict[str, Any]:
    """Returns the result of one case, measured in a process of its own."""
    command = ["-m", f"benchmarks.{name}", f"--cases={case}", f"--pairs={options.pairs}", "--json"]
    command += [f"--matmul={options.matmul}", *(["--quick"] if options.quick else [])]
    done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def _synced(tensor: torch.Tensor) -> torch.Tensor:
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return tensor


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
