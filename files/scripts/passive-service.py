#!/usr/bin/python3 -I
"""A service that binds its own endpoint of the bus and never needs the relay.

It stands for what the bus was made for: an app under mod_wsgi, which lives long, binds the address
that the global config gives it, and emits when somebody uses it. Listeners connect to it. Here a
request is an HTTP POST of a JSON object:

    passive-service.py passive.app01 --listen 127.0.0.1:8099
    curl --data '{"user": "jane"}' http://127.0.0.1:8099/app/login

emits {"user": "jane"} on the topic `app.login`: the first part of the path is the modname and the
rest, with dots for slashes, the topic.

As in fedmsg, the name's endpoints are as many as there may be processes of the service: each takes
the first that is on this machine and free. SIGTERM ends it after the request at hand, exit code 0.
Exit code 1: it cannot start, and one line on standard error says why. 2: wrong usage.
"""

from __future__ import annotations

import argparse
import errno
import json
import re
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import zmq
from fedmsg_relay import config as global_config
from fedmsg_relay import endpoints, errors, message, sockets, systemd

MAX_BODY = 1024 * 1024  # bytes
PATH = re.compile(r"/(\w+)((?:/\w+)+)", re.ASCII)


def main() -> int:
    arguments = parse_arguments()
    try:
        config = global_config.load(arguments.config_filename)
        service = PassiveService(config, arguments.name, arguments.listen)
    except errors.FedmsgRelayError as error:
        print(f"passive-service: {error}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: service.stop())
    signal.signal(signal.SIGINT, lambda *_: service.stop())
    print(f"{arguments.name} emits on {service.bound}", flush=True)
    systemd.notify("READY=1", f"STATUS=emitting on {service.bound}")
    service.run()
    return 0


class PassiveService(HTTPServer):
    """Takes one request at a time, on the thread that owns the PUB socket: no locks, and messages
    leave in the order the requests came."""

    timeout = 0.5  # seconds in handle_request until it looks whether to stop

    def __init__(self, config: dict[str, Any], name: str, listen: tuple[str, int]) -> None:
        try:
            super().__init__(listen, Request)
        except OSError as error:
            where = "{}:{}".format(*listen)
            raise errors.StartError(f"cannot bind {where} for HTTP: {error.strerror}") from error
        self.config = config
        self.emitted = 0
        self.stopping = False
        self.context = zmq.Context(config["io_threads"])
        self.publisher = sockets.make(self.context, zmq.PUB, config)
        self.bound = bind_first_free(self.publisher, config, name)

    def run(self) -> None:
        while not self.stopping:
            self.handle_request()
        systemd.notify("STOPPING=1")
        self.server_close()
        self.publisher.close()
        self.context.term()  # waits for what is queued, at most zmq_linger

    def stop(self) -> None:
        self.stopping = True

    def emit(self, modname: str, topic: str, msg: object) -> dict[str, Any]:
        self.emitted += 1
        full_topic = message.full_topic(
            topic, modname, self.config["topic_prefix"], self.config["environment"]
        )
        built = message.build(full_topic, msg, self.emitted)
        self.publisher.send_multipart([full_topic.encode(), message.dumps(built).encode()])
        return built


class Request(BaseHTTPRequestHandler):
    server: PassiveService
    timeout = 5  # seconds for a client to say what it wants: the next one is waiting

    def do_POST(self) -> None:
        try:
            modname, topic, msg = self.asked_for()
        except Refusal as refusal:
            self.send_error(refusal.status, explain=refusal.why)
            return
        emitted = self.server.emit(modname, topic, msg)
        told = {key: emitted[key] for key in ("topic", "msg_id")}
        answer = json.dumps(told).encode() + b"\n"
        self.send_response(202)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def asked_for(self) -> tuple[str, str, dict[str, Any]]:
        """Modname, topic and msg. Raises Refusal."""
        path = PATH.fullmatch(self.path)
        if not path:
            raise Refusal(404, "POST to /MODNAME/TOPIC")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > MAX_BODY:
            raise Refusal(411, f"Content-Length up to {MAX_BODY} bytes")
        try:
            msg = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise Refusal(400, "The body must be JSON") from None
        if not isinstance(msg, dict):
            raise Refusal(400, "The body must be a JSON object")
        return path[1], path[2][1:].replace("/", "."), msg


class Refusal(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


def bind_first_free(publisher: zmq.Socket[bytes], config: dict[str, Any], name: str) -> str:
    """Bind one endpoint of `name`; return it. Raises ConfigError or StartError."""
    if name not in config["endpoints"]:
        raise errors.ConfigError(f"endpoints[{name!r}] is not in the global config")
    ours = endpoints.local_addresses(config["endpoints"][name], f"endpoints[{name!r}]")
    for address in ours:
        try:
            publisher.bind(address)
        except zmq.ZMQError as error:
            if error.errno != errno.EADDRINUSE:
                raise errors.StartError(f"cannot bind {address}: {error.strerror}") from error
        else:
            return address
    raise errors.StartError(f"endpoints[{name!r}]: all of {', '.join(ours)} are taken")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Bind an endpoint of the bus and emit what is posted over HTTP."
    )
    parser.add_argument("name", help="key in the global config's endpoints, such as passive.app01")
    parser.add_argument(
        "--listen",
        type=listen_address,
        default="127.0.0.1:8099",
        metavar="ADDRESS:PORT",
        help="where to take HTTP requests; default: %(default)s",
    )
    parser.add_argument(
        "--config-filename",
        metavar="PATH",
        help="file or directory to read instead of /etc/fedmsg.d",
    )
    return parser.parse_args()


def listen_address(value: str) -> tuple[str, int]:
    host, _, port = value.rpartition(":")
    if not host:
        raise argparse.ArgumentTypeError(f"{value!r} is not ADDRESS:PORT")
    return host, int(port)


if __name__ == "__main__":
    sys.exit(main())
