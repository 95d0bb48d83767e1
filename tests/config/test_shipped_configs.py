"""Studies, and the pairs of models that configs are made of; those of runs are in test_config."""

import ast
import dataclasses
import functools
import io
import re
from pathlib import Path

import jax
import pytest
from rich.console import Console

from bridge_jax.config import RunConfig
from bridge_jax.config import io as config_io
from bridge_jax.config.io import override
from bridge_jax.methods import checks, input_checks
from bridge_jax.methods.checks import validate
from bridge_jax.methods.teacher import selected_count
from bridge_jax.models import decoder
from bridge_jax.models.hub import presets
from bridge_jax.models.hub.hf_config import from_hf
from bridge_jax.parallel import chips
from bridge_jax.planning import memory, plan, tables, workload
from bridge_jax.progress import duration
from bridge_jax.runs import Run
from bridge_jax.study import study
from configs import models
from tests.config import docstrings

ROOT = Path(__file__).parents[2]

# (assistant, its adapter, student), parameters. The adapters' are what others report of rank 16 on
# all projections of these models.
QWEN_7B, LLAMA_8B, GEMMA_9B = 7_615_616_512, 8_030_261_248, 9_241_705_984
SIZES = {
    "qwen2.5-7b to qwen2.5-0.5b": (QWEN_7B, 40_370_176, 494_032_768),
    "qwen2.5-7b to gemma-3-270m": (QWEN_7B, 40_370_176, 268_098_176),
    "llama-3.1-8b to llama-3.2-1b": (LLAMA_8B, 41_943_040, 1_235_814_400),
    "llama-3.1-8b to smollm2-360m": (LLAMA_8B, 41_943_040, 361_821_120),
    "gemma-2-9b to gemma-3-270m": (GEMMA_9B, 54_018_048, 268_098_176),
}


@pytest.mark.parametrize("name", SIZES)
def test_a_pair_resolves_to_models_of_these_sizes(name):
    assistant, student = models.PAIRS[name]
    whole = from_hf(presets.hf_config(assistant.checkpoint))
    base = decoder.count_parameters(whole)
    adapted = decoder.count_parameters(dataclasses.replace(whole, lora=assistant.lora))
    small = decoder.count_parameters(from_hf(presets.hf_config(student.checkpoint)))
    assert (base, adapted - base, small) == SIZES[name]
    assert student.lora.rank == 0
    assert not student.keep_layers
    assert not assistant.keep_layers


def test_no_pair_is_untested():
    assert set(models.PAIRS) == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_a_pair_fits_into_a_run_config_and_can_be_overridden(name):
    pair = models.PAIRS[name]
    config = validate(RunConfig(assistant=pair.assistant, student=pair.student))
    config = override(config, ["assistant.lora.rank=32"])
    assert config.assistant == dataclasses.replace(
        pair.assistant, lora=dataclasses.replace(pair.assistant.lora, rank=32)
    )


def test_the_docstring_uses_a_pair_that_exists():
    (used,) = re.findall(r'PAIRS\["(.*?)"\]', models.__doc__ or "")
    assert used in models.PAIRS


STUDIES = sorted(
    path
    for path in (ROOT / "configs" / "studies").glob("*.py")
    if "def get_study" in path.read_text()
)


def test_the_studies_are_found():
    assert {path.stem for path in STUDIES} >= {"budget_scaling", "direct_vs_bridge", "selection"}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_resolves(path):
    needs_data = "data.path" in path.read_text()
    found = study.load(path, ["data.path=rows.jsonl"] if needs_data else [])
    assert found.name == path.stem
    seeds = {run.config.seed for run in found.runs}
    assert len(found.runs) == len(seeds) * len({(c.variant, c.x) for c in found.runs})
    if not needs_data:
        study.check_tests(found)
    docstrings.check(path, f"--config=configs/studies/{path.name}")


RUNS = sorted(
    path
    for path in (ROOT / "configs").glob("*.py")
    if "def get_config() -> RunConfig" in path.read_text()
)


