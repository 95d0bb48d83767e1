"""The notebook runs from the first cell to the last; outputs that are committed suit any reader."""

import re
from pathlib import Path

import pytest

from tests import tiny, xla

nbformat = pytest.importorskip("nbformat")

NOTEBOOK = Path(__file__).parents[1] / "docs/first_model.ipynb"


def texts(notebook):
    """Returns what each code cell has printed."""
    return [
        "".join(output.get("text", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_it_can_be_read_anywhere():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    printed = "".join(texts(notebook))
    # Neither colors nor bars, neither warnings nor folders of the machine.
    assert not re.search(r"[\x1b\r]|Warning|/tmp|/home|/root|steps/s", printed)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert {output.output_type for output in outputs} <= {"stream", "execute_result"}
    assert all(output.get("name") != "stderr" for output in outputs)


@pytest.mark.slow  # A whole run.
def test_it_runs(tmp_path, monkeypatch):
    pytest.importorskip("openai")
    nbclient = pytest.importorskip("nbclient")
    jupyter_client = pytest.importorskip("jupyter_client")
    tiny.write_checkpoint(tmp_path / "checkpoint", max_positions=4096)
    small = {
        **{f"{role}.checkpoint": "checkpoint" for role in ("assistant", "student")},
        "student.keep_layers": "0,2",
        "data.pool": 24,
        "data.test": 8,
        "instruct.examples": 4,
        "generation.max_new_tokens": 4,
        **{f"{name}.steps": 2 for name in ("student_training", "assistant_training")},
        "warmup.train.steps": 2,
    }
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (settings,) = (c for c in notebook.cells if "settings" in c.metadata.get("tags", ()))
    settings.source += f"\nSETTINGS |= {small}"
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    monkeypatch.setenv("XLA_FLAGS", xla.flags(1))
    # Other users of the machine could listen to TCP, and the kernel warns of it.
    kernel = jupyter_client.AsyncKernelManager(
        kernel_name="python3", transport="ipc", ip=str(tmp_path / "kernel")
    )
    where = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(
        notebook,
        km=kernel,
        timeout=600,
        startup_timeout=300,
        shutdown_kernel="immediate",  # A failed cell does not leave a test that waits.
        resources=where,
    )
    client.execute()
    printed = texts(notebook)
    assert any("10 answers were bought for $0.0008" in text for text in printed)
    selection, predictions = printed[-3:-1]
    assert len(selection.splitlines()) == 10
    assert all(team in "billing delivery login technical" for team in selection.split()[:1])
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 13
    assert predictions.count("\n") >= 12
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert all(output.get("name") != "stderr" for output in outputs)
