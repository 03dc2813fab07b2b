"""fedmsg-probe: send a canary through a relay and wait for it on the other side; submit another.
Or, with --consumer, ask a hub on this host how its consumer is.

A check for Nagios and its kind: one line, perfdata, exit 0 ok, 1 warning, 2 critical, 3 unknown.
The canary is an ordinary message on `topic_prefix.environment._heartbeat.fedmsg-probe`; upstream's
fedmsg-tail hides topics with `_heartbeat` by default.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, NoReturn

import zmq

from . import __version__, consumer, endpoints, message, sockets
from . import config as global_config
from .config import Config
from .daemon.monitoring import FREQUENCY
from .errors import ConfigError, FedmsgRelayError
from .nagios import CRITICAL, OK, UNKNOWN, WARNING, Report
from .preflight import check_addresses
from .publishing import diagnosis

NAME = "fedmsg-probe"
# Seconds, where no other number is asked for. A hub tells of itself every five.
RELAY_TIMEOUT = 5.0
CONSUMER_TIMEOUT = 20.0

TOPIC = message.PROBE_TOPIC

_DESCRIPTION = """\
Send a message through each relay of the config and wait for it on the other side; submit another
and wait for the acknowledgement. With --consumer, check a hub on this host instead. Prints one line
with performance data, for Nagios and its kind.

The message is an ordinary one, on topic_prefix.environment._heartbeat.fedmsg-probe, which
fedmsg-tail hides by default."""

_EPILOG = """\
examples:
  fedmsg-probe --warning 100 --critical 1000
  fedmsg-probe --host busgateway01
  fedmsg-probe --consumer all --monitoring fedmsg-hub

exit status:
  0 OK   1 WARNING   2 CRITICAL   3 UNKNOWN: the configuration or an option is wrong"""

# Seconds between two canaries. One may be lost: a relay tells libzmq's thread of a new listener's
# subscription a moment after the listener's side believes it made.
REPEAT = 0.1

# Seconds by which the clocks of two hosts that NTP keeps never differ.
CLOCKS_DIFFER = 5.0


@dataclass(frozen=True)
class Path:
    """One way through a relay: an inbound endpoint, and the outbound ones it leads to."""

    inbound: str
    outbound: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """How many `seconds` it took, and what is worth a warning whatever it took, or nothing."""

    seconds: float
    warning: str = ""


class NoAnswer(Exception):
    """The text says which side failed, and how."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # 2 is what argparse would exit with, and Nagios reads that as critical.
        print(f"FEDMSG UNKNOWN - {message}")
        sys.exit(UNKNOWN)


def main(argv: list[str] | None = None) -> int:
    args = _parsed(argv)
    try:
        config = global_config.load(args.config_filename)
        paths = _paths(args, config)
        submits = _submits(args, config)
    except FedmsgRelayError as error:
        print(f"FEDMSG UNKNOWN - {error}")
        return UNKNOWN
    context = zmq.Context()
    report = Report()
    if args.relay or not args.consumer:
        report.join(_relay(context, paths, submits, config, args))
    for name in args.consumer or ():
        report.join(_consumer(context, name, paths, config, args))
    print(report.line("FEDMSG"))
    context.destroy(linger=0)
    return report.status


def _relay(
    context: zmq.Context[zmq.Socket[bytes]],
    paths: Sequence[Path],
    submits: Sequence[str],
    config: Config,
    args: argparse.Namespace,
) -> Report:
    end = time.monotonic() + (args.timeout or RELAY_TIMEOUT)
    checks: list[tuple[str, Callable[..., Answer], Any, str]] = [
        (_label("round_trip", i, paths), round_trip, path, f"{path.inbound} to {path.outbound[0]}")
        for i, path in enumerate(paths, 1)
    ] + [
        (_label("ack", i, submits), acknowledgement, submit, f"{submit} acknowledged")
        for i, submit in enumerate(submits, 1)
    ]
    report = Report()
    for number, (label, check, where, done) in enumerate(checks):
        # Each gets an equal share of what is left: one that hangs leaves time to the others.
        share = (end - time.monotonic()) / (len(checks) - number)
        thresholds = f"{args.warning:g};{args.critical:g};0"
        try:
            answer = check(context, where, config, share)
        except NoAnswer as error:
            report.add(CRITICAL, str(error))
            report.perfdata.append(f"{label}=U;{thresholds}")
            continue
        milliseconds = answer.seconds * 1000
        slow = WARNING if milliseconds >= args.warning or answer.warning else OK
        status = CRITICAL if milliseconds >= args.critical else slow
        report.add(status, f"{done} in {milliseconds:.1f} ms")
        if answer.warning:
            report.add(status, answer.warning)
        report.perfdata.append(f"{label}={milliseconds:.1f}ms;{thresholds}")
    return report


