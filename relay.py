#!/usr/bin/python3 -I
"""fedmsg-relay: pass on what scripts send to one address to the listeners that connect to another.

    scripts ─ PUB connects ─► inbound (XSUB bound) ─┐
                                                    ├─► check ─► outbound (XPUB) ◄─ SUB connects
    fedmsg-logger ─ request ─► submit (ROUTER) ─────┘     └────► journal ─► reply, backlog (HTTP)

The way of a message is fedmsg_relay.daemon.passing, and daemon.submit for those that are
acknowledged.
One thread owns the sockets and waits for nothing else: a bound SUB or XSUB sends its subscription
to a newcomer only when its thread runs, so a relay that pauses for half a second loses every
publisher that comes and goes meanwhile. Disks and HTTP clients are other threads' and processes'
business.
"""

from __future__ import annotations

import logging
import platform
import signal
import socket
import sys
import time
from collections.abc import Iterable

sys.path.insert(0, "/usr/local/lib/fedmsg-relay")  # -I looks into no directory of its own accord
import zmq
from fedmsg_relay import __version__, cli, endpoints, log, preflight, process, systemd
from fedmsg_relay import config as global_config
from fedmsg_relay.checks.wire import Checker
from fedmsg_relay.daemon import access, policing, ports, state
from fedmsg_relay.daemon.account import SUMMARY_PERIOD, Account
from fedmsg_relay.daemon.attendance import Attendance
from fedmsg_relay.daemon.backlog_process import BacklogProcess
from fedmsg_relay.daemon.desk import Desk
from fedmsg_relay.daemon.inbound import Inbound
from fedmsg_relay.daemon.loop import Loop
from fedmsg_relay.daemon.monitoring import FREQUENCY, Monitoring
from fedmsg_relay.daemon.outbound import SURVEY_PERIOD, Outbound
from fedmsg_relay.daemon.passing import Passing
from fedmsg_relay.daemon.senders import LOOK, Senders, keep_memory_small
from fedmsg_relay.daemon.submit import Submit
from fedmsg_relay.errors import FedmsgRelayError
from fedmsg_relay.journal.recorder import Opened, Recorder

NAME = "fedmsg-relay"

# Seconds of one turn of the loop for messages that take long to check.
WORK = 0.01

# Connections the kernel keeps for us while we do not accept: a hundred scripts may start at once.
LISTEN_BACKLOG = 4096

# Seconds. On stop, silence for QUIET means that all that was sent has arrived; STOP bounds it.
QUIET = 0.05
STOP = 10.0

STATUS_PERIOD = 5.0
STATE_PERIOD = 1.0
HOLD_CHECK = 0.02  # whether the hold at the start can end

# Seconds that the journal waits for its turn, a tenth of Python's own: or it falls behind.
SWITCH_INTERVAL = 0.0005

logger = logging.getLogger(log.NAME)


