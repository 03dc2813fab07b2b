"""A long-lived listener: fedmsg-tail of an ordinary user, configured by /etc/fedmsg.d alone."""

from __future__ import annotations

import ast
import contextlib
import uuid
from collections.abc import Iterator

import bus
from testinfra.host import Host


class Listener:
    def __init__(self, host: Host, path: str) -> None:
        self.host = host
        self.path = path

    def messages(self, marker: str = "") -> list[dict]:
        """All messages so far, without those that only showed that the listener is there."""
        lines = self.host.check_output(f"cat {self.path}").splitlines()
        # On standard error it says which messages it does not show.
        shown = [line.partition("INFO] ")[2] for line in lines]
        found = [ast.literal_eval(text) for text in shown if text.startswith("{")]
        return [m for m in found if not m["topic"].endswith(".listening") and marker in str(m)]


@contextlib.contextmanager
def listening(
    host: Host, topic: str = "org.fedoraproject.dev", publisher: Host | None = None
) -> Iterator[Listener]:
    """A listener that is known to be connected to the relay, for it has heard `publisher`."""
    operator = bus.host(host.backend.host, root=False)
    path = f"/tmp/listener-{uuid.uuid4().hex}"
    pid = operator.check_output(
        f"cd /; nohup fedmsg-tail --topic {topic} > {path} 2>&1 < /dev/null & echo $!"
    )
    try:
        parts = topic.split(".")
        modname = parts[3] if len(parts) > 3 else "logger"
        hello = f"fedmsg-logger --modname {modname} --topic listening --message hello"

        def hears() -> bool:
            (publisher or operator).check_output(hello)
            return bool(operator.file(path).size)

        bus.wait_for(hears, "the listener's first message")
        yield Listener(operator, path)
    finally:
        operator.run(f"kill {pid}; rm -f {path}")
