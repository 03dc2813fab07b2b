"""fedmsg-relay: publish on a fedmsg bus from scripts that do not stay to be connected to.

Scripts call `fedmsg_relay.publish(topic="package.branch.new", modname="pkgdb", msg={...})`.
"""

from __future__ import annotations

import _thread
import os

TYPE_CHECKING = False  # `typing` is slow to import, and every command imports this first
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

# On a host this is a link to the release that is deployed. Whoever has begun with one goes on with
# it when it is replaced, whatever it has yet to import.
__path__ = [os.path.realpath(path) for path in __path__]

# Held while something is imported late, and by a fork. A child whose parent was importing a module
# in another thread when it forked waits for that module for ever: nobody is left to finish it.
importing = _thread.RLock()
os.register_at_fork(
    before=importing.acquire, after_in_parent=importing.release, after_in_child=importing.release
)

__all__ = [
    "ConfigError",
    "MessageRefused",
    "MessageTooLarge",
    "PublishError",
    "SigningError",
    "destroy",
    "init",
    "publish",
    "publish_all",
]

_FROM = {
    "publish": "publishing.api",
    "publish_all": "publishing.api",
    "init": "publishing.api",
    "destroy": "publishing.api",
    "PublishError": "errors",
    "MessageRefused": "errors",
    "MessageTooLarge": "errors",
    "SigningError": "errors",
    "ConfigError": "errors",
}

# Functions of upstream's that are not ours, and what to use.
_REFUSED = {
    "send_message": "publish(topic, msg, modname), as upstream advises, too",
    "tail_messages": "fedmsg-tail, or a SUB socket: docs/protocol.adoc",
    "API_function": "functions as they are: it is upstream's own decorator",
}


def __getattr__(name: str) -> Any:
    # PEP 562: `import fedmsg_relay` itself stays cheap, since every command imports it first.
    if name not in _FROM:
        instead = f": use {_REFUSED[name]}" if name in _REFUSED else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{instead}")
    with importing:
        from importlib import import_module

        return getattr(import_module(f".{_FROM[name]}", __name__), name)
