"""Identifies the server that answers, so that answers of one are not taken for another's."""

import os
import urllib.parse

from bridge_jax.config import TeacherConfig

# Of each kind: the vendor's own server, and where its SDK looks for another if none is given.
_VENDORS = {
    "openai": ("https://api.openai.com/v1", "OPENAI_BASE_URL"),
    "gemini": ("https://generativelanguage.googleapis.com", "GOOGLE_GEMINI_BASE_URL"),
}
_PORTS = {"http": 80, "https": 443}


def server_of(config: TeacherConfig) -> str:
    """Returns the server that a teacher asks; "" is the vendor's own, or none at all.

    The same server is spelled the same: `HTTPS://API.OpenAI.com:443/v1/` is OpenAI's own. What may
    be secret in an address (a name and password, a query) is left out.
    """
    if config.kind not in _VENDORS:
        return ""
    own, variable = _VENDORS[config.kind]
    given = config.base_url.strip()
    if not given and config.backend == "google-genai":  # The other SDK of Gemini reads no variable.
        given = os.environ.get(variable, "").strip()
    found = _spelled(given)
    return "" if found == own else found


def vendor_of(config: TeacherConfig) -> str:
    """Returns who works on a teacher's batch jobs; no other server is asked what became of them."""
    server = server_of(config)
    return f"{config.kind} at {server}" if server else config.kind


def _spelled(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    try:
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:  # No port: the SDK will say so.
        return url.rstrip("/")
    if not host:
        return url.rstrip("/")
    host = f"[{host}]" if ":" in host else host
    place = host if port in (None, _PORTS.get(parts.scheme)) else f"{host}:{port}"
    return f"{parts.scheme}://{place}{parts.path.rstrip('/')}"