def test_the_runs_are_found():
    assert {path.stem for path in RUNS} >= {"medical_7b", "legal_7b", "financial_7b", "quickstart"}


@functools.cache
def opened(path):
    """Returns the config of a run, or of a study's first, and its stages and sequence lengths."""
    found = config_io.load(path, "get_config", "get_study")
    config = found.runs[0].config if isinstance(found, study.Study) else found
    return config, *workload.opened(config)


@pytest.mark.parametrize(
    "path",
    # A study's run is a shipped one with other settings; CI plans them all.
    [*RUNS, *(pytest.param(path, marks=pytest.mark.slow) for path in STUDIES)],
    ids=lambda path: path.stem,
)
def test_every_config_plans(path):
    """Each stage that runs a model has work of a known shape; nothing is compiled."""
    pytest.importorskip("gguf")
    if "data.kind=text" in path.read_text():
        pytest.importorskip("tensorflow_text")
    config, stages, lengths = opened(path)
    works = {work.stage: work for work in workload.list_work(stages, lengths)}
    wanted = [stage.name for stage in stages if stage.artifact.role and stage.workload]
    assert list(works) == wanted and len(works) >= 3
    assert all(work.steps > 0 for work in works.values())
    if config.teacher.kind in ("gemini", "openai"):
        # The cap pays for all replies at their longest, and for every retry.
        assert 0 < workload.expected(stages, lengths).usd_high <= config.budget.usd


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_run_prints_a_plan(path):
    """As `launch.plan` does without data, but for the compilation."""
    pytest.importorskip("gguf")
    config, stages, lengths = opened(path)
    validate(config, has_data=bool(config.data.path))
    works, meshes = workload.list_work(stages, lengths), checks.meshes_of(stages, lengths.inputs)
    chip, out = chips.CHIPS["v5e"], io.StringIO()
    console = Console(file=out, width=80)
    planned = list(plan.plan_stages(config, works, meshes, chip, measure=_nothing))
    spending = workload.expected(stages, lengths)
    tables.show(console, config, meshes, planned, spending, "8 chips", None, 1.2)
    said = out.getvalue()
    assert all(stage.name in said for stage in planned)
    assert f"the cap is ${config.budget.usd:,.4f}" in " ".join(said.split())


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_prints_a_plan(path):
    pytest.importorskip("gguf")
    if "data.kind=text" in path.read_text():
        pytest.importorskip("tensorflow_text")
    found = study.override(config_io.load(path, "get_study"), [], has_data=False)
    configs = [run.config for run in found.runs]
    # Other seeds are planned alike.
    configs = [config for config in configs if config.seed == configs[0].seed]
    planned = plan.plan_study(configs, jax.devices(), chips.CHIPS["v5e"])
    out = io.StringIO()
    tables.show_study(Console(file=out, width=80), found.name, planned, "8 chips", 1.2)
    assert f"{len(configs)} runs on 8 chips" in out.getvalue()
    assert planned.seconds > 0


# On what hardware its docstring plans a config or a study, and the part of docs/plans.md with it.
PLANNED_FOR = {
    "medical_7b": ("v5e:4x4", "qwen2.5-7b to qwen2.5-0.5b on v5e:4x4"),
    "legal_7b": ("v5e:4x4", "configs/legal_7b.py on v5e:4x4"),
    "financial_7b": ("v5e:4x4", "configs/financial_7b.py on v5e:4x4"),
    "bard_8b": ("v5p:2x2x2", "configs/bard_8b.py with method=bard on v5p:2x2x2"),
    "studies/assistant_scale": ("v5e:4x4", "qwen2.5-14b to qwen2.5-0.5b on v5e:4x4"),
}


def test_no_config_for_tpus_is_left_out():
    named = [path for path in [*RUNS, *STUDIES] if "TPU" in path.read_text()]
    names = {path.relative_to(ROOT / "configs").with_suffix("").as_posix() for path in named}
    assert names == set(PLANNED_FOR)