class Relay:
    """The daemon. `open()` binds, `run()` relays until `stop()`, `close()` ends it."""

    def __init__(self, config: global_config.Config, addresses: preflight.RelayAddresses) -> None:
        self._config = config
        self._addresses = addresses
        validated = bool(config.get("validate_signatures"))
        self._monitoring = Monitoring(config)
        self._account = Account(self._monitoring)
        most = config["relay_max_message_bytes"]
        checker = Checker(most, validated, self._account.enter_not_strict)
        self._desk = Desk(checker, self._account.enter_internal_error)
        self._stopping = False
        self._started = time.time()
        self._context = zmq.Context(io_threads=config["io_threads"])
        self._inbound = Inbound(self._context, config)
        self._outbound = Outbound(self._context, config)
        self._recorder = Recorder(config) if config["relay_journal"] is not None else None
        self._attendance = Attendance(self._outbound, self._recorder)
        parts = (self._inbound, self._desk, self._outbound, self._recorder, self._account)
        self._senders = Senders([*addresses.inbound, *addresses.submit], addresses.outbound)
        self._policing = policing.of(config)
        self._passing = Passing(*parts, self._senders, self._policing)
        self._submit: Submit | None = None
        shown = (config["relay_journal"], config["relay_allow"], config["relay_sop"])
        self._web = BacklogProcess(list(addresses.http), *shown)
        self._loop = Loop(self._account.enter_internal_error)
        self._loop.every(LOOK, self._senders.look)
        self._access = access.of(config, addresses.hosts, self._context, self._loop)
        self._loop.every(SURVEY_PERIOD, self._attendance.survey)
        self._loop.every(STATE_PERIOD, self._tell_state)
        self._loop.every(FREQUENCY, self._monitoring.publish)
        self._loop.every(SUMMARY_PERIOD, self._summarise)
        self._loop.every(STATUS_PERIOD, lambda: systemd.notify(f"STATUS={self._status()}"))

    def open(self) -> None:
        """Bind everything, and emit what comes in once the listeners of before are back.

        Raises StartError, which names the address and who holds it.
        """
        passed = dict(systemd.passed_sockets())
        self._monitoring.open(self._context)
        if self._recorder is not None:
            self._loop.on_input(self._recorder.wakeup, self._take_results)
            self._recorder.open()
        self._attendance.watch(self._loop)
        self._bind(self._outbound.socket, "outbound: listeners", self._addresses.outbound, passed)
        ports = [endpoints.split(address)[1] for address in self._addresses.outbound]
        self._outbound.watch(lambda: self._loop.turns, ports)
        self._loop.on_input(self._inbound.socket, self._passing.relay_batches)
        self._bind(self._inbound.socket, "inbound: scripts", self._addresses.inbound, passed)
        if self._recorder is not None and self._addresses.submit:
            ours = (self._recorder, self._desk, self._outbound.emit, self._senders)
            self._submit = Submit(self._context, self._config, *ours, self._policing)
            self._submit.on_emitted = self._account.enter_submitted
            self._loop.on_input(self._submit.socket, self._receive_submits)
            self._bind(self._submit.socket, "submit: publishers", self._addresses.submit, passed)
        systemd.close_unnamed(passed)
        self._web.open()
        while not self._stopping and not self._outbound.release_is_due():
            self._turn(HOLD_CHECK)
        self._outbound.release()
        self._attendance.remember()

    def run(self) -> None:
        """Relay until `stop()`. Then relay what has been taken so far, and return."""
        interval = systemd.watchdog_interval()
        if interval is not None:
            self._loop.every(interval, lambda: systemd.notify("WATCHDOG=1"))
        systemd.notify("READY=1", f"STATUS={self._status()}")
        logger.info("ready")
        while not self._stopping:
            self._turn(FREQUENCY)
        systemd.notify("STOPPING=1", "STATUS=draining")
        self._outbound.release()
        self._drain()
        self._summarise()

    def stop(self) -> None:
        """Make `run()` return. Called from the loop, on SIGTERM."""
        self._attendance.close()
        self._stopping = True

    def obey(self, wakeup: socket.socket) -> None:
        """Do what the signals say whose numbers, a byte each, arrive on `wakeup`."""
        held = {signal.SIGUSR1: self._outbound.hold, signal.SIGUSR2: self._outbound.release}

        def signalled() -> None:
            for number in wakeup.recv(64):
                held.get(signal.Signals(number), self.stop)()

        self._loop.on_input(wakeup, signalled)

    def close(self) -> None:
        """Close all; waits `zmq_linger` milliseconds for listeners to take what is queued."""
        self._monitoring.close()
        self._access.close()
        self._inbound.close()
        self._senders.close()
        if self._recorder is not None:
            self._recorder.close()
            self._take_results()
        if self._submit is not None:
            self._submit.close()
        self._outbound.close()
        self._web.close()
        self._context.term()

    def _turn(self, longest: float) -> None:
        """One turn of the loop, and some work on what takes long to check."""
        self._loop.turn(longest if self._desk.is_idle else 0.0)
        self._desk.work(WORK)

    def _receive_submits(self) -> None:
        if self._submit is not None:
            self._submit.receive()
            self._loop.pause(self._submit.socket, self._submit.is_full)

    def _take_results(self) -> None:
        """Go on with what the journal's threads have done."""
        assert self._recorder is not None
        for result in self._recorder.results():
            if isinstance(result, Opened):
                self._outbound.expect(result.listeners)
            elif self._submit is not None:
                self._submit.take(result)
        if self._submit is not None:
            self._loop.pause(self._submit.socket, self._stopping or self._submit.is_full)

    def _drain(self) -> None:
        """Tell publishers to send no more, and relay all that they had sent.

        Requests that were not read are submitted again, to this relay or to another.
        """
        self._inbound.refuse_more()
        if self._submit is not None:
            self._loop.pause(self._submit.socket, True)
        before = seen = self._account.counts.received
        now = quiet_since = time.monotonic()
        end = now + STOP
        while now < end and (now < quiet_since + QUIET or self._is_busy()):
            self._turn(max(0.0, quiet_since + QUIET - now))
            now = time.monotonic()
            if self._account.counts.received != seen:
                seen, quiet_since = self._account.counts.received, now
        logger.info("stopping: %d messages drained", seen - before)

    def _is_busy(self) -> bool:
        """Whether something is being checked, or acknowledgements are due."""
        if not self._desk.is_idle or self._inbound.skipping.head is not None:
            return True
        if self._outbound.is_waiting:
            return True
        return bool(self._submit and self._recorder and self._recorder.refusal is None)

    def _bind(
        self, bound: zmq.Socket[bytes], name: str, addresses: Iterable[str], passed: dict[str, int]
    ) -> None:
        bound.setsockopt(zmq.BACKLOG, LISTEN_BACKLOG)
        listeners = self._outbound.listeners if bound is self._outbound.socket else None
        self._access.guard(bound, name.partition(":")[0], listeners)
        for address in addresses:
            ports.bind(bound, address, passed)
            logger.info("%s connect to %s", name, address)

    def _summarise(self) -> None:
        self._account.summarise(len(self._outbound.listeners))

    def _status(self) -> str:
        return f"{self._account.counts}, {len(self._outbound.listeners)} listeners"

    def _tell_state(self) -> None:
        told = {"started": self._started, "refused": self._access.refusals()}
        told["connections"] = self._access.callers.state()
        parts = (self._submit, self._recorder, self._outbound, self._desk, self._senders)
        self._web.tell({**told, **state.collect(self._account.counts, *parts, self._policing)})


def serve(config: global_config.Config, addresses: preflight.RelayAddresses) -> None:
    """Run the daemon until SIGTERM or SIGINT. Raises StartError.

    SIGUSR1 begins a hold, while which listeners can be restarted and miss nothing; SIGUSR2 ends it.
    """
    logger.info(
        "%s %s, Python %s, pyzmq %s, libzmq %s", NAME, __version__, platform.python_version(),
        zmq.pyzmq_version(), zmq.zmq_version(),
    )  # fmt: skip
    for warning in preflight.warnings(config, addresses):
        logger.warning("%s", warning)
    relay = Relay(config, addresses)
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
    with process.wakeup_on(*signals) as wakeup:
        relay.obey(wakeup)
        relay.open()
        relay.run()
        relay.close()
    logger.info("stopped")


def main(argv: list[str] | None = None) -> int:
    args = cli.daemon_parser(NAME).parse_args(argv)
    keep_memory_small()
    process.prepare(NAME, SWITCH_INTERVAL)
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
