"""`launch.plan` as its users meet it, and what it says against what a run then did."""

import json

import jax
import jax.numpy as jnp
import pytest

from bridge_jax.config import MeshConfig, RunConfig
from bridge_jax.config import io as config_io
from bridge_jax.methods import checks
from bridge_jax.models import decoder
from bridge_jax.models.hub.checkpoint import planned_config
from bridge_jax.parallel import chips
from bridge_jax.parallel.sharding import make_mesh
from bridge_jax.planning import memory, plan, proposals, workload
from bridge_jax.planning.workload import expected
from bridge_jax.training.objectives.sft import SFT
from tests.launch import commands, tiny_run

KEYS = {
    "stage", "role", "chips", "gib_per_chip", "hbm_gib", "fits", "flops", "bytes",
    "collective_bytes", "seconds", "bound_by",
}  # fmt: skip


ON_A_MESH = "--mesh.tensor=2", "--generation.batch_size=10"


def planned(*flags):
    return commands.run("launch.plan", *flags, devices=8)


@pytest.fixture(scope="module")
def tiny_plan(tiny_config):
    code, out, err = planned(f"--config={tiny_config}", "--json", *ON_A_MESH)
    assert code == 0, err
    return json.loads(out)


@pytest.mark.slow
def test_json_is_what_design_promises(tiny_plan):
    assert set(tiny_plan) == {"stages", "teacher", "topology", "chip_hours", "resident_gib"}
    for stage in tiny_plan["stages"]:
        assert set(stage) >= KEYS
        assert stage["fits"] is True
        assert 0 < stage["gib_per_chip"] < stage["hbm_gib"]
        assert stage["gib_per_chip"] == pytest.approx(sum(stage["gib_by_kind"].values()))
        assert stage["seconds"] > 0
        assert stage["bound_by"] in ("compute", "memory", "interconnect")
    assert {s["chips"] for s in tiny_plan["stages"]} == {8}


@pytest.mark.slow
def test_every_stage_that_runs_a_model_is_planned(tiny_plan, undisturbed):
    free = {"apprenticeship/selection", "apprenticeship/annotations", "tutoring/rationales"}
    ran = set(tiny_run.report(undisturbed)["seconds"]) - free
    assert {stage["stage"] for stage in tiny_plan["stages"]} == ran


@pytest.mark.slow
def test_steps_are_those_that_the_run_took(tiny_plan, undisturbed):
    steps = {stage["stage"]: stage["steps"] for stage in tiny_plan["stages"]}
    # The student's rationales are not written yet: how many rows they fill is not known before.
    for stage in ("apprenticeship/warmup", "apprenticeship/assistant", "tutoring/instruct"):
        lines = (undisturbed / stage / "metrics.jsonl").read_text().splitlines()
        assert steps[stage] == len(lines), stage


@pytest.mark.slow
def test_the_bill_is_between_the_bounds(tiny_plan, undisturbed):
    teacher, spend = tiny_plan["teacher"], tiny_run.report(undisturbed)["spend"]
    assert teacher["queries"] == spend["queries"] == 10
    assert teacher["usd_low"] <= spend["usd"] <= teacher["usd_high"]
    assert teacher["usd_low"] < teacher["usd"] < teacher["usd_high"] < 3 * teacher["usd_low"]


@pytest.mark.slow
def test_the_table_and_where_each_parameter_lies(tiny_config):
    code, out, err = planned(f"--config={tiny_config}", "--shardings", *ON_A_MESH)
    assert code == 0, err
    said = " ".join(out.split())
    assert "empty rows: generation.batch_size=10 to a multiple of 8; use larger" in said
    assert "Nothing was run or paid." in out
    assert "tutoring/completions" in out
    rows = [" ".join(line.split()) for line in out.splitlines()]
    # 3 layers of 32 x 4 x 8 in f32, cut by 4 x 2 devices; the student has two of the layers.
    query = "layers/attention/query/kernel"
    assert f"{query} 3 x 32 x 4 x 8 fsdp (4) on axis 1, tensor (2) on axis 2 0.00" in rows
    assert f"{query} 2 x 32 x 4 x 8 fsdp (4) on axis 1, tensor (2) on axis 2 0.00" in rows
    assert "final_norm/scale 32 replicated 0.00" in rows


