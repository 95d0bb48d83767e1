"""The plan of a study: what runs share is counted once, and the bill is no larger than the pool."""

import dataclasses
import json

import jax
import pytest

from bridge_jax.config import LoraConfig
from bridge_jax.config import io as config_io
from bridge_jax.models import decoder
from bridge_jax.parallel import chips
from bridge_jax.parallel.sharding import make_mesh
from bridge_jax.planning import plan, workload
from bridge_jax.planning.workload import expected
from bridge_jax.study import study as studies
from tests.launch import tiny_study
from tests.launch.test_plan import planned
from tests.launch.tiny_run import ROOT


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_study.write(tmp_path_factory.mktemp("plan"), seeds=2)


@pytest.fixture(scope="module")
def configs(path):
    return [cell.config for cell in studies.load(path).runs]


@pytest.fixture(scope="module")
def chip():
    return chips.CHIPS["v5e"]


def plan_of(configs, chip):
    return plan.plan_study(configs, jax.devices()[:1], chip)


@pytest.mark.slow
def test_stages_are_counted_once_for_those_who_share_them(configs, chip):
    whole = plan_of(configs, chip)
    assert whole.runs == len(configs) == 8
    made = {name: (total.runs, total.made) for name, total in whole.stages.items()}
    assert made["apprenticeship/warmup"] == made["evaluation/student_base"] == (8, 2)  # two seeds
    assert made["apprenticeship/assistant"] == made["tutoring/student"] == (8, 8)
    warmup = whole.stages["apprenticeship/warmup"]
    assert warmup.alone == pytest.approx(4 * warmup.seconds)
    alone = [plan_of([config], chip) for config in configs]
    assert sum(one.seconds for one in alone) == pytest.approx(
        sum(total.alone for total in whole.stages.values())
    )


def test_a_run_alone_is_planned_as_by_its_own_config(configs, chip):
    run, mesh = workload.opened(configs[0], jax.devices()[:1]), make_mesh(devices=jax.devices()[:1])
    stages = {}
    for work in workload.list_work(*run):
        model = plan.decoder_config(configs[0], work.role, mesh)
        stages[work.stage] = plan.work_time(work, model, mesh, chip)[1]
    one = plan_of(configs[:1], chip)
    assert {name: total.seconds for name, total in one.stages.items()} == pytest.approx(stages)
    assert one.teacher == one.teacher_alone
    assert one.teacher["usd"] == pytest.approx(expected(*run).usd)


def test_the_bill_is_at_most_that_of_the_pools(configs, chip):
    found = plan_of(configs, chip)
    # Per seed: two strategies of 2 and 6 questions. The pool has 24.
    assert found.teacher["queries"] == found.teacher_alone["queries"] == 2 * 2 * (2 + 6)
    greedy = [config_io.override(config, ["budget.queries=20"]) for config in configs[::2]]
    distinct = [
        config_io.override(config, [f"selection.noise_fraction={i / 100}"])
        for i, config in enumerate(greedy)
    ]
    assert len({config.seed for config in distinct}) == 2
    found = plan_of(distinct, chip)
    assert found.teacher_alone["queries"] == 4 * 20
    assert found.teacher["queries"] == pytest.approx(2 * 24)
    assert found.teacher["usd"] == pytest.approx(found.teacher_alone["usd"] * 48 / 80)


def test_the_disk_is_that_of_the_models(configs, chip):
    lora = dataclasses.replace(configs[0].assistant.lora, targets=LoraConfig().targets)
    assistant = dataclasses.replace(configs[0].assistant, lora=lora)
    one = plan_of([dataclasses.replace(configs[0], assistant=assistant)], chip)
    student = plan.decoder_config(configs[0], "student", make_mesh(devices=jax.devices()[:1]))
    size = 4 * decoder.count_parameters(student)
    assert one.stages["tutoring/student"].disk == one.stages["tutoring/instruct"].disk == size
    adapter = one.stages["apprenticeship/assistant"].disk
    # Rank 4 on 3 layers of width 32: query, key, value and out from and to 32, 16, 16 and 32; gate,
    # up and down between 32 and 64.
    ends = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 64), (32, 64), (64, 32)]
    assert adapter == 4 * 3 * 4 * sum(a + b for a, b in ends)
    assert one.stages["tutoring/completions"].disk == 0


@pytest.mark.slow
def test_launch_plan_tells_a_study_from_a_run(path):
    code, out, err = planned(f"--config={path}", "--json", "--budget.usd=0.04")
    assert code == 0, err
    found = json.loads(out)
    assert found["runs"] == 8
    assert found["seconds"] < found["seconds_alone"]
    assert found["teacher"]["usd"] > 0
    code, out, err = planned(f"--config={path}")
    assert code == 0, err
    assert "8 runs on" in out and "Nothing was run or paid." in out
    code, _, err = planned(f"--config={path}", "--budget.querys=3")
    assert code == 2 and "did you mean 'budget.queries'" in err


@pytest.mark.parametrize(
    "missing",
    [
        ("data.source=jsonl", "data.path="),
        ("method=labels", "assistant.checkpoint=/nowhere", "data.path=/nowhere"),
    ],
)
def test_without_data_runs_share_what_they_have_in_common(configs, chip, missing):
    """Nothing is read: neither the data nor the model of a role that no stage has."""
    settings = (*missing, "data.choices=a,b", "data.kind=label", "data.source=jsonl")
    training = "labels_training" if "method=labels" in missing else "student_training"
    without = [
        config_io.override(config, [*settings, f"{training}.epochs={epochs}"])
        for config in configs[:2]
        for epochs in (1, 2)
    ]
    found = plan_of(without, chip)
    made = {name: (total.runs, total.made) for name, total in found.stages.items()}
    assert made["tutoring/instruct"] == made["evaluation/student_base"] == (4, 1)
    assert made["tutoring/student"][1] == (2 if "method=labels" in missing else 4)


def test_models_that_are_not_on_this_machine_are_told_apart(chip, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = studies.override(
        config_io.load(ROOT / "configs/studies/assistant_scale.py", "get_study"),
        [],
        has_data=False,
    )
    first = [run.config for run in found.runs if run.config.seed == 0]
    planned = plan_of(first, chip)
    made = {name: (total.runs, total.made) for name, total in planned.stages.items()}
    # The direct student, and those of three assistants.
    assert made["tutoring/student"] == (4, 4)
    assert made["apprenticeship/assistant"] == made["apprenticeship/warmup"] == (3, 3)
    assert made["tutoring/instruct"] == (4, 1)
    assert planned.teacher["queries"] == 250 and planned.teacher_alone["queries"] == 4 * 250
    assert planned.chip_hours == pytest.approx(planned.expected / 3600)
    assert 1 / 0.59 < planned.expected / planned.seconds < 1 / 0.46
