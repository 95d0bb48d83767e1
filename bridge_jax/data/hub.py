"""Datasets of the Hugging Face hub, and local files and folders, by the `datasets` library.

The cells of CSV and TSV are texts, as they were written; an empty one is a missing value.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bridge_jax.config import DataConfig
from bridge_jax.data.bad_rows import BadRowError
from bridge_jax.data.columns import Row
from bridge_jax.errors import UserError

_KINDS = {"jsonl": "json", "json": "json", "parquet": "parquet", "csv": "csv", "tsv": "csv"}


def read(config: DataConfig, part: str = "data") -> Iterator[Row]:
    """Yields the rows of all splits, each with the name of its split unless a column has it.

    Classes become their names, and numbers of 32 bits are as short as they were written.

    Args:
      config: what to load.
      part: of the run's config that says so, for messages.

    Raises:
      UserError: the library is missing, or cannot load what `config.path` names.
    """
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            f"{part}.source=hf needs the datasets library: pip install 'bridge-jax[datasets]'"
        ) from None
    try:
        loaded, is_csv = _load(datasets, config)
    except Exception as error:
        reason = " ".join(str(error).split())[:500]
        several = ""
        if part == "data":
            several = "; data.config names one of several configs, data.revision a version"
        raise UserError(
            f"{part}.path={config.path}: datasets cannot load it ({type(error).__name__}: "
            f"{reason}); give a dataset of the hub, or a local file or folder of parquet, JSON or "
            f"CSV{several}"
        ) from error
    split_column = config.columns.get("split", "split")
    answer_column = config.columns.get("answer", "answer")
    for name, rows in loaded.items():
        classes, small = _special(datasets, rows.features)
        labels = tuple(classes.get(answer_column, ()))
        for number, value in enumerate(rows):
            if is_csv:
                value = {column: cell or None for column, cell in value.items()}
            # A dataset keeps its splits apart; a column overrides that.
            if value.get(split_column) is None:
                value = {**value, split_column: name}
            value = value | {c: float(str(t(value[c]))) for c, t in small.items() if value[c]}
            yield _row(config.path, f"{name} row {number}", value, classes, labels)


def _row(
    file: str,
    place: str,
    value: dict[str, Any],
    classes: Mapping[str, list[str]],
    labels: tuple[str, ...],
) -> Row:
    for column, known in classes.items():
        index = value[column]
        if not isinstance(index, int):
            continue
        if not 0 <= index < len(known):
            kind = f"{column} has no class"
            return Row(file, place, {}, BadRowError(f"{column}={index} is no class", kind))
        # A class whose name is its own index stays the index of an option.
        if known[index] != str(index):
            value[column] = known[index]
    return Row(file, place, value, labels=labels)


def _special(datasets: Any, features: Any) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Returns the names of each column of classes, and the type of each of short floats."""
    classes, small = {}, {}
    for column, feature in features.items():
        if isinstance(feature, datasets.ClassLabel):
            classes[column] = feature.names
        elif getattr(feature, "dtype", None) in ("float16", "float32"):
            small[column] = np.dtype(feature.dtype).type
    return classes, small


def _load(datasets: Any, config: DataConfig) -> tuple[Any, bool]:
    """Returns a dict of splits, and whether they are of CSV or TSV files."""
    path, options = _asked(config)
    builder = datasets.load_dataset_builder(path, **options)
    # Left to itself, pandas would guess types: a cell would depend on the other rows.
    is_csv = hasattr(builder.config, "pd_read_csv_kwargs")
    if is_csv:
        columns = _header(datasets, builder.config)
        texts = datasets.Features({column: datasets.Value("string") for column in columns})
        options |= {"features": texts, "na_filter": False}
    return datasets.load_dataset(path, **options), is_csv


def _asked(config: DataConfig) -> tuple[str, dict[str, Any]]:
    """Returns what `datasets` is asked for; a single local file is read by its type."""
    path = Path(config.path)
    if path.exists() and config.revision:
        raise ValueError(f"data.revision={config.revision} is of the hub, and this is on the disk")
    if not path.is_file():
        return config.path, {"name": config.config or None, "revision": config.revision or None}
    if config.config:
        raise ValueError(f"data.config={config.config} is of a dataset, and this is one file")
    suffix = path.suffix.lstrip(".")
    if suffix not in _KINDS:
        raise ValueError(f"unknown type .{suffix}")
    options = {"sep": "\t"} if suffix == "tsv" else {}
    return _KINDS[suffix], {"data_files": config.path, **options}


def _header(datasets: Any, csv: Any) -> list[str]:
    """Returns the columns of CSV files, which have to be the same in all of them."""
    import pandas as pd  # pyright: ignore[reportMissingImports]

    options = csv.pd_read_csv_kwargs | {"chunksize": None, "nrows": 1, "dtype": str}
    downloads = datasets.DownloadManager()
    columns, first = None, ""
    for files in downloads.download_and_extract(csv.data_files).values():
        for file in downloads.iter_files(files):
            frame = pd.read_csv(file, **options)
            found = list(frame.columns)
            if csv.index_col is None and not isinstance(frame.index, pd.RangeIndex):
                raise ValueError(f"{file}: line 2 has more cells than the header; give each a name")
            if columns is None:
                columns, first = found, file
            elif set(found) != set(columns):
                raise ValueError(
                    f"{file} has the columns {', '.join(found)}, and {first} has "
                    f"{', '.join(columns)}; name them alike"
                )
    return columns or []
