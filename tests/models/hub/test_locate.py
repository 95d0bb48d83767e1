"""Hub ids: the files that are fetched, and what is said when they cannot be."""

import huggingface_hub
import pytest

from bridge_jax.errors import UserError
from bridge_jax.models.hub import files


def test_a_hub_id_becomes_its_folder_and_no_pickle_is_fetched(monkeypatch, tmp_path):
    asked = []

    def snapshot_download(repo, **patterns):
        asked.append(repo)
        names = ["config.json", "model-00001-of-00002.safetensors", "pytorch_model.bin", "a.py"]
        names += ["consolidated.safetensors", "original/consolidated.00.pth"]
        fetched = huggingface_hub.utils.filter_repo_objects(names, **patterns)
        assert list(fetched) == names[:2]
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert files.locate("Qwen/Qwen2.5-0.5B-Instruct") == tmp_path
    assert files.locate("Qwen/Qwen2.5-0.5B-Instruct") == tmp_path
    assert asked == ["Qwen/Qwen2.5-0.5B-Instruct"]


@pytest.mark.parametrize("error", [ConnectionError("no route"), TimeoutError()])
def test_a_hub_that_cannot_be_reached_is_named(error, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=r"'no-such/model-0'.*Hugging Face hub.*HF_TOKEN"):
        files.locate("no-such/model-0")


@pytest.mark.parametrize("wrong", ["nowhere", "./a/b", "a/b/c", "no such/model"])
def test_what_is_no_hub_id_is_not_asked_for(wrong):
    with pytest.raises(UserError, match="no such folder or file; give"):
        files.locate(wrong)
