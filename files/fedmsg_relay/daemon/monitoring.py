"""The monitoring socket: a JSON frame every five seconds, as moksha.hub 1.5 publishes it.

Fedora's checks (check_fedmsg_consumer_backlog.py and others) and fedmsg-collectd read it. Config
keys: `moksha.monitoring.socket`, an endpoint, and `moksha.monitoring.socket.mode`, an octal string
that is applied to the path of an ipc:// one.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from typing import Any

import zmq

from ..config import Config
from ..errors import ConfigError, StartError

FREQUENCY = 5  # seconds, and part of the frame

# How many of the times that messages took are published: as many as moksha keeps.
MOST_TIMES = 1024


class Monitoring:
    """Counts since the last frame. Without an endpoint in the config nothing is published."""

    def __init__(self, config: Config) -> None:
        self.endpoint, self._mode = settings(config)
        self.headcount = 0
        self.exceptions = 0
        # Seconds that single messages took.
        self.times: deque[float] = deque(maxlen=MOST_TIMES)
        self._socket: zmq.Socket[bytes] | None = None

    def open(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Bind the socket. Raises StartError."""
        if self.endpoint is None:
            return
        self._socket = context.socket(zmq.PUB)
        self._socket.linger = 0
        path = _ipc_path(self.endpoint)
        try:
            self._socket.bind(self.endpoint)
            if path and self._mode is not None:
                os.chmod(path, self._mode)
        except OSError as error:  # zmq.ZMQError is one
            raise StartError(
                f"moksha.monitoring.socket: cannot bind {self.endpoint}: {error.strerror}"
            ) from error

    def enter(self, messages: int, seconds: float) -> None:
        """Count messages that were relayed, and the seconds they took together."""
        self.headcount += messages
        self.times.extend([seconds / messages] * min(messages, MOST_TIMES))

    def publish(self) -> None:
        """Send one frame, and start counting again."""
        frame = json.dumps(self.frame(time.time())).encode()
        self.headcount = self.exceptions = 0
        self.times.clear()
        if self._socket is not None:
            self._socket.send(frame, zmq.NOBLOCK)

    def frame(self, now: float) -> dict[str, Any]:
        """What is published: the names are those of upstream's relay, which the checks ask for."""
        consumer = {
            "name": "RelayConsumer",
            "module": "fedmsg.consumers.relay",
            "topic": "*",
            "initialized": True,
            "exceptions": self.exceptions,
            "jsonify": True,
            "backlog": 0,  # a message is emitted before the next one is received
            "headcount_out": self.headcount,
            "headcount_in": self.headcount,
            "times": list(self.times),
        }
        producer = {
            "name": "MonitoringProducer",
            "module": "moksha.hub.monitoring",
            "initialized": True,
            "exceptions": 0,
            "frequency": FREQUENCY,
            "now": False,  # moksha's option to run at start; not a time
            "last_ran": now,
        }
        return {"consumers": [consumer], "producers": [producer]}

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            path = _ipc_path(self.endpoint or "")
            if path and os.path.exists(path):
                os.unlink(path)


def settings(config: Config) -> tuple[str | None, int | None]:
    """Endpoint and mode of the file. Raises ConfigError."""
    endpoint = config.get("moksha.monitoring.socket")
    mode = config.get("moksha.monitoring.socket.mode")
    if endpoint is not None and (not isinstance(endpoint, str) or "://" not in endpoint):
        raise ConfigError(
            "config key 'moksha.monitoring.socket' must be an endpoint such as"
            f" ipc:///run/fedmsg/name.socket, not {endpoint!r}"
        )
    try:
        return endpoint, None if mode is None else int(mode, 8)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"config key 'moksha.monitoring.socket.mode' must be an octal string such as '770',"
            f" not {mode!r}"
        ) from error


def _ipc_path(endpoint: str) -> str:
    return endpoint[len("ipc://") :] if endpoint.startswith("ipc://") else ""
