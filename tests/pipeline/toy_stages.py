"""Stages of a few lines, with a config of three numbers, that note who ran with what."""

import dataclasses
import json
from typing import TypedDict

from bridge_jax.pipeline.artifacts import PARAMS, Artifact, record
from bridge_jax.pipeline.content import Hashes
from bridge_jax.pipeline.execution import Execution
from bridge_jax.pipeline.stages import Input, Stage, deep_keys
from bridge_jax.pipeline.storage import STAGES, Store


class Value(TypedDict):
    """The result of a toy stage."""

    value: object


@dataclasses.dataclass(frozen=True)
class Number:
    """Parameters of a toy stage."""

    number: int = 0


def artifact(name):
    return Artifact(name, name, "train", None, (record("value.json", Value), PARAMS))


class Calls:
    """A diamond of stages first -> left, right -> last that note who ran with what.

    Each leaves its parameters and the values of what it reads; `flat` are those that leave 0.
    """

    def __init__(self, workdir):
        self.workdir, self.config, self.made = workdir, {"a": 1, "b": 2, "c": 3}, []
        self.data, self.flat = "some data", set()

    def make(self, name):
        def run(params, out, **read):
            self.made.append(name)
            found = [params.number, *(r.record("value.json")["value"] for r in read.values())]
            out.write_record("value.json", {"value": 0 if name in self.flat else found})

        return run

    def stage(self, name, key="", reads=(), run=None):
        params = Number(self.config.get(key, 0))
        read = {each.split("/")[1]: each for each in reads}
        return Stage(artifact(name), run or self.make(name[2:]), params, read)

    def stages(self):
        return [
            self.stage("p/first", "a"),
            self.stage("p/left", "b", ["p/first"]),
            self.stage("p/right", "", ["p/first"]),
            self.stage("q/last", "c", ["p/left"]),
        ]

    def execution(self, stages=None, workdir=None, store=None, inputs=None, as_they_are=()):
        stages, inputs = stages or self.stages(), inputs or {}
        workdir = workdir or self.workdir
        return Execution(
            stages,
            inputs,
            workdir,
            store or Store(workdir / STAGES),
            Hashes(workdir / "cache" / "hashes.json"),
            deep_keys(self.stages() if as_they_are else stages, inputs),
            frozenset(as_they_are),
        )

    def run(self, stages=None, **others):
        """Returns (stages that were cached, stages that ran)."""
        self.made.clear()
        outcomes = list(self.execution(stages, **others).run())
        return [o.name[2:] for o in outcomes if o.cached], list(self.made)

    def value(self, name):
        return json.loads((self.workdir / name / "value.json").read_text())["value"]

    def folder(self, name):
        """Returns the folder that a stage's name in the workdir leads to."""
        return (self.workdir / name).resolve()


def text(value):
    """Returns an input that is known by its value."""
    return Input(lambda: value, lambda: value)
