"""Who is asked is part of a request."""

import dataclasses

import pytest

from bridge_jax.config import TeacherConfig
from bridge_jax.ledger.requests import Message, Request
from bridge_jax.teachers.servers import server_of, vendor_of


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in ("OPENAI_BASE_URL", "GOOGLE_GEMINI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def of(kind, base_url, **settings):
    return server_of(TeacherConfig(kind=kind, model="m", base_url=base_url, **settings))


@pytest.mark.parametrize(
    ("kind", "spellings"),
    [
        (
            "openai",
            [
                *("", "https://api.openai.com/v1", "https://api.openai.com/v1/"),
                *("HTTPS://API.OpenAI.com:443/v1/", "https://api.openai.com./v1"),
            ],
        ),
        ("gemini", ["", "https://generativelanguage.googleapis.com/"]),
    ],
)
def test_the_vendors_own_server_has_no_name(kind, spellings):
    assert {of(kind, spelling) for spelling in spellings} == {""}


@pytest.mark.parametrize(
    ("spelling", "server"),
    [
        ("http://Localhost:8000/v1/", "http://localhost:8000/v1"),
        ("http://localhost:80/v1", "http://localhost/v1"),
        ("https://localhost:80/v1", "https://localhost:80/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("https://api.openai.com/V1", "https://api.openai.com/V1"),
        ("http://api.openai.com/v1", "http://api.openai.com/v1"),
        # No secret is on the ledger.
        ("https://me:secret@proxy.example/v1?key=secret#x", "https://proxy.example/v1"),
        ("not a url/", "not a url"),
        ("http://host:port/v1", "http://host:port/v1"),
    ],
)
def test_another_server_is_spelled_in_one_way(spelling, server):
    assert of("openai", spelling) == server


def test_what_the_sdk_finds_in_the_environment_is_a_server_too(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1/")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://localhost:9000/")
    assert of("openai", "") == "http://localhost:8000/v1"
    assert of("openai", "https://api.openai.com/v1") == ""
    assert of("gemini", "") == "http://localhost:9000"
    assert of("gemini", "", backend="google-generativeai") == ""
    assert of("oracle", "") == ""


def test_requests_to_two_servers_are_two_and_old_keys_stay():
    request = Request("a", "m", (Message("user", "1 + 1?"),), 64)
    keys = {
        dataclasses.replace(request, server=server).key
        for server in ("", "http://a/v1", "http://b/v1")
    }
    assert len(keys) == 3
    # As a ledger of before has it: nothing of the server is in it.
    assert "server" not in request.to_json()


def test_a_batch_job_is_of_the_server_that_has_it():
    assert vendor_of(TeacherConfig(kind="openai")) == "openai"
    one = TeacherConfig(kind="openai", base_url="http://a/v1")
    other = dataclasses.replace(one, base_url="http://b/v1")
    assert vendor_of(one) == "openai at http://a/v1" != vendor_of(other)
