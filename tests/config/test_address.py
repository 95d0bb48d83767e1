import pytest

from bridge_jax.config import RunConfig, address
from bridge_jax.config import io as config_io
from bridge_jax.errors import UserError
from bridge_jax.methods.checks import validate


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("https://api.example.com/v1", True),
        ("http://localhost:8000/v1", True),
        ("http://LOCALHOST./v1", True),
        ("http://vllm.localhost/v1", True),
        ("http://127.0.0.1:8000", True),
        ("http://127.8.9.1", True),
        ("http://[::1]:8000/v1", True),
        ("http://[::ffff:127.0.0.1]/v1", True),
        ("http://api.example.com/v1", False),
        ("http://10.0.0.5:8000", False),
        ("http://128.0.0.1", False),
        ("http://localhost.example.com", False),
        ("http://notlocalhost", False),
        ("http://2130706433", False),
        ("http://[::2]", False),
    ],
)
def test_a_key_is_private_over_https_and_on_this_machine(url, private):
    address.check(url)
    assert address.is_private(url) == private


@pytest.mark.parametrize(
    "url",
    [
        "https://user:pa55word@api.example.com/v1",
        "https://pa55word@api.example.com",
        "http://user:pa55word@localhost:8000",
        "https://user:pa55?w/ord@host",
        "user:pa55word@host",
        "https://api.example.com/v1?key=pa55word",
        "https://api.example.com/v1?api-version=1&Api-Key=pa55word",
        "https://api.example.com/v1?access_token=pa55word#x",
    ],
)
def test_an_address_that_holds_a_secret_is_refused_and_not_shown(url):
    with pytest.raises(UserError, match=r"teacher\.base_url contains a .*environment") as caught:
        address.check(url)
    assert "pa55" not in str(caught.value)
    config = config_io.override(
        RunConfig(), ["teacher.kind=openai", "teacher.model=m", f"teacher.base_url={url}"]
    )
    with pytest.raises(UserError, match=r"teacher\.base_url contains a "):
        validate(config)


@pytest.mark.parametrize(
    "url",
    ["not a url", "localhost:8000/v1", "ftp://host", "http://", "http://[::1", "http://h:99999"],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(UserError, match="not a server address; use one such as"):
        address.check(url)


def test_a_parameter_that_is_no_secret_and_no_address_at_all_are_fine():
    address.check("https://api.example.com/v1?api-version=2024-10-21")
    address.check("")