def test_mistakes(tiny_config):
    code, _, err = planned(f"--config={tiny_config}", "--topology=v5x:4x4")
    assert code == 2
    assert "--topology=v5x:4x4: expected a TPU such as v5e:4x4; known: v4, v5e, v5p, v6e" in err


def test_without_data_the_limits_of_the_config_are_planned():
    from configs import medical_7b

    config = medical_7b.get_config()
    run = workload.opened(config, make_mesh(MeshConfig(2, 2, 2)).devices.ravel())
    by_stage, spending = {work.stage: work for work in workload.list_work(*run)}, expected(*run)
    # A row of 2,048 tokens has room for two sequences of 768 + 256: 250 answers, each in two
    # modes, in 250 rows, 16 a step.
    assert by_stage["apprenticeship/assistant"].steps == 16 * 3
    assert by_stage["tutoring/completions"].width == 768
    assert by_stage["tutoring/completions"].steps == 20
    assert spending.usd == pytest.approx(250 * (768 * 0.3 + 2048 * 2.5) / 1e6)
    assert spending.usd_high == pytest.approx(spending.usd * 300 / 250)


def test_the_assistants_logits_take_room_in_the_students_step(tiny_config, tiny_model, one_device):
    needs = []
    for weight, soft in (("0", 0), ("0.5", 4)):
        config = config_io.override(
            config_io.load(tiny_config), [f"logits.weight={weight}", "logits.top_k=4"]
        )
        (work,) = workload.list_work(*workload.opened(config), {"tutoring/student"})
        assert work.soft == soft
        shape = work.train, work.objective, work.targets
        needs.append(memory.train_step(tiny_model[0], *shape, one_device, work.soft))
    # Beside each target of four rows lie four ids, their log-probabilities and a weight.
    assert needs[1].total - needs[0].total >= 4 * work.targets * (4 * 8 + 4)


def test_the_step_is_that_of_the_objective_of_the_stage(
    tiny_config, tiny_model, one_device, monkeypatch
):
    loss, traced = SFT.loss, []

    def remember(self, *args):
        traced.append(self)
        return loss(self, *args)

    monkeypatch.setattr(SFT, "loss", remember)
    config = config_io.override(
        config_io.load(tiny_config), ["student_training.rationale_weight=0.125"]
    )
    (work,) = workload.list_work(*workload.opened(config), {"tutoring/student"})
    plan.memory_of(work, tiny_model[0], one_device)
    assert set(traced) == {SFT(0.125)}


