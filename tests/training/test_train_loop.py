import contextlib
import dataclasses
import json
import signal
import sqlite3
import struct
import sys
import types

import jax
import numpy as np
import pytest

from bridge_jax import timing
from bridge_jax.config import MeshConfig, ModelConfig, TrainConfig
from bridge_jax.errors import UserError
from bridge_jax.models import decoder
from bridge_jax.models.hub import checkpoint as checkpoints
from bridge_jax.parallel import preemption
from bridge_jax.parallel.sharding import make_mesh, parameter_shardings
from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import TrainingSequence
from bridge_jax.training import loop, recorder, step
from bridge_jax.training.batches import Shuffled, steps_of
from bridge_jax.training.objectives.sft import SFT
from tests.full_disk import files_up_to

CONFIG = TrainConfig(epochs=4, batch_rows=2, row_tokens=24, learning_rate=1e-2, checkpoint_every=2)
RNG = np.random.default_rng(0)
SEQUENCES = [
    TrainingSequence(
        RNG.integers(3, 90, 4).tolist(),
        RNG.integers(3, 90, 5).tolist(),
        [*RNG.integers(3, 90, 2), 1],
    )
    for _ in range(8)
]  # 12 tokens each: 4 rows, 2 steps an epoch, 8 steps


@pytest.fixture(scope="module")
def tiny_model(checkpoint):
    """One layer is enough here, and compiles sooner."""
    return checkpoints.load(ModelConfig(str(checkpoint), keep_layers=(1,)))


def run(out, model, mesh, config=CONFIG, name="student", **options):
    out.mkdir(exist_ok=True)
    decoder_config, params = model
    boxed = jax.eval_shape(lambda: decoder.init(decoder_config, jax.random.key(0)))
    shardings = parameter_shardings(boxed, mesh)
    params = jax.tree.map(lambda p, s: jax.device_put(p.copy(), s), params, shardings)
    rows = pack(SEQUENCES, config.row_tokens, 2)
    steps = steps_of(rows, config)
    data = Shuffled(rows, config.batch_rows, steps, 0)
    options |= {"steps": steps, "config": config, "seed": 0, "mesh": mesh}
    return loop.train(out, name, decoder_config, params, SFT(), data, **options)


