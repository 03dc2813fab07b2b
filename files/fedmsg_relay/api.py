"""The Python API for scripts: `publish()`, with upstream's names.

One connection for the process, made by the first message and closed at exit, when what was sent has
left. It may be used from several threads; after a fork the child makes its own.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import Any, Callable

from . import config as global_config
from . import message as messages
from .config import Config
from .errors import MessageTooLarge
from .message import Message
from .publisher import Publisher

_lock = threading.Lock()
_session: Session | None = None


class Session:
    """A config, a connection by it, and the count of what went over it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.pid = os.getpid()
        self._publisher = Publisher(config)
        self._sent = 0
        self._signer = None
        if config.get("sign_messages"):
            from .signatures import Signer  # cryptography is slow to import

            self._signer = Signer(config)

    def connect(self) -> None:
        """Find a relay now rather than at the first message. Raises PublishError."""
        self._publisher.connect()

    def publish(
        self,
        topic: str,
        msg: Any,
        modname: str,
        pre_fire_hook: Callable[[Message], None] | None = None,
    ) -> Message:
        """Build, sign where the config says so, and send one message. Returns it.

        Raises PublishError when no relay takes it or it is larger than relays let through,
        SigningError, and TypeError or ValueError for what JSON cannot hold.
        """
        full = messages.full_topic(
            topic, modname, self.config["topic_prefix"], self.config["environment"]
        )
        message = messages.build(full, msg, self._sent + 1)
        if self._signer is not None:
            message = self._signer.sign(message)
        if pre_fire_hook is not None:
            pre_fire_hook(message)
        encoded_topic, body = full.encode(), messages.dumps(message).encode()
        limit = self.config["relay_max_message_bytes"]
        if len(encoded_topic) + len(body) > limit:
            raise MessageTooLarge(
                f"the message is {len(encoded_topic) + len(body)} bytes,"
                f" relays take {limit} (relay_max_message_bytes)"
            )
        self._publisher.send(encoded_topic, body)
        self._sent += 1
        return message

    def close(self) -> None:
        """Wait until what was sent has left, `zmq_linger` milliseconds at most."""
        self._publisher.close()


def init(**overrides: Any) -> None:
    """Load the global config, with `overrides` for single keys, for the messages to come.

    Optional, and without effect on messages already sent. Upstream's `active=True` and
    `name="relay_inbound"` are accepted: a relay is where we always publish. Raises ConfigError,
    SigningError.
    """
    with _lock:
        _close()
        _open(overrides)


def publish(
    topic: str | None = None,
    msg: Any = None,
    modname: str | None = None,
    pre_fire_hook: Callable[[Message], None] | None = None,
    **overrides: Any,
) -> Message:
    """Publish one message through a relay of the global config, and return it.

    The topic on the bus is `topic_prefix.environment.modname.topic`; `modname` is the calling
    module's top-level name by default. `overrides` are taken as by `init()` if this is the first
    call. Raises PublishError when no relay has taken the message: it is not on the bus then.
    """
    with _lock:
        session = _session
        if session is None or session.pid != os.getpid():
            session = _open(overrides)
        return session.publish(
            topic or "unspecified", msg, modname or _calling_module(), pre_fire_hook
        )


def destroy() -> None:
    """Send what is still queued and close the connection. Runs by itself at exit."""
    with _lock:
        _close()


def _open(overrides: dict[str, Any]) -> Session:
    global _session
    loaded = global_config.load(overrides.get("config_filename"))
    _session = Session(global_config.complete({**loaded, **overrides}))
    return _session


def _close() -> None:
    global _session
    # A forked child must leave its parent's sockets alone.
    if _session is not None and _session.pid == os.getpid():
        _session.close()
    _session = None


def _calling_module() -> str:
    """The top-level name of the first module up the stack that is not ours."""
    ours = __name__.split(".", 1)[0]
    frame = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ours)).split(".", 1)[0]
        if name != ours:
            return name
        frame = frame.f_back  # type: ignore[assignment]
    return "fedmsg"


atexit.register(destroy)
