"""Writes a page of what shipped configs need on TPUs: `python -m benchmarks.plans docs/plans.md`.

Every step is compiled for the topology (takes libtpu, and no TPU), which takes hours in all. What
is compiled is kept in runs/plans, by the revision of the code: after an interruption, or for
another row with the same step, it is not compiled again. The page is written after each plan.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from absl import logging
from jax.sharding import Mesh

from bridge_jax.config import io as config_io
from bridge_jax.methods.checks import meshes_of, validate
from bridge_jax.models.config import DecoderConfig
from bridge_jax.parallel import chips
from bridge_jax.parallel.chips import GIB
from bridge_jax.planning import plan
from bridge_jax.planning.memory import Memory
from bridge_jax.planning.workload import Work, list_work, opened
from bridge_jax.progress import duration
from configs.models import PAIRS

CONFIG = "configs/medical_7b.py"
TOPOLOGIES = ("v5e:2x2", "v5e:4x4")  # for every pair
OF_7B = ("v6e:4x4", "v5p:2x2x2", "2*v5e:4x4", "tpu7x:2x2x1")  # for the pair of the config
SCALE = (3, 14)  # billions of `configs/studies/assistant_scale.py`, beside the 7B of the first pair
BARD = "configs/bard_8b.py"
REINFORCED = "budgets/reinforced"
# Reinforcement learning of a 7B in short replies, with an adapter.
BARD_7B = (
    "method=bard",
    "student.checkpoint=Qwen/Qwen2.5-7B-Instruct",
    "student.lora.rank=16",
    "thinking.form=plain",
    "thinking.levels=128,256,512,1024",
    "thinking.train.row_tokens=2560",
    "thinking.answer_tokens=64",
    "max_prompt_tokens=512",
    "generation.max_new_tokens=1152",
    "reinforcement.train.row_tokens=2048",
)
STORE = Path("runs/plans")
HEAD = (
    "| stage | chips | GiB a chip | of | fits | seconds | bound by |\n|---|--:|--:|--:|---|--:|---|"
)


class Plan(NamedTuple):
    """Names a plan of the page: a config with changes, on a topology; `only` some of its stages."""

    title: str
    config: str
    topology: str
    changes: tuple[str, ...] = ()
    only: frozenset[str] | None = None


def plans() -> Iterator[Plan]:
    """Yields all plans of the page."""
    for name, pair in PAIRS.items():
        models = {"assistant": pair.assistant, "student": pair.student}
        changes = tuple(f"{role}.checkpoint={m.checkpoint}" for role, m in models.items())
        for topology in TOPOLOGIES:
            yield Plan(f"{name} on {topology}", CONFIG, topology, changes)
    for topology in OF_7B:
        yield Plan(f"{next(iter(PAIRS))} on {topology}", CONFIG, topology)
    yield Plan(
        f"{next(iter(PAIRS))} with assistant.lora.base=int8 on v5e:2x2",
        CONFIG,
        "v5e:2x2",
        ("assistant.lora.base=int8",),
    )
    for size in SCALE:
        changes = (f"assistant.checkpoint=Qwen/Qwen2.5-{size}B-Instruct",)
        yield Plan(f"qwen2.5-{size}b to qwen2.5-0.5b on v5e:4x4", CONFIG, "v5e:4x4", changes)
    for name in ("legal_7b", "financial_7b"):
        yield Plan(f"configs/{name}.py on v5e:4x4", f"configs/{name}.py", "v5e:4x4")
    reinforced = frozenset([REINFORCED])
    title = "Reinforcement learning of qwen2.5-7b with an adapter, replies of 1,376 tokens, v5e:4x4"
    yield Plan(title, BARD, "v5e:4x4", BARD_7B, reinforced)
    for topology in ("v5p:2x2x2", "v6e:4x4"):
        yield Plan(f"{BARD} with method=bard on {topology}", BARD, topology, ("method=bard",))
    yield Plan("configs/quickstart.py on v5e:2x2", "configs/quickstart.py", "v5e:2x2")


class Compiled:
    """Compiles steps, and keeps what was found: a JSON line for each.

    Args:
      path: of the file; None keeps nothing, for code that is in no revision.
    """

    def __init__(self, path: Path | None):
        self._path, self._known = path, {}
        if path and path.exists():
            text = path.read_text()
            whole = text[: text.rfind("\n") + 1]
            if whole != text:  # An interrupted call has cut off its last line; it is removed.
                os.truncate(path, len(whole.encode()))
            rows = [json.loads(line) for line in whole.splitlines()]
            self._known = {row["key"]: Memory(**row["memory"]) for row in rows}

    def memory(self, topology: str, work: Work, model: DecoderConfig, mesh: Mesh) -> Memory:
        """Returns the memory of a step, compiled if it is not known."""
        libraries = [version(name) for name in ("jax", "jaxlib", "libtpu")]
        identity = [topology, dict(mesh.shape), repr(work), repr(model), libraries]
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]
        if key not in self._known:
            self._known[key] = plan.memory_of(work, model, mesh)
            if self._path:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                row = {"key": key, "step": repr(work), "memory": self._known[key]._asdict()}
                with self._path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        return self._known[key]


def section(planned: Plan, compiled: Compiled, tell: Callable[[str], None]) -> str:
    """Returns the table of one plan, as Markdown."""
    devices, chip = chips.topology(planned.topology)
    config = config_io.override(config_io.load(Path(planned.config)), planned.changes)
    validate(config, has_data=bool(config.data.path))
    stages, lengths = opened(config, devices)
    works, meshes = list_work(stages, lengths, planned.only), meshes_of(stages, lengths.inputs)

    def measure(work: Work, model: DecoderConfig, mesh: Mesh) -> Memory:
        return compiled.memory(planned.topology, work, model, mesh)

    rows = [
        f"| {stage.name} | {stage.chips} | {stage.of_chip(stage.memory.total) / GIB:.2f} "
        f"| {stage.of_chip(stage.chip.memory) / GIB:.2f} | {'yes' if stage.fits else '**no**'} "
        f"| {stage.seconds:,.0f} | {stage.bound_by} |"
        for stage in plan.plan_stages(config, works, meshes, chip, tell, measure)
    ]
    return "\n".join([f"## {planned.title}", "", HEAD, *rows, ""])


def page(revision: str, sections: list[str], missing: list[Plan]) -> str:
    """Returns the page, as Markdown."""
    head = (
        "# Plans\n\nWhat `launch.plan` finds for every pair of `configs/models.py`, in "
        f"`{CONFIG}`, for the assistants of `configs/studies/assistant_scale.py`, for the legal "
        f"and the financial config, for reinforcement learning at budgets (`{BARD}`), and for the "
        "quickstart: every step is compiled for the topology, and nothing is run. GiB are those of "
        "a chip that a program may use (of TPU7x, of both devices of a chip); seconds are the "
        "roofline's, a lower bound. In reinforcement learning each of the three programs has what "
        "the others keep on the chip beside it. Written by `make plans` at revision "
        f"{revision} of the code.\n"
    )
    parts = [head, *sections]
    if missing:
        listed = "\n".join(f"- {each.title}" for each in missing)
        parts.append(f"## Not compiled yet\n\n`make plans` goes on with:\n\n{listed}\n")
    return "\n".join(parts)


def main(out: Path) -> None:
    """Plans all and writes the page."""
    # All that is done is kept, so Ctrl-C stops at once, also in the compiler.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    logging.set_verbosity(logging.ERROR)
    revision = _git("log", "-1", "--format=%h", "--", "bridge_jax")
    changed = bool(_git("status", "--porcelain", "--", "bridge_jax"))
    if changed:
        revision += "-dirty"
    compiled = Compiled(None if changed else STORE / f"{revision}.jsonl")
    wanted, sections, began = list(plans()), [], time.monotonic()
    for number, planned in enumerate(wanted, 1):

        def tell(stage: str, number: int = number, title: str = planned.title) -> None:
            took = duration(time.monotonic() - began)
            print(f"{number} of {len(wanted)}, {title}: {stage} ({took})", file=sys.stderr)

        sections.append(section(planned, compiled, tell))
        out.write_text(page(revision, sections, wanted[number:]))


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
