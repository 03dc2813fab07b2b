"""Who may connect: the relay's own enforcement of `relay_allow`, for where no firewall does it.

libzmq asks about every connection before a message passes in either direction (ZAP, RFC 27): its
thread sends the peer's address to a socket of ours, goes on with the others, and has the one wait
for the answer. Where nobody answers, nobody gets in: that is ZAP_ENFORCE_DOMAIN. libzmq does not
ask about peers before ZMTP 3.0, and turns all of them away while it is to ask.

The answer to those who are not named is "300", not now. After "400" libzmq's clients never try
again: a listener would stay deaf when its network is named at last, until somebody restarts it. But
after either, the connection stays open until the peer or the handshake's 30 s end it. So it is cut
here as well, as soon as libzmq says that it has accepted it; its peer then tries again at its
`zmq_reconnect_ivl`, as if the relay was not there. That is where it is counted, too.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from functools import partial
from typing import Any

import zmq

from .. import log, tcp_progress
from ..checks import networks
from ..config import Config
from .callers import Callers
from .listeners import Listeners
from .loop import Loop

ENDPOINT = "inproc://zeromq.zap.01"
VERSION = b"1.0"
ALLOWED = (b"200", b"OK")
NOT_NOW = (b"300", b"relay_allow does not name this address")

# pyzmq has the name or not, by the libzmq it was built with. The number is zmq.h's.
_ENFORCE_DOMAIN = getattr(zmq, "ZAP_ENFORCE_DOMAIN", 93)

# Questions answered in one turn of the loop: messages must have their turn, whoever knocks.
AT_ONCE = 100

logger = logging.getLogger(log.NAME)


class Everybody:
    """Where no networks are named: libzmq asks nobody, and lets in peers of before ZMTP 3.0."""

    def __init__(self, loop: Loop) -> None:
        self.callers = Callers(loop)

    def guard(
        self, guarded: zmq.Socket[bytes], side: str, listeners: Listeners | None = None
    ) -> None:
        """Nothing is asked; who connects is counted, unless `listeners` do that."""
        if listeners is None:
            self.callers.watch(guarded, side)

    def refusals(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        """Before the guarded sockets are closed."""
        self.callers.close()


def of(
    config: Config,
    hosts: Collection[str],
    context: zmq.Context[zmq.Socket[bytes]],
    loop: Loop,
) -> Access | Everybody:
    """What `relay_allow` of the config says; `hosts` are those of the relay's own addresses."""
    allowed = networks.Allowed(networks.configured(config), hosts)
    return Everybody(loop) if allowed.is_everybody else Access(context, allowed, loop)


class Access:
    """Decides about the connections of the sockets it guards. To be made before they are bound."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], allowed: networks.Allowed, loop: Loop
    ) -> None:
        self._refusals = networks.Refusals()
        self._allowed = allowed
        self.callers = Callers(loop)
        self._questions = context.socket(zmq.REP)
        self._questions.bind(ENDPOINT)
        loop.on_input(self._questions, self._answer)

    def guard(
        self, guarded: zmq.Socket[bytes], side: str, listeners: Listeners | None = None
    ) -> None:
        """Have libzmq ask about who connects to this socket, from its next bind on.

        Those who are refused are cut and counted: by a monitor of the socket or, where `listeners`
        have that already, by what they say.
        """
        guarded.setsockopt(zmq.ZAP_DOMAIN, side.encode())
        guarded.setsockopt(_ENFORCE_DOMAIN, 1)
        if listeners is not None:
            listeners.on_accepted = partial(self._cut, side)
        else:
            self.callers.watch(guarded, side, partial(self._cut, side))

    def refusals(self) -> dict[str, Any]:
        """As networks.Refusals.state()."""
        return self._refusals.state()

    def _cut(self, side: str, fd: int, address: str) -> None:
        """A connection of this peer was accepted: cut it if it may not be."""
        host = tcp_progress.host_of(address).strip("[]")
        if host not in self._allowed and tcp_progress.cut(fd, address):
            line = self._refusals.enter(side, networks.plain(host))
            if line:
                logger.warning("%s", line)

    def _answer(self) -> None:
        for _ in range(AT_ONCE):
            try:
                question = self._questions.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            # [version, request id, domain, address, routing id, mechanism, ...]
            verdict = NOT_NOW
            try:
                if question[3].decode("ascii", "replace") in self._allowed:
                    verdict = ALLOWED
            finally:
                # Whatever went wrong with this one: until it is answered, a REP takes no other.
                self._questions.send_multipart([VERSION, *question[1:2], *verdict, b"", b""])

    def close(self) -> None:
        """From now on nobody gets in. Before the guarded sockets are closed."""
        self.callers.close()
        self._questions.close(linger=0)
