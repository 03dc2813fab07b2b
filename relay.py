#!/usr/bin/python3
"""fedmsg-relay: pass on what scripts send to one address to the listeners that connect to another.

    scripts ─ PUB connects ─► inbound (XSUB bound) ─► check ─► outbound (XPUB bound) ◄─ SUB connects

The way of a message is `_relay_batch`. One thread owns the sockets and waits for nothing else: a
bound SUB or XSUB sends its subscription to a newcomer only when its thread runs, so a relay that
pauses for half a second loses every publisher that comes and goes meanwhile.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import platform
import signal
import socket
import sys
import time
from typing import Callable

import zmq
from fedmsg_relay import __version__, log, preflight, process, sockets, systemd
from fedmsg_relay import config as global_config
from fedmsg_relay.counts import Counts, RateLimit
from fedmsg_relay.errors import FedmsgRelayError
from fedmsg_relay.listeners import Listeners
from fedmsg_relay.monitoring import FREQUENCY, Monitoring
from fedmsg_relay.timer import Timer
from fedmsg_relay.wire import INTERNAL_ERROR, Checked, Checker

NAME = "fedmsg-relay"

# Messages relayed before timers, signals and listeners get their turn: some tens of milliseconds.
BATCH = 1000

# Connections the kernel keeps for us while we do not accept: a hundred scripts may start at once.
LISTEN_BACKLOG = 4096

# Bytes. Listeners send nothing else than topics to subscribe to.
LARGEST_SUBSCRIPTION = 1 << 20

# Seconds. The moment between binding outbound and inbound; upstream's is a whole second, in which
# no script can connect. `post_init_sleep`, the pause of every part of the bus, shortens it.
SETTLE = 0.1

# What is let in then is held until every listener has had time to come back: the longest it waits
# between two attempts, and these seconds for the attempt. Not longer, nor more, than these bounds.
HOLD_MARGIN = 0.3
HOLD_LONGEST = 30.0
HOLD_MESSAGES = 100_000
HOLD_BYTES = 64 << 20

# Seconds. On stop, silence for QUIET means that all that was sent has arrived; STOP bounds it.
QUIET = 0.2
STOP = 10.0

SUMMARY_PERIOD = 60.0
STATUS_PERIOD = 5.0

logger = logging.getLogger(log.NAME)


class Relay:
    """The daemon. `open()` binds, `run()` relays until `stop()`, `close()` ends it."""

    def __init__(self, config: global_config.Config, addresses: preflight.RelayAddresses) -> None:
        self._config = config
        self._addresses = addresses
        validated = bool(config.get("validate_signatures"))
        self._checker = Checker(config["relay_max_message_bytes"], validated)
        self._counts = Counts()
        self._summarised = Counts()
        self._warnings = RateLimit(period=SUMMARY_PERIOD)
        self._monitoring = Monitoring(config)
        self._held: list[list[bytes]] | None = []
        self._held_bytes = 0
        self._stopping = False
        self._context = zmq.Context(io_threads=config["io_threads"])
        self._poller = zmq.Poller()
        self._handlers: dict[object, Callable[[], object]] = {}
        self._timers: list[Timer] = []

    def open(self) -> None:
        """Bind everything, and emit what comes in once listeners have had time to come back.

        Raises StartError, which names the address and who holds it.
        """
        self._monitoring.open(self._context)
        self._outbound = self._socket(zmq.XPUB, LARGEST_SUBSCRIPTION)
        self._listeners = Listeners(self._outbound)
        self._on_input(self._listeners.monitor, self._count_listeners)
        self._on_input(self._outbound, self._count_listeners)
        for address in self._addresses.outbound:
            sockets.bind(self._outbound, address)
            logger.info("outbound: listeners connect to %s", address)
        bound = time.monotonic()
        self._turn_until(bound + min(SETTLE, self._config["post_init_sleep"]))
        # XSUB rather than SUB: the wire is the same, and it can take its subscription back without
        # discarding what has already arrived, which is how `_drain` stops publishers that stay.
        # Twice the limit: what is a little too large is counted, and what could fill the memory
        # ends its sender's connection instead.
        self._inbound = self._socket(zmq.XSUB, 2 * self._config["relay_max_message_bytes"])
        self._inbound.send(b"\x01")
        for address in self._addresses.inbound:
            sockets.bind(self._inbound, address)
            logger.info("inbound: scripts connect to %s", address)
        self._on_input(self._inbound, self._relay_batch)
        hold = sockets.longest_absence(self._config) + HOLD_MARGIN
        self._turn_until(bound + min(hold, HOLD_LONGEST))
        self._release()

    def run(self) -> None:
        """Relay until `stop()`. Then relay what has been taken so far, and return."""
        interval = systemd.watchdog_interval()
        if interval is not None:
            self._timers.append(Timer(interval, lambda: systemd.notify("WATCHDOG=1")))
        self._timers.append(Timer(FREQUENCY, self._monitoring.publish))
        self._timers.append(Timer(SUMMARY_PERIOD, self._log_summary))
        status = Timer(STATUS_PERIOD, lambda: systemd.notify(f"STATUS={self._status()}"))
        self._timers.append(status)
        systemd.notify("READY=1", f"STATUS={self._status()}")
        logger.info("ready")
        while not self._stopping:
            self._turn(min(timer.due for timer in self._timers))
        systemd.notify("STOPPING=1", "STATUS=draining")
        self._drain()
        self._log_summary()

    def stop(self) -> None:
        """Make `run()` return. Called from the loop, on SIGTERM."""
        self._stopping = True

    def stop_on_input(self, wakeup: socket.socket) -> None:
        """Stop once a byte arrives on `wakeup`: the number of a signal."""
        self._on_input(wakeup, self.stop)

    def close(self) -> None:
        """Close all; waits `zmq_linger` milliseconds for listeners to take what is queued."""
        self._listeners.close()
        self._monitoring.close()
        self._inbound.close(linger=0)
        self._outbound.close(linger=self._config["zmq_linger"])
        self._context.term()

    def _relay_batch(self) -> int:
        """The way of a message: receive, check, emit. Returns how many were received."""
        receive, check, emit = self._inbound.recv_multipart, self._checker.check, self._outbound
        for number in range(BATCH):
            try:
                frames = receive(zmq.NOBLOCK)
            except zmq.Again:
                return number
            started = time.perf_counter()
            try:
                checked = check(frames)
            except Exception:
                self._log_internal_error()
                checked = Checked(None, INTERNAL_ERROR, "")
            if checked.frames is not None:
                if self._held is None:
                    emit.send_multipart(checked.frames, zmq.NOBLOCK)
                else:
                    self._hold(checked.frames)
            self._account(checked)
            self._monitoring.times.append(time.perf_counter() - started)
        return BATCH

    def _account(self, checked: Checked) -> None:
        self._monitoring.headcount += 1
        if checked.cause is None:
            self._counts.untouched += 1
            return
        verb = "dropped" if checked.frames is None else "repaired"
        counter = self._counts.dropped if checked.frames is None else self._counts.repaired
        counter[checked.cause] += 1
        if self._warnings.allows(checked.cause):
            # %a: a topic is the sender's text, and must not be able to forge a line of this log.
            more = "; more of these are only counted" * self._warnings.is_last(checked.cause)
            logger.warning("%s: %s, topic %.200a%s", verb, checked.cause, checked.topic, more)

    def _log_internal_error(self) -> None:
        self._monitoring.exceptions += 1
        if self._warnings.allows(INTERNAL_ERROR):
            logger.exception(INTERNAL_ERROR)

    def _hold(self, frames: list[bytes]) -> None:
        assert self._held is not None
        self._held.append(frames)
        self._held_bytes += len(frames[0]) + len(frames[1])
        if len(self._held) >= HOLD_MESSAGES or self._held_bytes >= HOLD_BYTES:
            self._release()

    def _release(self) -> None:
        """Emit what was held, and hold nothing from now on."""
        held, self._held = self._held or [], None
        for frames in held:
            self._outbound.send_multipart(frames, zmq.NOBLOCK)

    def _turn_until(self, end: float) -> None:
        while not self._stopping and time.monotonic() < end:
            self._turn(end)

    def _drain(self) -> None:
        """Tell publishers to send no more, and relay all that they had sent.

        Not by unbinding: libzmq ends all connections of an address with it, and what they hold.
        """
        self._inbound.send(b"\x00")
        end = time.monotonic() + STOP
        drained = 0
        while time.monotonic() < end and self._inbound.poll(int(QUIET * 1000)):
            drained += self._relay_batch()
            systemd.notify("WATCHDOG=1")
        logger.info("stopping: %d messages drained", drained)

    def _turn(self, until: float) -> None:
        """One turn of the loop: wait for input until `until` at most, then see to timers."""
        wait = max(0.0, until - time.monotonic())
        for ready, _ in self._poller.poll(int(wait * 1000) + 1):
            try:
                self._handlers[ready]()
            except Exception:  # what one peer provokes must not end it for all the others
                self._log_internal_error()
        now = time.monotonic()
        for timer in self._timers:
            timer.run_if_due(now)

    def _socket(self, kind: int, largest_input: int) -> zmq.Socket[bytes]:
        made = sockets.make(self._context, kind, self._config)
        made.setsockopt(zmq.MAXMSGSIZE, largest_input)
        made.setsockopt(zmq.BACKLOG, LISTEN_BACKLOG)
        return made

    def _on_input(
        self, source: zmq.Socket[bytes] | socket.socket, handler: Callable[[], object]
    ) -> None:
        self._poller.register(source, zmq.POLLIN)
        # The poller reports a plain socket by its descriptor.
        self._handlers[source if isinstance(source, zmq.Socket) else source.fileno()] = handler

    def _count_listeners(self) -> None:
        for change in self._listeners.changes():
            logger.info("%s, %d now", change, len(self._listeners))

    def _log_summary(self) -> None:
        latest = self._counts.since(self._summarised)
        if latest.received:
            listeners = len(self._listeners)
            logger.info("since the last summary: %s, %d listeners", latest, listeners)
        self._summarised = self._counts.copy()

    def _status(self) -> str:
        return f"{self._counts}, {len(self._listeners)} listeners"


def serve(config: global_config.Config, addresses: preflight.RelayAddresses) -> None:
    """Run the daemon until SIGTERM or SIGINT. Raises StartError."""
    logger.info(
        "%s %s, Python %s, pyzmq %s, libzmq %s", NAME, __version__, platform.python_version(),
        zmq.pyzmq_version(), zmq.zmq_version(),
    )  # fmt: skip
    for warning in preflight.warnings(addresses):
        logger.warning("%s", warning)
    relay = Relay(config, addresses)
    with process.wakeup_on(signal.SIGTERM, signal.SIGINT) as wakeup:
        relay.stop_on_input(wakeup)
        relay.open()
        relay.run()
        relay.close()
    logger.info("stopped")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=NAME, description="Relay messages of a fedmsg bus.")
    parser.add_argument("--config-filename", metavar="PATH", help="a file or a directory, not /etc")
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    args = parser.parse_args(argv)
    faulthandler.enable()  # the watchdog kills with SIGABRT: leave a traceback of what hung
    process.set_name(NAME)
    if hasattr(sys, "set_int_max_str_digits"):  # what listeners cannot read must not be read here
        sys.set_int_max_str_digits(sys.int_info.default_max_str_digits)
    try:
        config = global_config.load(args.config_filename, system=True)
        addresses = preflight.check_relay(config)
        if args.check:
            print(f"{NAME}: configuration ok: {addresses}")
            return 0
        with log.started(config):
            serve(config, addresses)
    except FedmsgRelayError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