def _consumer(
    context: zmq.Context[zmq.Socket[bytes]],
    name: str,
    paths: Sequence[Path],
    config: Config,
    args: argparse.Namespace,
) -> Report:
    return consumer.check(
        context,
        name,
        consumer.endpoints_of(args.monitoring or (), config),
        list(dict.fromkeys(endpoint for path in paths for endpoint in path.outbound)),
        config,
        consumer.Limits(args.backlog, args.exceptions, args.silence),
        args.timeout or CONSUMER_TIMEOUT,
        f"{name}_" if len(args.consumer) > 1 else "",
    )


def round_trip(
    context: zmq.Context[zmq.Socket[bytes]], path: Path, config: Config, timeout: float
) -> Answer:
    """From sending a canary to its coming out. Raises NoAnswer after `timeout` seconds."""
    end = time.monotonic() + timeout
    topic = f"{config['topic_prefix']}.{config['environment']}.{TOPIC}".encode()
    listener = sockets.make(context, zmq.SUB, config)
    publisher = sockets.make(context, zmq.XPUB, config)
    try:
        listener.setsockopt(zmq.SUBSCRIBE, topic)
        handshakes = listener.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        for outbound in path.outbound:
            sockets.connect(listener, outbound)
        sockets.connect(publisher, path.inbound)
        for _ in path.outbound:
            _await_handshake(handshakes, path, end)
        _await_subscription(publisher, path.inbound, end)
        return Answer(_exchange(publisher, listener, topic, path, end))
    except zmq.ZMQError as error:
        raise NoAnswer(f"{path.inbound}: {error}") from error
    finally:
        listener.disable_monitor()
        publisher.close(linger=0)
        listener.close(linger=0)


def acknowledgement(
    context: zmq.Context[zmq.Socket[bytes]], submit: str, config: Config, timeout: float
) -> Answer:
    """From submitting a canary to its being on disk. Raises NoAnswer after `timeout` seconds."""
    topic = f"{config['topic_prefix']}.{config['environment']}.{TOPIC}"
    client = sockets.make(context, zmq.DEALER, config)
    try:
        sockets.connect(client, submit)
        body = message.dumps(message.build(topic, {"host": os.uname().nodename}, 1)).encode()
        started = time.monotonic()
        client.send_multipart([b"", topic.encode(), body])
        if not client.poll(max(1, int(timeout * 1000))):
            reason = diagnosis.why_no_answer(submit)
            raise NoAnswer(f"nothing is acknowledged by submit {submit}: {reason}")
        took, now = time.monotonic() - started, time.time()
        reply = message.loads(client.recv_multipart()[-1].decode())
    except (zmq.ZMQError, ValueError) as error:
        raise NoAnswer(f"{submit}: {error}") from error
    finally:
        client.close(linger=0)
    if not (isinstance(reply, dict) and reply.get("ok") is True):
        why = reply.get("error") if isinstance(reply, dict) else reply
        raise NoAnswer(f"nothing is acknowledged by submit {submit}: {why}")
    return Answer(took, _clocks(reply.get("time"), now, took))


def _clocks(theirs: Any, ours: float, took: float) -> str:
    """What to say of the relay's clock, read at some time of the `took` seconds before `ours`."""
    if not isinstance(theirs, (int, float)):
        return ""
    ahead = ours - took / 2 - theirs
    if abs(ahead) < CLOCKS_DIFFER + took / 2:
        return ""
    direction = "ahead of" if ahead > 0 else "behind"
    return f"this host's clock is {abs(ahead):.0f} s {direction} the relay's"


def _await_handshake(handshakes: zmq.Socket[bytes], path: Path, end: float) -> None:
    if not handshakes.poll(_milliseconds_until(end)):
        reasons = "; ".join(f"{text}: {diagnosis.why_no_answer(text)}" for text in path.outbound)
        raise NoAnswer(f"listeners cannot connect to outbound {reasons}")
    sockets.monitor_event(handshakes)


def _await_subscription(publisher: zmq.Socket[bytes], inbound: str, end: float) -> None:
    if not publisher.poll(_milliseconds_until(end)):
        reason = diagnosis.why_no_answer(inbound)
        raise NoAnswer(f"scripts cannot publish to inbound {inbound}: {reason}")


def _exchange(
    publisher: zmq.Socket[bytes], listener: zmq.Socket[bytes], topic: bytes, path: Path, end: float
) -> float:
    sent_at: dict[str, float] = {}
    while time.monotonic() < end:
        canary = message.build(topic.decode(), {"host": os.uname().nodename}, len(sent_at) + 1)
        sent_at[canary["msg_id"]] = time.monotonic()
        publisher.send_multipart([topic, message.dumps(canary).encode()])
        resend = min(end, time.monotonic() + REPEAT)
        while listener.poll(_milliseconds_until(resend)):
            arrived = time.monotonic()
            frames = listener.recv_multipart()
            msg_id = _msg_id(frames)
            if msg_id in sent_at:  # and not the canary of another host
                return arrived - sent_at[msg_id]
    raise NoAnswer(
        f"{path.inbound} took {len(sent_at)} canaries and none came out of"
        f" {' or '.join(path.outbound)}"
    )