def test_a_teacher_behind_an_api_is_planned_and_not_asked(tiny_config, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    config = config_io.override(
        config_io.load(tiny_config), ["teacher.kind=openai", "teacher.model=m", "selection.size=4"]
    )
    run = workload.opened(config)
    spending = expected(*run)
    assert {work.stage for work in workload.list_work(*run)} >= {"apprenticeship/assistant"}
    # Every reply may be as long as it is allowed to be.
    assert (spending.queries, spending.output_tokens) == (4, 4 * 512)
    assert spending.input_tokens > 4 * 50
    assert spending.usd == pytest.approx(
        1.25e-6 * spending.input_tokens + 10e-6 * spending.output_tokens, rel=0.01
    )


def test_the_highest_bill_has_the_retries_that_the_budget_leaves_room_for(tiny_config):
    def spending(*settings):
        common = ["teacher.kind=openai", "teacher.model=m", "selection.size=4"]
        config = config_io.override(config_io.load(tiny_config), [*common, *settings])
        return expected(*workload.opened(config))

    once = spending("budget.queries=100", "budget.usd=1.0")
    twice = spending("budget.queries=100", "budget.usd=1.0", "teacher.samples=2")
    assert twice.usd_high == pytest.approx(2 * once.usd_high, rel=0.2)
    retried = ("budget.queries=100", "teacher.samples=2", "teacher.retries=3")
    assert spending(*retried, "budget.usd=1.0").usd_high == pytest.approx(twice.usd_high * 5 / 2)
    assert spending(*retried, "budget.usd=0.06").usd_high == 0.06
    few = spending("budget.queries=10", "budget.usd=1.0", *retried[1:])
    assert few.usd_high == pytest.approx(twice.usd_high * 10 / 8)
    # What the caps refuse is shown all the same.
    assert spending(*retried, "budget.usd=0.001").usd_high == pytest.approx(twice.usd_high)


def test_a_replay_is_not_planned_at_the_price_of_a_batch(tiny_config, tmp_path):
    recorded = tmp_path / "a.jsonl"
    recorded.write_text('{"id": "x", "reply": "4"}\n')

    def usd(*settings):
        common = ["teacher.kind=openai", "teacher.model=m", "selection.size=4"]
        config = config_io.override(config_io.load(tiny_config), [*common, *settings])
        return expected(*workload.opened(config)).usd

    assert usd("teacher.batch=true") == pytest.approx(usd() / 2)
    replayed = f"teacher.replay_from={recorded}"
    assert usd(replayed, "teacher.batch=true") == usd(replayed)


def test_the_largest_batch_is_found_by_doubling():
    assert plan.largest_batch(lambda rows: rows <= 20, 4) == 16
    assert plan.largest_batch(lambda rows: rows <= 16, 4) == 16
    assert plan.largest_batch(lambda rows: rows <= 3, 4) == 0
    assert plan.largest_batch(lambda rows: True, 4) == 4 * plan.MOST


def test_a_published_model_needs_no_download(one_device):
    model = planned_config(RunConfig().assistant)
    assert model.num_layers == 30
    assert model.lora is not None
    from configs.models import PAIRS

    big = planned_config(PAIRS["qwen2.5-7b to qwen2.5-0.5b"].assistant)
    assert (big.num_layers, big.model_dim, big.num_kv_heads) == (28, 3584, 4)


def test_chips_are_found_by_what_devices_call_themselves():
    class Device:
        platform = "tpu"

        def __init__(self, kind, limit=None):
            self.device_kind, self.limit = kind, limit

        def memory_stats(self):
            return self.limit and {"bytes_limit": self.limit}

    for kind, name in {
        "TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v5p": "v5p", "TPU v6 lite": "v6e",
        "TPU v4": "v4", "TPU7x": "tpu7x",
    }.items():  # fmt: skip
        assert chips.local(Device(kind)) == chips.CHIPS[name], kind
    assert chips.local(Device("NVIDIA H100 80GB HBM3")).flops == 989e12
    assert chips.local(Device("NVIDIA A100-SXM4-40GB", 40e9)).memory == 40e9


def test_a_chip_of_two_devices_is_planned_and_billed_as_one():
    pytest.importorskip("libtpu")
    devices, chip = chips.topology("tpu7x:2x2x1")
    assert len(devices) == 8 and chip.devices == 2
    assert chips.memory(devices[0]) == chip.memory == 94.75 * chips.GIB  # As XLA says.
    assert len(devices) * chip.flops == 4 * 2307e12
    config = config_io.override(RunConfig(), ["data.pool=8", "data.test=4"])
    stages, lengths = workload.opened(config, devices)
    works = workload.list_work(stages, lengths, {"apprenticeship/warmup"})
    meshes = checks.meshes_of(stages, lengths.inputs)
    assert dict(meshes["assistant"].training.shape) == {"data": 1, "fsdp": 8, "tensor": 1}

    def measure(*_):
        return memory.Memory(2 * chips.GIB, 0, 0, 0, 0)

    (found,) = plan.plan_stages(config, works, meshes, chip, measure=measure)
    assert (found.devices, found.chips) == (8, 4)
    told = found.to_json()
    assert (told["chips"], told["gib_per_chip"], told["hbm_gib"]) == (4, 4, 189.5)
    assert plan.chip_hours([found]) == pytest.approx(4 * found.expected / 3600)


def test_on_a_cpu_the_rate_of_a_stage_is_that_of_the_dtype_of_its_products():
    """The same work, bound by its products, takes four times as long in f32 here."""
    chip = chips.Chip(2**34, 400.0, 1e30, 1e30, f32_flops=100.0)
    nothing = memory.Memory(1, 0, 0, 0, 0)

    def seconds(*settings):
        config = config_io.override(RunConfig(), ["data.pool=8", "data.test=4", *settings])
        stages, lengths = workload.opened(config)
        works = workload.list_work(stages, lengths, {"apprenticeship/warmup"})
        meshes = checks.meshes_of(stages, lengths.inputs)
        (found,) = plan.plan_stages(config, works, meshes, chip, measure=lambda *_: nothing)
        assert found.bound_by == "compute"
        return found.seconds

    assert seconds() == pytest.approx(4 * seconds("assistant.matmul=bfloat16"))
    assert chips.Chip(1.0, 400.0, 1.0, 1.0).flops_in(jnp.float32) == 400


def test_an_int8_base_is_proposed_for_a_training_that_does_not_fit():
    from configs import medical_7b

    config = medical_7b.get_config()
    stages, lengths = workload.opened(config)
    works = workload.list_work(stages, lengths, {"apprenticeship/warmup"})
    meshes = checks.meshes_of(stages, lengths.inputs)
    kinds = memory.Memory(1, 2, 3, 4, 5)
    (stage,) = plan.plan_stages(config, works, meshes, chips.CHIPS["v5e"], measure=lambda *_: kinds)

    def offered(config):
        candidates = list(proposals._candidates(config, stage, 4))
        return [n for n, each in enumerate(candidates) if "assistant.lora.base=int8" in each]

    (at,) = offered(config)
    assert at == 4  # After what changes no result.
    assert not offered(config_io.override(config, ["assistant.lora.base=int8"]))


def test_a_model_that_nobody_trained_is_scored_without_an_adapter():
    from configs import medical_7b

    def scored(*settings):
        config = config_io.override(medical_7b.get_config(), settings)
        run = workload.opened(config)
        (work,) = workload.list_work(*run, {"apprenticeship/scores"})
        return work.trained

    assert scored() and not scored("warmup.fraction=0")


def test_steps_that_differ_little_are_compiled_once(monkeypatch):
    from configs import medical_7b

    config, compiled = medical_7b.get_config(), []
    stages, lengths = workload.opened(config)
    works, meshes = workload.list_work(stages, lengths), checks.meshes_of(stages, lengths.inputs)

    def remember(work, model, mesh):
        compiled.append((work.role, type(work).__name__, mesh))
        assert getattr(work, "targets", 0) == max(
            getattr(w, "targets", 0) for w in works if (w.role, type(w)) == (work.role, type(work))
        )
        return memory.Memory(1, 2, 3, 4, 5)

    monkeypatch.setattr(plan, "memory_of", remember)
    planned = list(plan.plan_stages(config, works, meshes, chips.CHIPS["v5e"]))
    assert [stage.work for stage in planned] == works and planned[0].memory.total == 15
    # Trainings of one model differ in their steps and rates alone.
    assert len(works) == 13
    assert compiled == [
        ("assistant", "TrainingWork", meshes["assistant"].training),
        ("assistant", "ScoringWork", meshes["assistant"].training),
        ("student", "TrainingWork", meshes["student"].training),
        ("assistant", "GenerationWork", meshes["assistant"].generation),
        ("student", "GenerationWork", meshes["student"].generation),
    ]


class Refused:
    """A step that XLA does not compile, since it does not fit."""

    def __init__(self, said):
        self.said = said

    def compile(self, options):
        raise jax.errors.JaxRuntimeError(self.said)


@pytest.mark.parametrize(
    ("said", "total"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (18.50G) exceeds available HBM (15.75G).",
            18.5 * chips.GIB,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.53G of 15.75G hbm. "
            "Exceeded hbm capacity by 4.78G.",
            20.53 * chips.GIB,
        ),
    ],
)
def test_a_step_that_xla_refuses_is_an_answer(said, total):
    found = memory._memory(Refused(said), parameters=2**30, optimizer=2**20, cache=0)
    assert found.refused and found.total == int(total)
    assert found.parameters == 2**30 and found.temporary == int(total) - 2**30 - 2**20