def docstring_of(name):
    path = ROOT / "configs" / f"{name}.py"
    return " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())


@pytest.mark.parametrize("name", PLANNED_FOR)
def test_a_docstring_says_what_was_compiled(name):
    page = (ROOT / "docs" / "plans.md").read_text()
    _, _, after = page.partition(f"## {PLANNED_FOR[name][1]}\n")
    rows = [line.split("|") for line in after.partition("\n## ")[0].splitlines()[4:] if line]
    assert len(rows) > 5 and all("yes" in row[5] for row in rows)
    most = max(float(row[3]) for row in rows)
    assert "(docs/plans.md)" in docstring_of(name)
    assert f"at most {most:.1f} GiB a chip" in docstring_of(name)


@pytest.mark.parametrize("name", PLANNED_FOR)
def test_a_docstring_says_what_the_plan_says(name):
    pytest.importorskip("libtpu")
    path, text = ROOT / "configs" / f"{name}.py", docstring_of(name)
    devices, chip = chips.topology(PLANNED_FOR[name][0])
    if name.startswith("studies/"):
        found = study.override(config_io.load(path, "get_study"), [], has_data=False)
        of_all = plan.plan_study([run.config for run in found.runs], devices, chip)
        seconds, expected, hours = of_all.seconds, of_all.expected, of_all.chip_hours
        costs = [of_all.teacher["usd"]]
        assert f"{len(found.runs)} runs" in text and f"{of_all.disk_gib:.1f} GiB of models" in text
        assert f"for {of_all.teacher['queries']:.0f} queries" in text
    else:
        config = config_io.load(path)
        stages, lengths = workload.opened(config, devices)
        works = workload.list_work(stages, lengths)
        meshes = checks.meshes_of(stages, lengths.inputs)
        planned = list(plan.plan_stages(config, works, meshes, chip, measure=_nothing))
        seconds = sum(stage.seconds for stage in planned)
        expected = sum(stage.expected - stage.compiling for stage in planned)
        hours, spending = planned[0].chips * expected / 3600, workload.expected(stages, lengths)
        costs = [spending.usd, spending.usd_high]
    assert f"at least {duration(seconds)} of work" in text
    long = expected >= 7200
    about = f"{expected / 3600:.0f} h" if long else f"{expected / 60:.0f} min"
    assert f"about {about} expected without compilation" in text
    assert f"or {hours:,.{0 if long else 1}f} chip-hours" in text
    assert all(f"${cost:,.2f}" in text or f"${cost:,.0f}" in text for cost in costs)
    if "an assumed $1.20" in text:
        assert f"(about ${1.2 * hours:,.0f} at an assumed $1.20 each)" in text


def _nothing(*_):
    return memory.Memory(1, 0, 0, 0, 0)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_questions_of_a_study_fit_its_prompts(path, tmp_path):
    pytest.importorskip("gguf")
    text = path.read_text()
    if "data.kind=text" in text:
        pytest.importorskip("tensorflow_text")
    if "data.path" in text:
        pytest.skip("needs a file of questions")
    asked = {}
    for run in study.load(path).runs:
        found = Run(run.config, tmp_path)
        modes = {mode for stage in found.stages if stage.workload for mode in stage.workload.modes}
        config = found.config
        key = (config.data, config.max_prompt_tokens, sorted(modes), config.instruct.examples)
        asked.setdefault(repr(key), found)
    for found in asked.values():
        input_checks.check_inputs(found.config, found.stages, found.inputs)


def test_the_budgets_are_those_of_the_docstring():
    found = study.load(ROOT / "configs" / "studies" / "budget_scaling.py")
    budgets = {run.x: selected_count(run.config) for run in found.runs}
    assert budgets == {0.1: 1, 1.0: 2, 5.0: 6, 10.0: 11, 20.0: 21}
    assert len(found.runs) == 45
