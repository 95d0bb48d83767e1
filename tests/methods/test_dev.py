"""A training that measures itself on the dev split."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from bridge_jax.config import DataConfig, GenerationConfig, ModelConfig, RunConfig, TrainConfig
from bridge_jax.config.io import override
from bridge_jax.data.answers import answer_of, is_correct
from bridge_jax.errors import UserError
from bridge_jax.methods import checks
from bridge_jax.methods.tutoring import STUDENT
from bridge_jax.runs import Run
from tests import plain
from tests.methods import one_stage

MEASURED = ("labels_training.dev_every=3", "labels_training.dev_metric=accuracy")


@pytest.fixture
def start(checkpoint, tmp_path):
    """Makes a run on labels alone, with assignments."""
    train = TrainConfig(epochs=2, batch_rows=4, row_tokens=160, learning_rate=1e-2)
    base = RunConfig(
        method="labels",
        data=DataConfig(pool=16, dev=6, test=4, max_steps=1),
        student=ModelConfig(str(checkpoint)),
        labels_training=train,
        generation=GenerationConfig(max_new_tokens=4, batch_size=4),
    )
    base = override(base, ["instruct.examples=0"])

    def start(*settings, name="run"):
        return Run(override(base, settings), tmp_path / name)

    return start


def measured(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {r["step"]: (r["dev_loss"], r["dev_accuracy"]) for r in rows if "dev_loss" in r}


@pytest.mark.slow
def test_a_training_measures_loss_and_accuracy_and_trains_as_without(start):
    job = start(*MEASURED)
    out = one_stage.run_alone(job, STUDENT)
    found = measured(out.path)
    unmeasured = start(name="plain")
    one_stage.run_alone(unmeasured, STUDENT)
    losses = [
        [row["loss"] for row in one_stage.folder_of(run, STUDENT).rows("metrics.jsonl")]
        for run in (job, unmeasured)
    ]
    assert losses[0] == losses[1]
    # What was kept are the parameters after the last step: their values by hand.
    model = job.inputs.model("student").load(out, jnp.float32)
    reading, dev = job.inputs.rendering("student"), job.inputs.dev
    answers = list(reading.labelled(dev, dev.digest))
    nll = np.concatenate(plain.nll(model.config, model.params, answers))
    engine = model.engine(job.config.generation, 0)
    asked = [reading.prompt(example, "answer") for example in dev]
    texts = [model.tokenizer.decode(done.ids) for done in engine.complete_all(asked)]
    right = [is_correct(answer_of(text, example), example) for text, example in zip(texts, dev)]
    last = max(found)
    assert found[last][0] == pytest.approx(np.mean(nll), rel=1e-4)
    assert found[last][1] == np.mean(right)
    assert list(found) == [*range(2, last, 3), last]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["labels_training.keep_best=true"], r"labels_training\.keep_best needs .*dev_every"),
        (["labels_training.patience=2"], r"labels_training\.patience needs .*dev_every"),
        (
            ["instruct.examples=4", "instruct.train.dev_every=2"],
            r"instruct\.train\.dev_every=2: the dev split does not measure",
        ),
    ],
)
def test_what_cannot_be_measured_is_found_in_the_config(start, settings, said):
    with pytest.raises(UserError, match=said):
        checks.validate(override(start().config, settings))


def test_data_without_a_dev_split_cannot_be_measured_on(start, tmp_path):
    path = tmp_path / "rows.jsonl"
    row = '{"question": "What is %d?", "answer": "1", "split": "%s"}\n'
    path.write_text("".join(row % (i, "train" if i else "test") for i in range(9)))
    job = start(*MEASURED, "data.source=jsonl", f"data.path={path}", "data.kind=numeric")
    with pytest.raises(UserError, match=r"dev_every=3: the data has no dev split"):
        one_stage.check(job)


def test_only_a_training_that_measures_reads_the_dev_split(start):
    def readers(job):
        return {stage.name for stage in job.stages if "data/dev" in stage.reads.values()}

    assert readers(start()) == set()
    assert readers(start(*MEASURED)) == {STUDENT.name}
