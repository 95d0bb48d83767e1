"""What the files of a run hold, compared with the rows of the table that declare them."""

import typing
from pathlib import Path

from bridge_jax import methods
from bridge_jax.pipeline import files, storage
from bridge_jax.pipeline.artifacts import Manifest


def undeclared(workdir: Path) -> list[str]:
    """Returns the fields that are missing in a file of a finished stage, or are not declared."""
    wrong: list[str] = []
    for name, artifact in methods.table().items():
        if not storage.finished(workdir, name):
            continue
        folder = storage.Folder(workdir / name, artifact)
        wrong += _differ(f"{name}/{storage.MANIFEST}", [folder.record(storage.MANIFEST)], Manifest)
        for file in artifact.files:
            if file.kind == "rows":
                found = files.read_rows(folder.path / file.name)
            elif file.kind == "record":
                found = [folder.record(file.name)]
            else:
                assert (folder.path / file.name).exists() or file.kind == "params"
                continue
            wrong += _differ(f"{name}/{file.name}", found, file.row)
    return wrong


def _differ(file: str, rows: list[dict], row: typing.Any) -> list[str]:
    declared, required = set(typing.get_type_hints(row)), row.__required_keys__
    found = [required - each.keys() | each.keys() - declared for each in rows]
    return sorted({f"{file}: {field}" for fields in found for field in fields})
