"""Imports point one way (docs/architecture.md); `import bridge_jax` needs no optional library."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# A part may import itself and those above it: docs/architecture.md has the list.
LAYERS = [
    "errors", "revision", "display", "atomic", "timing", "config", "parallel", "caches", "progress",
    "data", "models", "text", "training", "generation", "selection",
    "ledger", "teachers", "evaluation", "pipeline", "methods", "planning", "report", "study",
    "serving", "runs", "library",
    "launch",
]  # fmt: skip
LEVEL = {part: level for level, part in enumerate(LAYERS)}


def modules():
    for top in ("bridge_jax", "launch"):
        for path in sorted((ROOT / top).rglob("*.py")):
            yield path, ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(module):
    """Returns the part a module of ours belongs to: `bridge_jax.text.packing` -> `text`."""
    names = module.split(".")
    if names[0] == "launch":
        return "launch"
    return names[1] if names[0] == "bridge_jax" and len(names) > 1 else None


EDGES = [
    (module, target, part(module), part(target))
    for path, module in modules()
    for target in imported(ast.parse(path.read_text()))
    if part(target) and part(module) and part(module) != "__init__"
]


def test_every_part_has_a_layer():
    assert {source for _, _, source, _ in EDGES} - set(LEVEL) == set()


def test_imports_point_down():
    wrong = [f"{m} -> {t}" for m, t, a, b in EDGES if b in LEVEL and LEVEL[b] > LEVEL[a]]
    assert wrong == []


def test_no_part_imports_itself_through_another():
    graph: dict[str, set[str]] = {}
    for _, _, source, target in EDGES:
        if target in LEVEL and source != target:
            graph.setdefault(source, set()).add(target)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def loaded(code, names):
    """Returns which of the modules `names` are loaded in a new Python after `code`."""
    code += f"\nimport sys; print(*sorted({set(names)!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_the_package_needs_no_optional_library():
    """torch, the vendors' SDKs and `datasets` are imported where they are used, if at all."""
    code = """
import importlib, pkgutil, bridge_jax
for found in pkgutil.walk_packages(bridge_jax.__path__, "bridge_jax."):
    importlib.import_module(found.name)
"""
    optional = ["torch", "datasets", "google.genai", "google.generativeai", "openai", "gguf"]
    assert loaded(code, [*optional, "tensorflow", "bridge_jax.methods.bridge"]) == [
        "bridge_jax.methods.bridge"
    ]


def test_a_mistyped_flag_is_found_before_the_slow_imports():
    assert loaded("import launch.run", ["jax", "flax", "absl"]) == ["absl"]


def test_a_ledger_is_printed_without_the_slow_imports():
    assert loaded("import launch.report", ["jax", "flax", "absl"]) == ["absl"]


def test_a_tokenizer_is_read_without_torch(checkpoint):
    """Importing torch takes seconds of every launch; AutoTokenizer does where it is installed."""
    code = "from pathlib import Path; from bridge_jax.text import tokenizer\n"
    code += f"tokenizer.load(Path({str(checkpoint)!r}))"
    assert loaded(code, ["torch", "tokenizers"]) == ["tokenizers"]
