"""Networks that `relay_allow` names, who is in them, and an account of those who are not.

Nothing of ZeroMQ: the process that serves HTTP asks here, too.
"""

from __future__ import annotations

import ipaddress
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Union

from .. import endpoints
from ..config import Config
from ..errors import ConfigError
from ..rate_limit import RateLimit

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]

# This machine, however it is reached: probes that run here, and whoever looks at /health.
LOOPBACK = ("127.0.0.1", "::1")

# Addresses whose answer is remembered, and refused ones that are named.
REMEMBERED = 4096
NAMED = 50
# Seconds from one line about an address to the next, and lines in that time about all of them.
SAID_AGAIN = 60.0
LINES = 10


def configured(config: Config) -> list[Network]:
    """`relay_allow`; empty for everybody. Raises ConfigError, which names the value."""
    return [parse(text) for text in config["relay_allow"]]


def parse(text: str, where: str = "config key 'relay_allow'") -> Network:
    """`10.5.0.0/16`, `2001:db8::/32`, or one address. Raises ConfigError, which says `where`."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        hint = ""
        with suppress(ValueError):
            hint = f", did you mean {ipaddress.ip_network(text, strict=False)}?"
        raise ConfigError(
            f"{where}: {text!r} is not a network like 10.5.0.0/16, nor an address: {error}{hint}"
        ) from error


def has(networks: Iterable[Network], text: str) -> bool:
    """Whether a numeric address is in one of them. Of the other version, it is in none."""
    try:
        address = _address(text)
    except ValueError:
        return False
    return any(address in network for network in networks)


def plain(text: str) -> str:
    """A numeric address as it is written in networks: IPv4 ones without `::ffff:`."""
    return str(_address(text))


class Allowed:
    """Who may connect: `"10.5.1.2" in allowed`. Everybody, if there are no networks.

    `bound` are the numeric addresses that the relay has: its own host comes from these.
    """

    def __init__(self, networks: Sequence[Network], bound: Iterable[str]) -> None:
        self.is_everybody = not networks
        self._networks = networks
        self._own = {_address(host) for host in bound if host not in endpoints.WILDCARDS}
        self._own |= {_address(host) for host in LOOPBACK}
        self._is_wildcard = any(host in endpoints.WILDCARDS for host in bound)
        self._known: dict[str, bool] = {}

    def __contains__(self, address: str) -> bool:
        if self.is_everybody:
            return True
        found = self._known.get(address)
        if found is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            found = self._known[address] = self._look_up(address)
        return found

    def _look_up(self, text: str) -> bool:
        try:
            address = _address(text)
        except ValueError:
            return False
        # Of the other version, an address is in no network.
        if address in self._own or any(address in network for network in self._networks):
            return True
        if not self._is_wildcard or address.is_loopback:
            return False
        try:
            # With its zone, `fe80::1%eth0`: without one, a link-local address is nobody's.
            _, percent, zone = text.partition("%")
            return endpoints.is_local(f"{address}{percent}{zone}")
        except OSError:
            return False


@dataclass
class Peer:
    """Connections of one address that were refused. Times are Unix time."""

    address: str
    connections: int
    since: float
    last: float
    said: float = 0.0


class Refusals:
    """Connections that were refused since the start, by the side of the relay, and of whom."""

    def __init__(self) -> None:
        self.sides: Counter[str] = Counter()
        self._peers: OrderedDict[str, Peer] = OrderedDict()  # the one that came last is last
        self._lines = RateLimit(LINES, SAID_AGAIN)

    def enter(self, side: str, address: str) -> str:
        """Count one. A line for the log, or nothing where enough has been said."""
        now = time.time()
        self.sides[side] += 1
        peer = self._peers.setdefault(address, Peer(address, 0, now, now))
        self._peers.move_to_end(address)
        if len(self._peers) > NAMED:
            self._peers.popitem(last=False)
        peer.connections += 1
        peer.last = now
        if now - peer.said < SAID_AGAIN or not self._lines.allows("all"):
            return ""
        peer.said = now
        more = "; of others no more is said for a minute" * self._lines.is_last("all")
        return (
            f"not allowed: {address} to {side}, relay_allow does not name it;"
            f" connections of it so far: {peer.connections}{more}"
        )

    def state(self) -> dict[str, object]:
        """For health and metrics: `sides`, and `peers`, of whom the last ones only."""
        peers = list(self._peers.values())  # at once: HTTP's other threads ask, too
        return {"sides": dict(self.sides), "peers": [asdict(each) for each in peers]}


def _address(text: str) -> Address:
    address = ipaddress.ip_address(text.partition("%")[0])
    # What a socket that takes both versions calls an IPv4 peer.
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address
