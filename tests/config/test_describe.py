"""Every field has a doc, and what is told of it is so."""

import dataclasses

import pytest

from bridge_jax.config import DataConfig, RunConfig, describe
from bridge_jax.config.io import override
from bridge_jax.errors import UserError


def groups(config, prefix=""):
    yield config, prefix
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from groups(value, f"{prefix}{field.name}.")


def test_every_field_has_a_doc_a_type_and_a_default_that_a_flag_can_have():
    found = [f for group in groups(RunConfig()) for f in describe.fields(*group)]
    assert {"seed", "warmup.train.epochs", "assistant.lora.rank"} <= {field.key for field in found}
    assert [field.key for field in found if not field.doc] == []
    values = [field for field in found if field.group is None]
    assert all(field.kind for field in values)
    # The defaults as flags change nothing.
    flags = [f"{field.key}={field.default}" for field in values]
    assert override(RunConfig(), flags) == RunConfig()


def test_no_doc_is_of_a_field_that_is_not_there():
    for group, _ in groups(RunConfig()):
        assert set(describe.docs(type(group))) <= {f.name for f in dataclasses.fields(group)}


def test_docs_are_whole():
    found = describe.docs(DataConfig)
    assert found["config"] == found["revision"]
    assert found["path"] == "the file, or the hub's dataset name."
    assert found["min_rouge"] == "ROUGE-L from which a free text counts as right. Our default."
    assert found["source"].endswith("file or folder that the datasets library reads).")


def test_types_and_defaults():
    found = {field.key: field for field in describe.fields(RunConfig().data, "data.")}
    assert found["data.pool"].kind == "whole number, 0 or more"
    assert found["data.pool"].default == "0"
    assert found["data.domains"].default == "samples,filings,invoices"
    assert found["data.labelled"].kind == "true | false"
    assert found["data.labelled"].default == "true"
    assert found["data.on_bad_row"].kind == "error | skip"
    assert found["data.path"].kind == "path"


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("teachr", "teacher"), ("warmup.trian", "warmup.train"), ("seed.x", "seed")],
)
def test_the_nearest_name_is_told(key, nearest):
    with pytest.raises(UserError, match=f"unknown config key '{key}'; did you mean '{nearest}'"):
        describe.at(RunConfig(), key)
