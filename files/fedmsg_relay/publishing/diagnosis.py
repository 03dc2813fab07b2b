"""Say why nobody answers at an address: asked once something has failed, for the error's text."""

from __future__ import annotations

import socket
import threading
import time

from .. import endpoints
from ..errors import ConfigError
from ..lookup import Lookup

# Seconds: for a connection; and for all that is asked about several endpoints, since looking up
# names takes many seconds where the name service is what has failed.
TRY_FOR = 0.3
TRY_ALL_FOR = 1.0


def why_no_answers(texts: list[str]) -> dict[str, str]:
    """`why_no_answer` of each endpoint, all asked at the same time and within TRY_ALL_FOR."""
    found = dict.fromkeys(texts, "its name cannot be looked up, the name service does not answer")

    def ask(text: str) -> None:
        found[text] = why_no_answer(text)

    # Daemons: the process may end while one of them still waits for the name service.
    threads = [threading.Thread(target=ask, args=(text,), daemon=True) for text in texts]
    for thread in threads:
        thread.start()
    end = time.monotonic() + TRY_ALL_FOR
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return dict(found)


def why_no_answer(text: str) -> str:
    """What a plain TCP connection to the endpoint `tcp://host:port` meets, in a few words."""
    try:
        endpoint = endpoints.parse(text, "endpoint")
        addresses = endpoints.resolve(endpoint)
    except ConfigError as error:
        return str(error).rpartition(f"{text}: ")[2]
    address = "127.0.0.1" if endpoint.is_wildcard else addresses[0]
    if len(addresses) > 1:
        # Of the one that those who connect take, if any.
        lookup = Lookup(endpoint.host, endpoint.port, to_choose=True)
        lookup.wait(TRY_FOR)
        address = lookup.for_libzmq()[0] if lookup.chosen is not None else address
        lookup.close()
    try:
        with socket.create_connection((address, endpoint.port), timeout=TRY_FOR) as connection:
            if _is_cut(connection):
                return "it ends the connection: its relay_allow does not name this host"
            return "the port is open but no relay answers: it hangs, or this is another service"
    except socket.timeout:
        return "no reply from this address: host down, or a firewall"
    except OSError as error:
        return (error.strerror or str(error)).lower()


def _is_cut(connection: socket.socket) -> bool:
    """Whether the other end greets as ZeroMQ does, or not at all, and ends the connection.

    A relay does that when it has seen whose it is; any other service waits for us to say something.
    """
    came = b""
    end = time.monotonic() + TRY_FOR
    try:
        while time.monotonic() < end:
            connection.settimeout(max(0.001, end - time.monotonic()))
            received = connection.recv(64)
            if not received:
                return came[:1] in (b"", b"\xff")
            came += received
    except ConnectionError:
        return came[:1] in (b"", b"\xff")
    except OSError:  # it waits
        pass
    return False
