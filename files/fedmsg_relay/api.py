"""The Python API for scripts: `publish()`, with upstream's names.

When `publish()` returns, the message is on a relay's disk, or in this host's spool. One connection
for the process, made by the first message and closed at exit. It may be used from several threads;
after a fork the child makes its own.
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
from .delivery import FAILED, REFUSED, Delivery, Outcome
from .errors import MessageRefused, MessageTooLarge, PublishError
from .message import Message
from .spool import Spool

_lock = threading.Lock()
_session: Session | None = None


class Session:
    """A config, connections by it, and the count of what went over them.

    `on_outcome(message, outcome)` is told what became of each message that was `put`; without it
    use `publish`.
    """

    def __init__(
        self, config: Config, on_outcome: Callable[[Message, Outcome], None] | None = None
    ) -> None:
        self.config = config
        self.pid = os.getpid()
        self._on_outcome = on_outcome
        self._outcomes: dict[int, Outcome] = {}  # by id of the message, for `publish`
        directory = config["publisher_spool"]
        spool = Spool(directory, config["publisher_spool_max_bytes"]) if directory else None
        self._delivery = Delivery(config, spool, self._take)
        self._sent = 0
        self._signer = None
        if config.get("sign_messages"):
            from .signatures import Signer  # cryptography is slow to import

            self._signer = Signer(config)

    def put(
        self,
        topic: str,
        msg: Any,
        modname: str,
        pre_fire_hook: Callable[[Message], None] | None = None,
    ) -> Message:
        """Build, sign where the config says so, and begin to deliver one message. Returns it.

        Waits only while as much as may be is under way. Raises MessageTooLarge, SigningError, and
        TypeError or ValueError for what JSON cannot hold.
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
        self._sent += 1
        self._delivery.put(encoded_topic, body, message)
        return message

    def publish(
        self,
        topic: str,
        msg: Any,
        modname: str,
        pre_fire_hook: Callable[[Message], None] | None = None,
    ) -> Message:
        """`put` one message and wait until it is acknowledged, handed over or spooled.

        Raises what `put` does, MessageRefused, and PublishError when nobody has it.
        """
        self._outcomes.clear()
        message = self.put(topic, msg, modname, pre_fire_hook)
        self._delivery.finish()
        outcome = self._outcomes[id(message)]
        if outcome.kind == REFUSED:
            raise MessageRefused(f"{outcome.where} refuses the message: {outcome.why}")
        if outcome.kind == FAILED:
            raise PublishError(outcome.why)
        return message

    def wait_for_input(self, descriptor: int) -> None:
        """Go on delivering until the file descriptor can be read."""
        self._delivery.wait_for_input(descriptor)

    def finish(self) -> None:
        """Go on delivering until it is known of every message what became of it."""
        self._delivery.finish()

    def why(self) -> str:
        """Why messages had to be spooled: what the relays say, or a connection to them does."""
        return self._delivery.why()

    def close(self, leaving: bool = False) -> None:
        """Wait until what was handed to a relay that does not acknowledge has left.

        Raises PublishError after `zmq_linger` milliseconds. `leaving`: this process ends now.
        """
        if not self._delivery.close(leaving):
            raise PublishError(
                "some messages may be lost: a relay that does not acknowledge has not taken all"
                f" within {self.config['zmq_linger'] / 1000:g} s (zmq_linger)"
            )

    def _take(self, message: Message, outcome: Outcome) -> None:
        if self._on_outcome is not None:
            self._on_outcome(message, outcome)
        else:
            self._outcomes[id(message)] = outcome


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

    It is then on that relay's disk, or on its way to a relay that does not acknowledge, or in the
    spool of this host (`publisher_spool`), from where it is delivered when a relay is back.

    The topic on the bus is `topic_prefix.environment.modname.topic`; `modname` is the calling
    module's top-level name by default. `overrides` are taken as by `init()` if this is the first
    call. Raises PublishError when neither a relay nor the spool has taken the message; it is
    MessageRefused when none ever will.
    """
    with _lock:
        session = _session
        if session is None or session.pid != os.getpid():
            session = _open(overrides)
        return session.publish(
            topic or "unspecified", msg, modname or _calling_module(), pre_fire_hook
        )


def destroy() -> None:
    """Close the connection. Runs by itself at exit.

    Raises PublishError if a relay that does not acknowledge has not taken all of what was sent.
    """
    with _lock:
        _close()


def _at_exit() -> None:
    try:
        with _lock:
            _close(leaving=True)
    except PublishError as error:
        print(f"fedmsg_relay: {error}", file=sys.stderr)


def _open(overrides: dict[str, Any]) -> Session:
    global _session
    loaded = global_config.load(overrides.get("config_filename"))
    _session = Session(global_config.complete({**loaded, **overrides}))
    return _session


def _close(leaving: bool = False) -> None:
    global _session
    closing, _session = _session, None
    # A forked child must leave its parent's sockets alone.
    if closing is not None and closing.pid == os.getpid():
        closing.close(leaving)


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


atexit.register(_at_exit)
