import numpy as np
import pytest
from safetensors.numpy import save_file

from bridge_jax.errors import UserError
from bridge_jax.models.hub import export
from tests.full_disk import files_up_to


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: save_file({"a": np.ones(10_000)}, folder / "model.safetensors"),
        lambda folder: (folder / "config.json").write_bytes(b" " * 10_000),
    ],
    ids=["tensors", "text"],
)
def test_a_full_disk_leaves_no_folder(tmp_path, write):
    with (
        files_up_to(5_000),
        pytest.raises(UserError, match=r"--out=.*out: .*File too large.*; free some space or"),
        export.folder(tmp_path / "out") as folder,
    ):
        write(folder)
    assert list(tmp_path.iterdir()) == []
