"""Sockets with the options every part of the bus sets alike, from the config keys of upstream."""

from __future__ import annotations

import struct

import zmq

from .address import parts
from .config import Config
from .lookup import Lookup

# Messages queued for one peer when `high_water_mark` is 0. Upstream means "no limit" by that, and
# its memory grows until something else gives.
DEFAULT_HIGH_WATER_MARK = 100_000

# Seconds for which a name is looked up before libzmq is left to it, and for several addresses.
LOOK_UP_FOR = 2.5

_EVENT = struct.Struct("=HI")


def make(context: zmq.Context[zmq.Socket[bytes]], kind: int, config: Config) -> zmq.Socket[bytes]:
    """A socket with high-water marks, linger, TCP keepalive and reconnect intervals."""
    made = context.socket(kind)
    mark = config["high_water_mark"] or DEFAULT_HIGH_WATER_MARK
    made.setsockopt(zmq.SNDHWM, mark)
    made.setsockopt(zmq.RCVHWM, mark)
    made.setsockopt(zmq.LINGER, config["zmq_linger"])
    made.setsockopt(zmq.TCP_KEEPALIVE, config["zmq_tcp_keepalive"])
    made.setsockopt(zmq.TCP_KEEPALIVE_CNT, config["zmq_tcp_keepalive_cnt"])
    made.setsockopt(zmq.TCP_KEEPALIVE_IDLE, config["zmq_tcp_keepalive_idle"])
    made.setsockopt(zmq.TCP_KEEPALIVE_INTVL, config["zmq_tcp_keepalive_intvl"])
    made.setsockopt(zmq.RECONNECT_IVL, config["zmq_reconnect_ivl"])
    made.setsockopt(zmq.RECONNECT_IVL_MAX, config["zmq_reconnect_ivl_max"])
    return made


def longest_absence(config: Config) -> float:
    """Seconds at most between two attempts of a peer to reconnect, by the intervals of the config.

    libzmq adds a random part of the first interval to each.
    """
    interval = max(0, config["zmq_reconnect_ivl"])
    return float(max(interval, config["zmq_reconnect_ivl_max"]) + interval) / 1000


def connect(connecting: zmq.Socket[bytes], endpoint: str) -> None:
    """Connect to an endpoint as the config writes it. Raises zmq.ZMQError if it is malformed.

    Waits LOOK_UP_FOR seconds at most until it is known where a name leads.
    """
    lookup = look_up(endpoint)
    if lookup is not None:
        lookup.wait(LOOK_UP_FOR)
    connect_to(connecting, endpoint, lookup)


def look_up(endpoint: str) -> Lookup | None:
    """Begin to find out where the endpoint leads. None: there is no name to look up."""
    found = parts(endpoint)
    if found is None or found[0] == "*":
        return None
    return Lookup(*found, to_choose=True)


def connect_to(connecting: zmq.Socket[bytes], endpoint: str, lookup: Lookup | None) -> None:
    """`connect` where `look_up` has led to. Raises zmq.ZMQError."""
    if lookup is None:
        # A wildcard is what its service binds, so seen from here it is this machine.
        connecting.connect(endpoint.replace("//*:", "//127.0.0.1:"))
        return
    host, is_ipv6 = lookup.for_libzmq()
    lookup.close()
    # Not for all: with this set libzmq would look up the IPv6 address of a name first, and never
    # try the IPv4 one that a relay with both has bound.
    connecting.setsockopt(zmq.IPV6, is_ipv6)
    port = endpoint.rpartition(":")[2]
    connecting.connect(f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}")


def monitor(watched: zmq.Socket[bytes], events: int) -> zmq.Socket[bytes]:
    """A monitor of these events, see zmq_socket_monitor(3). `disable_monitor()` ends it.

    As pyzmq's `get_monitor_socket`, but without a bound: libzmq's own thread, which all sockets
    share, waits where a bound is reached.
    """
    endpoint = f"inproc://monitor.{watched.fileno()}"
    watched.monitor(endpoint, events)
    made: zmq.Socket[bytes] = watched.context.socket(zmq.PAIR)
    made.setsockopt(zmq.RCVHWM, 0)
    made.connect(endpoint)
    return made


def monitor_event(monitor: zmq.Socket[bytes], flags: int = 0) -> tuple[int, int]:
    """Event and value of the next message of a socket monitor, see zmq_socket_monitor(3).

    `flags` may be zmq.NOBLOCK: zmq.Again is raised when there is none.

    As zmq.utils.monitor does, which imports asyncio and TLS: a fifth of the time it takes to start.
    """
    return _EVENT.unpack(monitor.recv_multipart(flags)[0])
