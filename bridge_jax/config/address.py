"""Checks the addresses of servers, and whether a key may be sent to them."""

import ipaddress
from urllib.parse import parse_qsl, urlsplit

from bridge_jax.errors import UserError

# Parts of the names of query parameters that are secrets, such as `?api_key=...`.
_SECRET = ("key", "token", "secret", "password", "sig", "auth")


def check(url: str, name: str = "teacher.base_url") -> None:
    """Raises a `UserError` unless `url` is empty, or an address of HTTP that holds no secret.

    Args:
      url: as the user wrote it. It is shown only where it holds no secret.
      name: of the setting, for messages.
    """
    if not url:
        return
    # Before anything is shown. (A password may hold any character, so that nothing can tell where
    # one in a malformed address ends.)
    if "@" in url:
        raise UserError(
            f"{name} holds a user name or a password (what stands before its @), which would be "
            "written to config.json; leave it out, and give the key in the environment"
        )
    secrets = [n for n, _ in _query(url) if any(part in n.lower() for part in _SECRET)]
    if secrets:
        raise UserError(
            f"{name} holds a secret (its parameter {secrets[0]!r}), which would be written to "
            "config.json; leave it out, and give the key in the environment"
        )
    if not _host(url):
        raise UserError(
            f"{name}={url}: no address of a server; give one such as http://localhost:8000/v1"
        )


def is_private(url: str) -> bool:
    """Returns whether `url` is HTTPS or this machine, so that a key can be sent there."""
    return urlsplit(url).scheme == "https" or is_loopback(_host(url))


def is_loopback(host: str) -> bool:
    """Returns whether a host is this machine: 127.0.0.0/8, ::1 or localhost."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _host(url: str) -> str:
    """Returns the host of an address of HTTP; "" if it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # It is checked when it is read.
    except ValueError:
        return ""
    is_http = parts.scheme in ("http", "https") and all(c.isprintable() and c != " " for c in url)
    return (parts.hostname or "") if is_http else ""


def _query(url: str) -> list[tuple[str, str]]:
    query = url.partition("#")[0].partition("?")[2]
    return parse_qsl(query, keep_blank_values=True)
