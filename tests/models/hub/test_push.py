"""Exported folders on the hub, and licences as the base model's own metadata has them."""

import typing

import huggingface_hub
import pytest

from bridge_jax.errors import UserError
from bridge_jax.models.hub import export
from bridge_jax.models.hub.files import licence_of
from bridge_jax.models.hub.gguf_file import bundled_smollm2

TOKEN = "hf_secret"


class FakeHub:
    """The hub's client, as far as it is used."""

    endpoint = "https://hub.example"
    calls: typing.ClassVar[list] = []
    error: Exception | None = None

    def __init__(self, token):
        self.calls.append(("token", token))

    def create_repo(self, name, private, exist_ok):
        self.calls.append(("create", name, private, exist_ok))

    def upload_folder(self, repo_id, folder_path):
        if self.error:
            raise self.error
        self.calls.append(("upload", repo_id, folder_path))


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    monkeypatch.setattr(FakeHub, "calls", [])
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return FakeHub


@pytest.mark.parametrize("public", [False, True])
def test_a_repository_is_private_unless_asked_otherwise(hub, tmp_path, public):
    assert export.push(tmp_path, "me/model", public) == "https://hub.example/me/model"
    assert hub.calls == [
        ("token", TOKEN),
        ("create", "me/model", not public, True),
        ("upload", "me/model", tmp_path),
    ]


def test_what_the_hub_refuses_is_told_with_the_way_to_try_again(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "error", ConnectionError(f"no route with {TOKEN}\nmore"))
    with pytest.raises(UserError) as error:
        export.push(tmp_path, "me/model", False)
    said = str(error.value)
    assert f"{tmp_path} was written, but the upload failed" in said
    assert "(ConnectionError: no route with HF_TOKEN)" in said
    assert said.endswith(f"hf upload me/model {tmp_path} --private")
    assert TOKEN not in said and error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_what_is_missing_is_found_before_the_work(hub, monkeypatch):
    with pytest.raises(UserError, match="--push=model: give the repository as ORGANIZATION/NAME"):
        export.check_token("model")
    monkeypatch.setenv("HF_TOKEN", " ")
    with pytest.raises(UserError, match="set the environment variable HF_TOKEN"):
        export.check_token("me/model")
    assert hub.calls == []


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\nlanguage: en\n---\n# A model\n", "apache-2.0"),
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("---\nlicense: [a, b]\n---\n", ""),
        ("---\nlicense: 'x\n---\n", ""),
        ("---\n- license\n---\n", ""),
        ("---\nlicense: !!python/name:os.system\n---\n", ""),
        ("license: mit\n", ""),
        ('---\nlicense: "a\\n---"\n---\n', ""),
    ],
)
def test_the_licence_of_a_folder_is_that_of_its_card(tmp_path, card, licence):
    assert licence_of(tmp_path) == ""
    (tmp_path / "README.md").write_bytes(card.encode())
    assert licence_of(tmp_path) == licence


def test_the_licence_of_a_gguf_file_is_that_of_its_header():
    pytest.importorskip("gguf")
    assert licence_of(bundled_smollm2()) == "apache-2.0"
