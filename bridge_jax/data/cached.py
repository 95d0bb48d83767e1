"""Loads examples, converted once and cached on disk, with digests of their content."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from bridge_jax import caches
from bridge_jax.config import DataConfig
from bridge_jax.data import sources, storing
from bridge_jax.data.example import Splits
from bridge_jax.data.task import with_text

_PART = "examples.jsonl"
_DIGESTS = "_digests"  # An attribute beside the fields: `dataclasses.replace` leaves it out.

# What loading a file does not depend on: where it is, what is done with the examples, and practice.
_ELSEWHERE = ("path", "rationale", "labelled")
_PRACTICE = ("domains", "min_steps", "max_steps", "families", "label_share")


def load(config: DataConfig, seed: int, folder: Path | None, content: str) -> Splits:
    """Returns what `sources.load` returns; from `folder`, if it was loaded before.

    Args:
      config: where the examples come from.
      seed: of practice tasks, which are never kept.
      folder: where examples are kept; None keeps nothing.
      content: the SHA-256 of the file or folder; "" keeps nothing.

    Raises:
      UserError: as `sources.load`; then nothing is kept.
    """
    if folder is None or not content or config.source == "practice":
        return sources.load(config, seed)
    name = _name(config, content)
    if (splits := _read(folder, name, config.path)) is not None:
        return splits
    splits = sources.load(config, seed)
    texts = storing.texts_of(splits)
    vars(splits)[_DIGESTS] = storing.digests_of(texts)
    data = storing.dump(texts, splits)
    facts = {
        "what": "examples",
        "digests": digests(splits),
        "counts": {part: len(getattr(splits, part)) for part in storing.PARTS},
    }
    caches.write(folder, name, {_PART: lambda file: file.write(data)}, facts)
    return splits


def digests(splits: Splits) -> dict[str, str]:
    """Returns the SHA-256 of the content of each part, computed once.

    `pool`, `dev` and `test` are of what models read: all fields but the recorded rationales, which
    only teachers read. Those are `pool_recorded`, `dev_recorded` and `test_recorded`.
    """
    known = vars(splits)
    if _DIGESTS not in known:
        known[_DIGESTS] = storing.digests_of(storing.texts_of(splits))
    return known[_DIGESTS]


def _name(config: DataConfig, content: str) -> str:
    told = with_text(config)
    settings = {
        field.name: getattr(told, field.name)
        for field in dataclasses.fields(told)
        if field.name not in (*_ELSEWHERE, *_PRACTICE)
    }
    settings = {k: dict(v) if isinstance(v, Mapping) else v for k, v in settings.items()}
    kind = Path(config.path).suffix  # By which datasets tells CSV from JSON.
    versions = caches.versions_of("datasets")
    return caches.name_of("examples", caches.code_of("tasks"), versions, settings, kind, content)


def _read(folder: Path, name: str, path: str) -> Splits | None:
    facts = caches.read(folder, name, (_PART,))
    if facts is None:
        return None
    try:
        splits = storing.load(caches.path_of(folder, name, _PART).read_bytes(), path)
        vars(splits)[_DIGESTS] = dict(facts["digests"])
    except (OSError, ValueError, LookupError, TypeError):  # Replaced just now.
        return None
    return splits
