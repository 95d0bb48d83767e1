"""The library as the README shows it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import bridge_jax as bj
from bridge_jax import library
from bridge_jax.selection import scores
from bridge_jax.selection.scores import Scores
from tests import tiny

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A tiny checkpoint with room for the practice prompts."""
    return tiny.write_checkpoint(tmp_path_factory.mktemp("wide") / "tiny", max_positions=1024)


@pytest.mark.slow
def test_the_readmes_lines(wide, tmp_path, monkeypatch):
    (block,) = re.findall(
        r"```python\n(import bridge_jax.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    assert len(block.strip().splitlines()) <= 15
    asked = []
    monkeypatch.setattr(bj, "run", lambda *where: asked.append(where))
    monkeypatch.chdir(tmp_path)
    names = {}
    small = {"smollm2-135m": str(wide), "pool=64": "pool=30"}
    # A random model writes long texts. Both trainings are one program.
    for examples in ("taught", "kept"):
        small[f"{examples}, bj.TrainConfig(epochs=8)"] = (
            f"{examples}, bj.TrainConfig(row_tokens=512)"
        )
    for old, new in small.items():
        assert old in block
        block = block.replace(old, new)
    # A random model is never right.
    monkeypatch.setattr(bj, "is_right", lambda text, example: True)
    exec(block, names)
    assert asked == [("configs/quickstart.py", "runs/quickstart")]
    assert len(names["chosen"]) == 24 == len({example.id for example in names["chosen"]})
    again = bj.load_model("models/student")
    for one, other in zip(jax.tree.leaves(names["student"].params), jax.tree.leaves(again.params)):
        np.testing.assert_array_equal(one, other)
    before = jax.tree.leaves(bj.load_model(str(wide)).params)
    assert any(
        (one != np.asarray(old)).any() for one, old in zip(jax.tree.leaves(again.params), before)
    )


def test_importing_it_loads_no_jax():
    code = "import sys, bridge_jax; print('jax' in sys.modules, 'run' in dir(bridge_jax))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_every_name_is_there():
    assert all(getattr(bj, name) is not None for name in dir(bj))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        bj.trian  # noqa: B018


@pytest.mark.slow
def test_an_adapter_alone_is_trained(wide):
    settings = bj.ModelConfig(str(wide), lora=bj.LoraConfig(rank=2))
    model, data = bj.load_model(settings), bj.read_data(bj.DataConfig(pool=8, test=1))
    taught = [(example, None) for example in data.pool]
    before = jax.tree.map(np.asarray, model.params)
    after = bj.train(model, taught, bj.TrainConfig(epochs=1, row_tokens=512)).params
    changed = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), after, before)
    paths = jax.tree_util.tree_flatten_with_path(changed)[0]
    moved = {jax.tree_util.keystr(path) for path, is_changed in paths if is_changed}
    assert moved and all("lora" in name for name in moved)


@pytest.fixture
def taught():
    """Eight labelled examples, without rationales."""
    return [(example, None) for example in bj.read_data(bj.DataConfig(pool=8, test=1)).pool]


@pytest.mark.parametrize(
    ("settings", "dev", "message"),
    [
        (bj.TrainConfig(keep_best=True), False, "keep_best needs measurements on the dev split"),
        (bj.TrainConfig(accumulate=3), False, "accumulate=3 does not divide batch_rows=8"),
        (bj.TrainConfig(dev_every=2), False, "dev_every=2, but `dev` has 0 examples"),
        (bj.TrainConfig(), True, "dev_every=0, but `dev` has 8 examples"),
        (bj.TrainConfig(epochs=0), False, "epochs=0"),
    ],
)
def test_contradicting_settings_are_found_before_training(wide, taught, settings, dev, message):
    examples = [example for example, _ in taught] if dev else []
    with pytest.raises(bj.UserError, match=message):
        bj.train(bj.load_model(str(wide)), taught, settings, dev=examples)


@pytest.mark.slow
def test_the_best_parameters_on_dev_are_kept(wide, taught, tmp_path):
    """A rate that ruins the model: the best measurement is one of the first."""
    settings = bj.TrainConfig(
        epochs=4,
        batch_rows=2,
        row_tokens=512,
        learning_rate=3.0,
        warmup_fraction=1.0,
        dev_every=1,
        keep_best=True,
    )
    dev = [example for example, _ in taught]
    kept = bj.train(bj.load_model(str(wide)), taught, settings, dev=dev, folder=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    measured = [line["dev_loss"] for line in lines if "dev_loss" in line]
    assert len(measured) > 2 and min(measured) < measured[-1]
    assert not (tmp_path / "state").exists()
    # The loss by another way: the mean over answers, weighed by their tokens and the end token.
    tokens = [len(kept.tokenizer.encode(f"Answer: {example.answer}")) + 1 for example in dev]
    sequences = library._rendering(kept).labelled(dev, "")
    scored = scores.score(kept.config, kept.params, sequences, 512, 0, kept.mesh)
    loss = np.average(scored.nll, weights=tokens)
    assert loss == pytest.approx(min(measured), rel=1e-4)


def test_a_bucket_is_no_workdir():
    with pytest.raises(bj.UserError, match="workdir=gs://bucket/run: gs:// cannot be written yet"):
        bj.run(bj.RunConfig(), "gs://bucket/run")


def test_an_answer_is_right_or_not(taught):
    example = taught[0][0]
    assert bj.is_right(f"So it is.\nAnswer: {example.answer}", example)
    assert not bj.is_right(f"So it is {example.answer}.", example)


def test_a_rationale_is_what_is_before_the_last_answer():
    assert bj.rationale_of("Half of 8.\nAnswer: 3\nNo.\nAnswer: 4") == "Half of 8.\nAnswer: 3\nNo."
    assert bj.rationale_of("No answer yet.") == "No answer yet."


def test_selection_takes_the_pool_that_was_scored():
    pool = bj.read_data(bj.DataConfig(pool=8, test=1)).pool
    scores = Scores(*np.arange(24, dtype=np.float32).reshape(3, 8), np.eye(8, dtype=np.float32))
    hardest = bj.SelectionConfig(strategy="difficulty", within_labels=False, noise_fraction=0)
    assert bj.select(scores, pool, 3, hardest) == [7, 6, 5]
    with pytest.raises(bj.UserError, match="scores of 8 examples do not match 7"):
        bj.select(scores, pool[1:], 3, hardest)
    with pytest.raises(bj.UserError, match="requires gradients"):
        bj.select(scores, pool, 3, bj.SelectionConfig(strategy="badge"))