def lines(out):
    """Returns the metrics, without those of the clock."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    clock = ("step_seconds", "tokens_per_second")
    return [{k: v for k, v in row.items() if k not in clock} for row in rows]


@pytest.fixture
def stop_at(monkeypatch):
    """Makes the training step of later calls raise at a step, and counts the compilations."""
    real = loop.make_train_step
    made = []

    def install(at, error=KeyboardInterrupt):
        def make(*args, **settings):
            step_fn = real(*args, **settings)
            made.append(step_fn)

            def step(state, frozen, batch, rate):
                if int(state.step) == at:
                    raise error
                return step_fn(state, frozen, batch, rate)

            return step

        monkeypatch.setattr(loop, "make_train_step", make)
        return made

    return install


def mesh_of(kind):
    if kind == "eight":
        return make_mesh(MeshConfig(2, 2, 2))
    if kind == "one":
        return make_mesh(devices=jax.devices()[:1])
    return make_mesh(MeshConfig(1, 2, 2), jax.devices()[:4])


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("kind", ["one", pytest.param("four", marks=pytest.mark.slow)])
def test_resumed_training_is_the_same_to_the_bit(kind, tmp_path, tiny_model, stop_at):
    mesh = mesh_of(kind)
    made = stop_at(None)
    expected = run(tmp_path / "whole", tiny_model, mesh)
    assert [step._cache_size() for step in made] == [1]  # compiled once
    whole = lines(tmp_path / "whole")
    assert [row["step"] for row in whole] == list(range(8))
    assert whole[-1]["loss"] < 0.8 * whole[0]["loss"]
    assert [p.name for p in (tmp_path / "whole" / "state").iterdir()] == ["6"]  # every 2

    stop_at(5)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", tiny_model, mesh)
    assert len(lines(tmp_path / "cut")) == 4  # read a step late
    assert (tmp_path / "cut" / "state").exists()

    made = stop_at(None)
    before = len(made)
    found = run(tmp_path / "cut", tiny_model, mesh)
    equal(found, expected)
    assert lines(tmp_path / "cut") == whole
    assert [step._cache_size() for step in made[before:]] == [1]


@contextlib.contextmanager
def full_disk_from(at):
    """Makes the disk take no more when the state after a step is to be saved."""
    real = loop.StateCheckpoints.save
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patched:

        def save(self, step, state, position):
            if step == at:
                self.manager.wait_until_finished()
                stack.enter_context(files_up_to(4_000))
            real(self, step, state, position)

        patched.setattr(loop.StateCheckpoints, "save", save)
        yield


def test_after_a_full_disk_training_goes_on_from_the_state_before(
    tmp_path, tiny_model, one_device, capfd
):
    expected = run(tmp_path / "whole", tiny_model, one_device)
    full = tmp_path / "full"
    with full_disk_from(4), pytest.raises(UserError) as found:
        run(full, tiny_model, one_device)
    assert str(found.value) == (
        f"{full}/state: File too large: the training state could not be saved. Free some "
        "space or fix the disk, then run the same command again: it resumes after step 2"
    )
    assert "Traceback" not in "".join(capfd.readouterr())
    equal(run(full, tiny_model, one_device), expected)
    assert lines(full) == lines(tmp_path / "whole")

    # The state of the last steps serves nobody once all of them are done.
    last = tmp_path / "last"
    with full_disk_from(6):
        equal(run(last, tiny_model, one_device), expected)
    assert [path.name for path in (last / "state").iterdir() if path.name.isdigit()] == ["4"]


def test_an_end_before_the_first_checkpoint_begins_again(tmp_path, tiny_model, one_device, stop_at):
    stop_at(0)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, tiny_model, one_device)
    assert lines(tmp_path) == []
    stop_at(2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, tiny_model, one_device)
    assert [row["step"] for row in lines(tmp_path)] == [0, 1]


def test_a_loss_that_is_not_finite_names_the_step(tmp_path, tiny_model, one_device):
    config, params = tiny_model
    broken = params | {"embedding": np.full_like(params["embedding"], np.nan)}
    with pytest.raises(UserError, match=r"assistant: the loss is nan at step 0; lower learning_r"):
        run(tmp_path, (config, broken), one_device, name="assistant")


def test_damaged_state_names_the_folder(tmp_path, tiny_model, one_device, stop_at):
    stop_at(5)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, tiny_model, one_device)
    data = [f for f in (tmp_path / "state").rglob("*") if f.is_file() and "d" in f.parent.name]
    assert data
    for file in data:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    stop_at(None)
    with pytest.raises(UserError, match=r"state.*is damaged"):
        run(tmp_path, tiny_model, one_device)


@pytest.mark.slow
def test_a_run_goes_on_with_fewer_devices(tmp_path, tiny_model, stop_at):
    config = dataclasses.replace(CONFIG, batch_rows=4, epochs=8)
    stop_at(None)
    expected = run(tmp_path / "whole", tiny_model, mesh_of("eight"), config)
    stop_at(5)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", tiny_model, mesh_of("eight"), config)
    stop_at(None)
    found = run(tmp_path / "cut", tiny_model, mesh_of("four"), config)
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(found)} == {4}
    for a, b in zip(lines(tmp_path / "cut"), lines(tmp_path / "whole"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=0, abs=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4), found, expected)


def test_a_notice_saves_the_step_and_ends(tmp_path, tiny_model, one_device, monkeypatch):
    config = dataclasses.replace(CONFIG, checkpoint_every=100)
    expected = run(tmp_path / "whole", tiny_model, one_device, config)
    shard_batch, seen = loop.shard_batch, []

    def with_notice(batch, mesh, accumulate):
        seen.append(batch)
        if len(seen) == 4:
            signal.raise_signal(signal.SIGTERM)
        return shard_batch(batch, mesh, accumulate)

    monkeypatch.setattr(loop, "shard_batch", with_notice)
    with pytest.raises(preemption.Preempted):
        run(tmp_path / "cut", tiny_model, one_device, config)
    assert [p.name for p in (tmp_path / "cut" / "state").iterdir()] == ["4"]
    assert len(lines(tmp_path / "cut")) == 4  # the step of the notice is the last
    equal(run(tmp_path / "cut", tiny_model, one_device, config), expected)
    assert len(seen) == 8  # no step twice
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")


def test_the_step_is_traced_once(tmp_path, tiny_model, one_device, monkeypatch):
    """In all trainings of a process that differ only in their rates and epochs."""
    step._jitted.cache_clear()
    traces, real = [], step.loss_and_gradients
    monkeypatch.setattr(
        step, "loss_and_gradients", lambda *args: traces.append(args) or real(*args)
    )
    for name, rate in (("one", 1e-3), ("two", 1e-2)):
        config = dataclasses.replace(CONFIG, learning_rate=rate)
        run(tmp_path / name, tiny_model, one_device, config)
        assert len(lines(tmp_path / name)) == 8
    assert len(traces) == 1
    step._jitted.cache_clear()


def test_utilisation_is_logged_where_the_chip_is_known(
    tmp_path, tiny_model, one_device, monkeypatch
):
    monkeypatch.setattr(recorder.chips, "peak_flops", lambda devices: 1e9 * len(devices))
    run(tmp_path / "out", tiny_model, one_device, flops_per_token=1e3)
    rows = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    for row in rows:
        # 2 rows of two sequences of 12 tokens.
        assert row["mfu"] * row["step_seconds"] == pytest.approx(48 * 1e3 / 1e9)


class Clock:
    """A clock that stands still until something takes time."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def taking(self, seconds, function):
        """Returns the function, each call of which takes so many seconds."""

        def call(*args, **options):
            self.now += seconds
            return function(*args, **options)

        return call