def _msg_id(frames: list[bytes]) -> str | None:
    try:
        return str(message.loads(frames[-1].decode())["msg_id"])
    except (ValueError, KeyError, TypeError):
        return None


def _paths(args: argparse.Namespace, config: Config) -> list[Path]:
    inbound, outbound = check_addresses(config)
    if args.host is not None:
        inbound = _on_host(inbound, args.host)
        outbound = _on_host(outbound, args.host)
    inbound, outbound = args.inbound or inbound, args.outbound or outbound
    return [Path(text, _same_host(text, outbound)) for text in inbound]


def _submits(args: argparse.Namespace, config: Config) -> list[str]:
    """The submit addresses to probe; with inbound given by hand, none but those given."""
    if args.submit or args.inbound:
        return list(args.submit or [])
    submits = list(config["relay_submit"])
    return _on_host(submits, args.host) if args.host is not None else submits


def _label(name: str, number: int, of: Sequence[object]) -> str:
    return name if len(of) == 1 else f"{name}_{number}"


def _on_host(texts: list[str], host: str) -> list[str]:
    """What the config has for that host; for one that it does not name (yet) all of its ports."""
    named = [text for text in texts if endpoints.parse(text, "--host").host == host]
    if named:
        return named
    bracketed = f"[{host}]" if ":" in host else host
    ports = dict.fromkeys(endpoints.parse(text, "endpoint").port for text in texts)
    return [f"tcp://{bracketed}:{port}" for port in ports]


def _same_host(inbound: str, outbound: list[str]) -> tuple[str, ...]:
    """With several relays, a message comes out of the one that it went into."""
    host = endpoints.parse(inbound, "inbound").host
    same = tuple(text for text in outbound if endpoints.parse(text, "outbound").host == host)
    return same or tuple(outbound)


def parser() -> argparse.ArgumentParser:
    made = _Parser(
        prog=NAME,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = made.add_argument
    option("--config-filename", metavar="PATH", help="read this file or directory, not /etc")
    option("--host", metavar="HOST", help="probe the relay there, on the ports of the config")
    option("--inbound", action="append", metavar="ENDPOINT", help="probe this, not the config's")
    option("--outbound", action="append", metavar="ENDPOINT", help="listen here for it")
    option("--submit", action="append", metavar="ENDPOINT", help="submit here, not by the config")
    option("--warning", type=float, default=500.0, metavar="MS", help="round trip (%(default)s)")
    option("--critical", type=float, default=2000.0, metavar="MS", help="round trip (%(default)s)")
    option(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help=f"in all ({RELAY_TIMEOUT:g}), and for each consumer ({CONSUMER_TIMEOUT:g})",
    )
    option("--version", action="version", version=f"{NAME} {__version__}")
    hub = made.add_argument_group("a hub on this host")
    option = hub.add_argument
    option(
        "--consumer",
        action="append",
        metavar="NAME",
        help="check this consumer of a hub; all: each",
    )
    option(
        "--monitoring",
        action="append",
        metavar="SERVICE",
        help="the hub: its service, such as fedmsg-hub, or the path or endpoint of its monitoring"
        f" socket (all in {consumer.DIRECTORY})",
    )
    limits = consumer.Limits()
    option("--backlog", type=_limits, metavar="W,C", help="messages that wait (500,1000)")
    option(
        "--exceptions", type=_limits, metavar="W,C", help="exceptions while it is watched (1,10)"
    )
    option("--silence", type=_limits, metavar="W,C", help="seconds without a message (no limits)")
    option("--relay", action="store_true", help="probe the relay, too")
    made.set_defaults(backlog=limits.backlog, exceptions=limits.exceptions)
    return made


def _parsed(argv: list[str] | None) -> argparse.Namespace:
    options = parser()
    args = options.parse_args(argv)
    if args.timeout is not None and args.timeout <= 0:
        options.error("--timeout must be more than 0 seconds")
    longest = args.timeout or CONSUMER_TIMEOUT
    if args.silence and args.silence[1] > longest - FREQUENCY:
        enough = args.silence[1] + FREQUENCY
        options.error(f"--silence {args.silence[1]:g} needs a --timeout of {enough:g} or more")
    for text in (args.inbound or []) + (args.outbound or []) + (args.submit or []):
        try:
            endpoints.parse(text, "endpoint")
        except ConfigError as error:
            options.error(str(error))
    return args


def _limits(text: str) -> tuple[float, float]:
    warning, critical = map(float, text.split(","))
    if not 0 <= warning <= critical:
        raise argparse.ArgumentTypeError(f"{text}: the first is not more than the second")
    return warning, critical


def _milliseconds_until(moment: float) -> int:
    return max(0, int((moment - time.monotonic()) * 1000) + 1)


if __name__ == "__main__":
    sys.exit(main())
