"""Say why nobody answers at an address: asked once something has failed, for the error's text."""

from __future__ import annotations

import socket

from . import endpoints
from .errors import ConfigError

TRY_FOR = 0.3  # seconds


def why_no_answer(text: str) -> str:
    """What a plain TCP connection to the endpoint `tcp://host:port` meets, in a few words."""
    try:
        endpoint = endpoints.parse(text, "endpoint")
        address = endpoints.resolve(endpoint)[0]
    except ConfigError as error:
        return str(error).rpartition(f"{text}: ")[2]
    if endpoint.is_wildcard:
        address = "127.0.0.1"
    try:
        with socket.create_connection((address, endpoint.port), timeout=TRY_FOR):
            return "the port is open but no relay answers: it hangs, or this is another service"
    except socket.timeout:
        return "no reply from this address: host down, or a firewall"
    except OSError as error:
        return (error.strerror or str(error)).lower()