@dataclasses.dataclass
class SlowLoss:
    """The loss of a step that has been sent off: reading it takes a second."""

    loss: jax.Array
    clock: Clock

    def __array__(self, dtype=None, copy=None):
        self.clock.now += 1.0
        return np.asarray(self.loss, dtype)


@pytest.fixture
def clock(monkeypatch):
    """The clock of the recorder and of the spans; each step takes a second of it."""
    clock, make = Clock(), loop.make_train_step

    def make_slow(*args, **options):
        step_fn = make(*args, **options)

        def step(*args):
            state, metrics = step_fn(*args)
            return state, metrics | {"loss": SlowLoss(metrics["loss"], clock)}

        return step

    monkeypatch.setattr(loop, "make_train_step", make_slow)
    monkeypatch.setattr(recorder, "time", clock)
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_the_time_of_a_step_has_neither_measurements_nor_checkpoints(
    tmp_path, tiny_model, one_device, clock, monkeypatch
):
    monkeypatch.setattr(recorder.chips, "peak_flops", lambda devices: 1e6)
    save = loop.StateCheckpoints.save
    monkeypatch.setattr(loop.StateCheckpoints, "save", clock.taking(1000, save))
    measure = clock.taking(100, scripted([3.0, 2.0, 1.0], []))
    spans, config = timing.Spans(), dataclasses.replace(CONFIG, dev_every=3)
    options = {"measure": measure, "spans": spans, "flops_per_token": 1e3}
    run(tmp_path / "out", tiny_model, one_device, config, **options)
    rows = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    # Measured after steps 3, 6 and 8; saved after 2, 4 and 6. 4 sequences of 12 tokens a step.
    assert [row["step_seconds"] for row in rows] == [1.0] * 8
    assert [row["tokens_per_second"] for row in rows] == [48.0] * 8
    assert [row["mfu"] for row in rows] == pytest.approx([0.048] * 8)
    assert spans.take()["spans"] == {"data": 0.0, "dev": 300.0, "checkpoint": 3000.0}
    assert clock.now == 8 + 300 + 3000


