"""Reads rows with the `datasets` library, from the Hugging Face hub or local files and folders.

Cells of CSV and TSV files stay texts; an empty cell is a missing value.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bridge_jax.config import DataConfig
from bridge_jax.data.formats import section
from bridge_jax.data.rows import BadRowError, Row
from bridge_jax.errors import UserError

# A file's suffix -> the builder of `datasets` that reads it.
_KINDS = {"jsonl": "json", "json": "json", "parquet": "parquet", "csv": "csv", "tsv": "csv"}


def read_dataset(config: DataConfig, setting: str) -> Iterator[Row]:
    """Yields the rows of all splits, each with the name of its split unless a column has it.

    Class indices become class names. Floats of 16 and 32 bits get the fewest digits that identify
    them.

    Args:
      config: names the dataset, file or folder.
      setting: the setting that names `config.path`, for messages.

    Raises:
      UserError: the library is missing, or cannot load what `config.path` names.
    """
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            f"{section(setting)}.source=hf needs the datasets library: pip install "
            "'bridge-jax[datasets]'"
        ) from None
    try:
        loaded, is_csv = _load(datasets, config)
    except Exception as error:
        # `datasets` says "while generating"; the reason is in the cause of that error.
        told = (error, error.__cause__) if error.__cause__ else (error,)
        reason = " ".join(" ".join(str(each) for each in told).split())[:500]
        several = ""
        if setting == "data.path":
            several = "; data.config selects one of several configs, data.revision a version"
        raise UserError(
            f"{setting}={config.path}: datasets cannot load it ({type(error).__name__}: "
            f"{reason}); give a dataset on the hub, or a local file or folder of parquet, JSON or "
            f"CSV{several}"
        ) from error
    split_column = config.columns.get("split", "split")
    answer_column = config.columns.get("answer", "answer")
    for name, rows in loaded.items():
        classes, small = {}, {}  # Columns of classes -> class names; of short floats -> type.
        for column, feature in rows.features.items():
            if isinstance(feature, datasets.ClassLabel):
                classes[column] = feature.names
            elif getattr(feature, "dtype", None) in ("float16", "float32"):
                small[column] = np.dtype(feature.dtype).type
        labels = tuple(classes.get(answer_column, ()))
        for number, value in enumerate(rows):
            if is_csv:
                value = {column: cell or None for column, cell in value.items()}
            # A split column takes precedence over the splits of the dataset.
            if value.get(split_column) is None:
                value = {**value, split_column: name}
            value = value | {c: float(str(t(value[c]))) for c, t in small.items() if value[c]}
            yield _dataset_row(config.path, f"{name} row {number}", value, classes, labels)


def _dataset_row(
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
            return Row(
                file,
                place,
                {},
                BadRowError(f"{column}={index} is not a class", f"{column} is not a class"),
            )
        # A class whose name is its own index stays a number, the index of an option.
        if known[index] != str(index):
            value[column] = known[index]
    return Row(file, place, value, labels=labels)


def _load(datasets: Any, config: DataConfig) -> tuple[Any, bool]:
    """Returns a dict of splits, and whether they come from CSV or TSV files."""
    file, path = Path(config.path), config.path
    if file.exists() and config.revision:
        raise ValueError(f"data.revision={config.revision} requires a hub dataset; this is local")
    if file.is_file():  # A single file is read by its type.
        if config.config:
            raise ValueError(
                f"data.config={config.config} requires a dataset; this is a single file"
            )
        suffix = file.suffix.lstrip(".")
        if suffix not in _KINDS:
            raise ValueError(f"unknown type .{suffix}")
        path = _KINDS[suffix]
        options = {"data_files": config.path} | ({"sep": "\t"} if suffix == "tsv" else {})
    else:
        options = {"name": config.config or None, "revision": config.revision or None}
    builder = datasets.load_dataset_builder(path, **options)
    # Without types, pandas would guess them, and a cell would depend on the other rows.
    is_csv = hasattr(builder.config, "pd_read_csv_kwargs")
    if is_csv:
        columns = _header(datasets, builder.config)
        texts = datasets.Features({column: datasets.Value("string") for column in columns})
        options |= {"features": texts, "na_filter": False}
    return datasets.load_dataset(path, **options), is_csv


def _header(datasets: Any, csv: Any) -> list[str]:
    """Returns the columns of CSV files; raises a ValueError unless all files have the same."""
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
                    f"{', '.join(columns)}; use the same names"
                )
    return columns or []
