"""Checks server addresses, and whether an API key may be sent to them."""

import ipaddress
from urllib.parse import parse_qsl, urlsplit

from bridge_jax.errors import UserError

# A query parameter whose name contains one of these is a secret, such as `?api_key=...`.
_SECRET = ("key", "token", "secret", "password", "sig", "auth")


def check(url: str, name: str = "teacher.base_url") -> None:
    """Raises a `UserError` unless `url` is empty or an HTTP address that holds no secret.

    Args:
      url: the address as the user wrote it; messages show it only if it holds no secret.
      name: the name of the setting, for messages.
    """
    if not url:
        return
    # Checked before anything is shown: a password may contain any character, so in a malformed
    # address nothing marks where it ends.
    if "@" in url:
        raise UserError(
            f"{name} contains a user name or a password (the part before the @), which would be "
            "written to config.json; remove it, and set the key in the environment"
        )
    secrets = [n for n, _ in _query(url) if any(part in n.lower() for part in _SECRET)]
    if secrets:
        raise UserError(
            f"{name} contains a secret (parameter {secrets[0]!r}), which would be written to "
            "config.json; remove it, and set the key in the environment"
        )
    if not _host(url):
        raise UserError(
            f"{name}={url}: not a server address; use one such as http://localhost:8000/v1"
        )


def is_private(url: str) -> bool:
    """Returns whether `url` uses HTTPS or names this machine, so that a key can be sent there."""
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
    """Returns the host of an HTTP address; "" if `url` is not one."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # Reading the port validates it.
    except ValueError:
        return ""
    is_http = parts.scheme in ("http", "https") and all(c.isprintable() and c != " " for c in url)
    return (parts.hostname or "") if is_http else ""


def _query(url: str) -> list[tuple[str, str]]:
    query = url.partition("#")[0].partition("?")[2]
    return parse_qsl(query, keep_blank_values=True)
