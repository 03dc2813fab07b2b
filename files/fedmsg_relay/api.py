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
from .errors import PublishError
from .message import Message
from .session import Session

_lock = threading.Lock()
_session: Session | None = None


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
