"""Endpoints: what the config calls an address, and which of them are on this machine.

An endpoint is `tcp://HOST:PORT`, HOST being a name, an IPv4 address, an IPv6 address in brackets or
`*`. Publishers and listeners connect to all of them; a relay binds those that are its own.
"""

from __future__ import annotations

import errno
import socket
from typing import NamedTuple

from .errors import ConfigError

WILDCARDS = ("*", "0.0.0.0", "::")


class Endpoint(NamedTuple):
    """One address of the config: `text` as written there, `host` without brackets, `port`."""

    text: str
    host: str
    port: int

    @property
    def is_wildcard(self) -> bool:
        return self.host in WILDCARDS

    def at(self, address: str) -> str:
        """This endpoint with `address`, a numeric address or `*`, in place of the host."""
        return f"tcp://{_bracketed(address)}:{self.port}"


def parse(text: str, key: str) -> Endpoint:
    """Take `tcp://host:port` apart. Raises ConfigError, which names `key`."""
    scheme, _, rest = text.partition("://")
    host, _, port = rest.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    valid = port.isascii() and port.isdigit() and 0 < int(port) < 65536
    if scheme != "tcp" or not host or not valid:
        raise ConfigError(f"{key}: {text!r} is not an address like tcp://host:port")
    return Endpoint(text, host, int(port))


def resolve(endpoint: Endpoint) -> list[str]:
    """The numeric addresses of the endpoint's host: all IPv4 ones or, where it has none, IPv6 ones.

    libzmq takes IPv4 only unless it is told otherwise, and every fedmsg listener goes by that, so a
    name with both must be bound where they will look. Raises ConfigError.
    """
    if endpoint.is_wildcard:
        return [endpoint.host]
    try:
        found = socket.getaddrinfo(endpoint.host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{endpoint.text}: cannot resolve {endpoint.host!r}: {reason}") from error
    for family in (socket.AF_INET, socket.AF_INET6):
        addresses = list(dict.fromkeys(str(f[4][0]) for f in found if f[0] == family))
        if addresses:
            return addresses
    raise ConfigError(f"{endpoint.text}: {endpoint.host!r} has no IP address")


def is_local(address: str) -> bool:
    """Whether a numeric address is one of this machine's: the kernel lets a socket be bound to it.

    Asked of the kernel rather than read from a list of interfaces, since that is what binding the
    real port will meet; port 0 disturbs nobody.
    """
    if address in WILDCARDS:
        return True
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Python takes the zone of a link-local address as a number beside it, which this finds.
        sockaddr: tuple[object, ...] = (address, 0)
        if "%" in address:
            sockaddr = socket.getaddrinfo(address, 0, family, flags=socket.AI_NUMERICHOST)[0][4]
        try:
            probe.bind(sockaddr)
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                return False
            raise
    return True


def is_loopback(address: str) -> bool:
    """Whether other machines cannot reach a numeric address."""
    import ipaddress  # not at the top: fedmsg-logger pays for every import and never asks this

    return address not in WILDCARDS and ipaddress.ip_address(address.partition("%")[0]).is_loopback


def local_addresses(texts: list[str], key: str, may_be_none: bool = False) -> dict[str, Endpoint]:
    """What a relay binds: numeric `tcp://address:port` to the endpoint it came from, in order.

    An endpoint of another relay host, or one whose name does not resolve here, is not ours and is
    passed over. Raises ConfigError if an address is malformed or none is on this machine, which
    `may_be_none` allows.
    """
    if not texts and not may_be_none:
        raise ConfigError(f"config key {key} is empty: it must list at least one tcp://host:port")
    found: dict[str, Endpoint] = {}
    reasons: list[str] = []
    for endpoint in (parse(text, key) for text in texts):
        try:
            addresses = resolve(endpoint)
        except ConfigError as error:
            reasons.append(str(error))
            continue
        local = [address for address in addresses if is_local(address)]
        found.update((endpoint.at(address), endpoint) for address in local)
        if not local:
            reasons.append(f"{endpoint.text} is {', '.join(addresses)}")
    if not found and not may_be_none:
        raise ConfigError(
            f"{key}: no address of this machine ({socket.gethostname()}) in the list:"
            f" {'; '.join(reasons)}"
        )
    return found


def split(address: str) -> tuple[str, int]:
    """Host, without brackets, and port of a well-formed `tcp://host:port`."""
    host, _, port = address[len("tcp://") :].rpartition(":")
    return host.strip("[]"), int(port)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