def scalars(folder):
    """Returns {(tag, step): value} of TensorBoard's files; later files win."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = {}
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:  # records: length, its checksum, an event, its checksum
            (length,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            found |= {(v.tag, event.step): v.simple_value for v in event.summary.value}
            data = data[16 + length :]
    return found


def test_tensorboard_gets_the_same_numbers(tmp_path, tiny_model, one_device):
    run(tmp_path / "out", tiny_model, one_device, curves=("tensorboard",))
    found = scalars(tmp_path / "out" / "tensorboard")
    rows = lines(tmp_path / "out")
    assert {step for _, step in found} - {0} == set(range(1, 8))
    for row in rows:
        assert found["loss", row["step"]] == pytest.approx(row["loss"], rel=1e-6)
    assert ("tokens_per_second", 3) in found and ("step", 3) not in found


class FakeCurves(types.ModuleType):
    """wandb or trackio, as far as it is used; `fails` has the names of functions that raise."""

    def __init__(self, name, *fails):
        super().__init__(name)
        self.begun, self.logged, self.ended, self.fails = [], [], 0, fails

    def Settings(self, **how):
        return how

    def init(self, **how):
        self.begun.append(how)
        self._fail("init")

    def log(self, values, step):
        self.logged.append((step, values))
        self._fail("log")

    def finish(self):
        self.ended += 1
        self._fail("finish")

    def _fail(self, name):
        if name in self.fails:
            raise ConnectionError(f"no {name}")


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_other_curves_get_the_same_numbers(tmp_path, tiny_model, one_device, monkeypatch, name):
    fake = FakeCurves(name)
    monkeypatch.setitem(sys.modules, name, fake)
    run(tmp_path / "out", tiny_model, one_device, curves=(name,))
    text = (tmp_path / "out/metrics.jsonl").read_text()
    assert [{"step": step} | values for step, values in fake.logged] == [
        json.loads(line) for line in text.splitlines()
    ]
    (begun,) = fake.begun
    assert (begun["project"], begun["resume"], fake.ended) == ("bridge-jax", "allow", 1)
    # A training that goes on is the same run to them; one in another folder is not.
    run(tmp_path / "out", tiny_model, one_device, curves=(name,))
    run(tmp_path / "other", tiny_model, one_device, curves=(name,))
    names = [how["name"] for how in fake.begun]
    assert names[0] == names[1] != names[2]
    if name == "wandb":
        assert begun["id"] in begun["name"]
        assert begun["settings"]["console"] == "off" and begun["settings"]["disable_git"]


@pytest.mark.parametrize("fails", ["init", "log", "finish"])
def test_curves_that_fail_stop_no_training(
    tmp_path, tiny_model, one_device, monkeypatch, caplog, fails
):
    fake = FakeCurves("trackio", fails)
    monkeypatch.setitem(sys.modules, "trackio", fake)
    run(tmp_path / "out", tiny_model, one_device, curves=("trackio",))
    assert len(lines(tmp_path / "out")) == 8
    assert len(fake.logged) == {"init": 0, "log": 1, "finish": 8}[fails]
    (warning,) = [r.getMessage() for r in caplog.records if "curves" in r.getMessage()]
    assert (
        f"curves=trackio: disabled for the rest of this training (ConnectionError: no {fails})"
        in warning
    )


def test_curves_that_cannot_be_drawn_are_found_at_the_start(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)  # As if it were not installed.
    with pytest.raises(UserError, match=r"curves=trackio requires .* 'bridge-jax\[trackio\]'"):
        recorder.check(("trackio",))
    monkeypatch.setitem(sys.modules, "wandb", FakeCurves("wandb"))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="set the environment variable WANDB_API_KEY"):
        recorder.check(("wandb",))
    monkeypatch.setenv("WANDB_MODE", "offline")
    recorder.check(("wandb",))
    recorder.check(())


def test_trackio_itself_keeps_the_numbers_on_this_machine(
    tmp_path, tiny_model, one_device, monkeypatch
):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    run(tmp_path / "out", tiny_model, one_device, curves=("trackio",))
    (database,) = (tmp_path / "trackio").glob("*.db")
    with contextlib.closing(sqlite3.connect(database)) as found:
        steps = found.execute("SELECT step, metrics FROM metrics ORDER BY step").fetchall()
    kept = {step: json.loads(values)["loss"] for step, values in steps}
    assert kept == pytest.approx({row["step"]: row["loss"] for row in lines(tmp_path / "out")})


def scripted(values, seen, metric="loss"):
    """Returns a measurement that says one value after the other, and keeps what it was given."""
    left = iter(values)

    def measure(params):
        seen.append(jax.tree.map(np.asarray, params))
        return {metric: next(left)}

    return measure


def dev_reads(out):
    return {row["step"]: row["dev_loss"] for row in lines(out) if "dev_loss" in row}


def test_the_parameters_of_the_best_measurement_are_kept(tmp_path, tiny_model, one_device):
    config = dataclasses.replace(CONFIG, dev_every=3, keep_best=True)
    seen = []
    measure = scripted([2.0, 1.0, 1.5], seen)
    found = run(tmp_path / "best", tiny_model, one_device, config, measure=measure)
    assert dev_reads(tmp_path / "best") == {2: 2.0, 5: 1.0, 7: 1.5}  # the last step is measured too
    equal(found, seen[1])
    plain = run(tmp_path / "plain", tiny_model, one_device)
    equal(seen[2], plain)  # measuring changes nothing
    assert lines(tmp_path / "plain") == [
        {k: v for k, v in row.items() if k != "dev_loss"} for row in lines(tmp_path / "best")
    ]


def test_a_measurement_that_is_not_finite_is_an_error(tmp_path, tiny_model, one_device):
    config = dataclasses.replace(CONFIG, dev_every=3, keep_best=True)
    measure = scripted([float("nan")], [])
    with pytest.raises(UserError, match=r"the loss on the dev split is nan; lower learning_rate"):
        run(tmp_path, tiny_model, one_device, config, measure=measure)


def test_an_accuracy_is_best_when_it_is_high(tmp_path, tiny_model, one_device):
    config = dataclasses.replace(CONFIG, dev_every=4, keep_best=True, dev_metric="accuracy")
    seen = []
    measure = scripted([0.75, 0.5], seen, "accuracy")
    equal(run(tmp_path, tiny_model, one_device, config, measure=measure), seen[0])


def test_training_stops_when_the_loss_has_not_improved(tmp_path, tiny_model, one_device, stop_at):
    config = dataclasses.replace(CONFIG, dev_every=1, keep_best=True, patience=2)
    values, seen = [3.0, 2.0, 2.0, 2.5, 1.0], []
    found = run(tmp_path / "a", tiny_model, one_device, config, measure=scripted(values, seen))
    assert dev_reads(tmp_path / "a") == {0: 3.0, 1: 2.0, 2: 2.0, 3: 2.5}
    equal(found, seen[1])
    # Killed after step 2, whose state holds the best one and how long it is ago.
    stop_at(3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", tiny_model, one_device, config, measure=scripted(values, []))
    stop_at(None)
    measure = scripted(values[2:], [])
    equal(run(tmp_path / "b", tiny_model, one_device, config, measure=measure), found)
    assert lines(tmp_path / "b") == lines(tmp_path / "a")


def test_averaged_parameters_are_those_of_the_formula(tmp_path, tiny_model, one_device):
    seen, config = [], dataclasses.replace(CONFIG, dev_every=1)
    run(tmp_path / "plain", tiny_model, one_device, config, measure=scripted([1.0] * 8, seen))
    averaged = dataclasses.replace(CONFIG, ema_decay=0.75)
    found = run(tmp_path / "average", tiny_model, one_device, averaged)
    # Equal weights for 4 steps, and then 1/4 for the newest.
    expected = seen[0]
    for number, params in enumerate(seen[1:], start=2):
        w = max(1 / number, 0.25)
        expected = jax.tree.map(lambda a, p, w=w: (1 - w) * a + w * p, expected, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)
