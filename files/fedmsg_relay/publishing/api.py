"""The Python API for scripts: `publish()`, with upstream's names.

When `publish()` returns, the message is on a relay's disk, or in this host's spool. One connection
for the process, made by the first message and closed at exit. It may be used from several threads.

It holds where programs are not simple scripts:

- After a fork the child makes a connection of its own, by the config that its parent had. A fork
  of which Python is not told, as uWSGI's, is noticed by the number of the process.
- A signal handler or a `pre_fire_hook` that publishes while this thread is in `publish()` does so
  over a connection of its own: the one that is in use is in the middle of something.
- A fork while another thread imports what its message needs waits for that import.
- A function that runs at exit may publish, whether our own has run already or not.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Callable

from .. import config as global_config
from .. import importing, rows, tcp_progress, trust
from ..errors import PublishError
from ..message import Message
from . import diagnosis, quota
from .delivery import Outcome
from .publisher import Publisher

# What a message may need that most do not. Imported here, and not by a thread that publishes while
# another one forks, see `importing`.
_RARELY_NEEDED = (contextlib, pwd, diagnosis, quota, rows, tcp_progress, trust)

# For all below. Reentrant, for a signal handler may run in the thread that holds it.
_lock = threading.RLock()
_publisher: Publisher | None = None
# Calls of `publish` that are under way in the thread that holds the lock: one, or more where
# what it calls, or a signal handler, has called it again.
_depth = 0
# What `init()`, or else the first `publish()`, was given, and the config that this has led to.
_overrides: dict[str, Any] = {}
_config: global_config.Config | None = None
_is_fork = False
# The process that all of this is of.
_pid = os.getpid()
# Whether the parent had a publisher when it forked, which its child goes on with.
_is_parents = False


def init(**overrides: Any) -> None:
    """Load the global config, with `overrides` for single keys, for the messages to come.

    Optional, and without effect on messages already sent. It holds for forked children, and after
    `destroy()`. Upstream's `active=True` and `name="relay_inbound"` are accepted: a relay is where
    we always publish. Raises ConfigError, SigningError.
    """
    with _own_lock():
        _close(in_use=_depth > 0)
        given = _given(overrides)
        _open(given, _load(given))


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
    MessageRefused when none ever will. Raises TypeError or ValueError for what JSON cannot hold.
    """
    global _depth
    with _own_lock():
        name = modname or _calling_module()
        given = (topic or "unspecified", msg, name, pre_fire_hook)
        _depth += 1
        try:
            if _depth > 1:
                return _publish_beside(given, overrides)
            publisher = _publisher or _open_again(overrides)
            try:
                return publisher.publish(*given)
            finally:
                _after(publisher)
        finally:
            _depth -= 1


def publish_all(
    msgs: Iterable[Any], topic: str | None = None, modname: str | None = None, **overrides: Any
) -> Iterator[Outcome]:
    """Publish each of `msgs` on one topic, many under way at once: some ten times as quick as one
    by one. Yields what became of each, in their order:

    `kind` is "acked" (on a relay's disk), "handed" (on its way to a relay that does not
    acknowledge), "spooled", "refused" (no relay ever takes it) or "failed" (nobody has it); `why`
    says why, of the last two. `where` is the relay's address, or the file in the spool.

    Over a connection of its own, by what `init()` was given, or else `overrides`. Raises
    PublishError, ConfigError, SigningError, and what `msgs` raises, once all before that is known.
    """
    with _own_lock():
        config = _config if _config is not None and not overrides else _load(_given(overrides))
        publisher = _publisher_for(config)
        name = modname or _calling_module()
    return _publish_all(publisher, topic or "unspecified", msgs, name)


def _publish_all(
    publisher: Publisher, topic: str, msgs: Iterable[Any], modname: str
) -> Iterator[Outcome]:
    try:
        yield from publisher.publish_all(topic, msgs, modname)
    finally:
        publisher.close()


def destroy() -> None:
    """Close the connection. Runs by itself at exit. The next `publish()` makes another one.

    Raises PublishError if a relay that does not acknowledge has not taken all of what was sent.
    """
    with _own_lock():
        _close(in_use=_depth > 0)


def _publish_beside(given: tuple[Any, ...], overrides: dict[str, Any]) -> Message:
    """Publish one message while this thread is publishing another one."""
    numbers = _publisher.numbers if _publisher is not None else None
    publisher = _publisher_for(_config or _load(_given(overrides)), numbers=numbers)
    try:
        return publisher.publish(*given)
    finally:
        publisher.close()


def _after(publisher: Publisher) -> None:
    """Close a publisher at once where nobody would later."""
    if publisher is not _publisher:  # what was called meanwhile has closed or replaced it
        publisher.close()
    elif not threading.main_thread().is_alive():  # Python is at its end: _at_exit may have run
        _close(leaving=True)
    elif _is_fork and publisher.has_handed_over:
        # A child of multiprocessing or of a server ends without a call of what runs at exit.
        _close()


def _at_exit() -> None:
    try:
        with _own_lock():
            _close(in_use=_depth > 0, leaving=True)
    except PublishError as error:
        print(f"fedmsg_relay: {error}", file=sys.stderr)


def _given(overrides: dict[str, Any]) -> dict[str, Any]:
    """What was given, as it is understood later, when the working directory may be another."""
    path = overrides.get("config_filename")
    return {**overrides, "config_filename": os.path.abspath(path)} if path else dict(overrides)


def _load(overrides: dict[str, Any]) -> global_config.Config:
    loaded = global_config.load(overrides.get("config_filename"))
    return global_config.complete({**loaded, **overrides})


def _open(overrides: dict[str, Any], config: global_config.Config) -> Publisher:
    global _publisher, _overrides, _config
    _overrides, _config = overrides, config
    _publisher = _publisher_for(config)
    return _publisher


def _publisher_for(config: global_config.Config, **options: Any) -> Publisher:
    with importing:  # where the config wants signatures, or libzmq
        return Publisher(config, **options)


def _open_again(overrides: dict[str, Any]) -> Publisher:
    """Open for `publish(**overrides)` where there is no publisher, or it was the parent's.

    A child goes on with what its parent has read: it may be another user by now, who may not.
    """
    if overrides and not _is_parents:
        given = _given(overrides)
        return _open(given, _load(given))
    config = _config if _is_fork else None
    return _open(_overrides, config if config is not None else _load(_overrides))


def _close(in_use: bool = False, leaving: bool = False) -> None:
    """Have no publisher any more. One that is in use is closed by the call that uses it."""
    global _publisher, _is_parents
    closing, _publisher, _is_parents = _publisher, None, False
    if closing is not None and not in_use:
        closing.close(leaving)


def _own_lock() -> threading.RLock:
    """The lock of this process, which may be a child without having been told."""
    if os.getpid() != _pid:
        _forget_parent()
    return _lock


def _forget_parent() -> None:
    """In a forked child: nothing of the parent's is used, or ended."""
    global _lock, _publisher, _depth, _is_fork, _is_parents, _pid
    _pid = os.getpid()
    # Another thread may have held it, and is not here.
    _lock = threading.RLock()
    _depth = 0
    _is_fork = True
    inherited, _publisher = _publisher, None
    _is_parents = _is_parents or inherited is not None
    if inherited is not None:
        inherited.abandon()


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
os.register_at_fork(after_in_child=_forget_parent)