def test_another_error_of_the_compiler_is_raised():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        memory._memory(Refused("INTERNAL: mosaic failed"), 1, 1, 1)


@pytest.mark.plans
def test_a_7b_that_does_not_fit_is_told_so_and_what_fits_is_proposed():
    pytest.importorskip("libtpu")
    from configs import medical_7b

    config = config_io.override(medical_7b.get_config(), ["mesh.data=4", "mesh.fsdp=1"])
    devices, chip = chips.topology("v5e:2x2")
    stages, lengths = workload.opened(config, devices)
    works = workload.list_work(stages, lengths, {"apprenticeship/warmup"})
    meshes = checks.meshes_of(stages, lengths.inputs)
    (found,) = plan.plan_stages(config, works, meshes, chip)
    # The base in bf16 is whole on each chip, 14.2 GiB of 15.75.
    assert not found.fits and found.memory.refused
    assert 15.75 < found.memory.total / chips.GIB < 25 and found.to_json()["fits"] is False
    changes, fitting = proposals.that_fits(config, found, devices, chip)
    assert changes == ("mesh.data=1", "mesh.fsdp=-1")
    assert fitting.fits and 3 < fitting.memory.total / chips.GIB < 14


def test_the_first_change_with_which_a_stage_fits_is_proposed(monkeypatch):
    """Changes that leave the base whole on each chip are tried first, and do not fit."""
    from configs import medical_7b

    config = config_io.override(medical_7b.get_config(), ["mesh.data=4", "mesh.fsdp=1"])
    devices, chip, tried = jax.devices()[:4], chips.CHIPS["v5e"], []

    def needs(work, model, mesh):
        tried.append((work.train.remat, mesh.shape["fsdp"]))
        whole = mesh.shape["fsdp"] == 1
        return memory.Memory(chip.memory if whole else 2, 0, 0, 1, 0, refused=whole)

    monkeypatch.setattr(plan, "memory_of", needs)
    stages, lengths = workload.opened(config, devices)
    works = workload.list_work(stages, lengths, {"apprenticeship/warmup"})
    (found,) = plan.plan_stages(config, works, checks.meshes_of(stages, lengths.inputs), chip)
    assert not found.fits and found.memory.refused
    changes, fitting = proposals.that_fits(config, found, devices, chip)
    assert changes == ("mesh.data=1", "mesh.fsdp=-1")
    assert fitting.fits and fitting.memory.total == 3
    assert tried[-1][1] == 4 and {fsdp for _, fsdp in tried[:-1]} == {1}


def test_generation_keeps_the_weights_that_were_read(one_device):
    config = config_io.override(RunConfig(), ["data.pool=8", "data.test=4"])
    stages, lengths = workload.opened(config, one_device.devices.ravel())
    works = workload.list_work(stages, lengths, {"evaluation/student"})
    meshes = checks.meshes_of(stages, lengths.inputs)
    patched = pytest.MonkeyPatch()
    with patched.context() as patch:
        patch.setattr(plan, "memory_of", lambda *_: memory.Memory(1, 0, 2, 3, 4))
        (found,) = plan.plan_stages(config, works, meshes, chips.CHIPS["v5e"])
    student = planned_config(config.student)
    assert found.memory.held == 4 * decoder.count_parameters(student)  # f32 on a CPU
    assert found.memory.total == 10 + found.memory.held
