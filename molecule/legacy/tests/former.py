"""Upstream's own tools, which go on through a takeover: numbered messages, a listener, ports."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import bus
from testinfra.host import Host

LOGGER = "/usr/bin/fedmsg-logger"
TAIL = "/usr/bin/fedmsg-tail"
LISTENER = "former-tail.service"
HEARD = "/var/tmp/former-tail"
# How many of upstream's fedmsg-logger publish at the same time.
PUBLISHERS = 3

# Until the flag is gone: numbered messages, one after the other, each by its own fedmsg-logger. It
# takes a second of a processor to start: the rest of the machine has something to do, too.
PUBLISH = """
import json, os, subprocess, sys, time
flag, logger, name, number, step = sys.argv[1], sys.argv[2], sys.argv[3], *map(int, sys.argv[4:])
with open(f"{flag}.{number}", "w") as done:
    while os.path.exists(flag):
        began = time.time()
        command = [logger, "--topic", "former", "--message", f"{name}-{number}."]
        run = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        said = run.stderr[-500:] if run.returncode else ""
        print(json.dumps([number, run.returncode, began, time.time(), said]), file=done, flush=True)
        number += step
        time.sleep(1.5)
"""
# From when until when nobody listened on the port, by the kernel's table.
WATCH = """
import os, sys, time
flag, port, since = sys.argv[1], f":{int(sys.argv[2]):04X} ", None
with open(f"{flag}.closed", "w") as found:
    while os.path.exists(flag):
        with open("/proc/net/tcp") as table:
            is_open = any(port in line and " 0A " in line for line in table)
        if not is_open and since is None:
            since = time.time()
        elif is_open and since is not None:
            print(since, time.time(), file=found, flush=True)
            since = None
        time.sleep(0.002)
"""


@dataclass(frozen=True)
class Sent:
    number: int
    rc: int
    began: float
    ended: float
    said: str


class Flow:
    """What PUBLISHERS of upstream's fedmsg-logger send from one host."""

    def __init__(self, host: Host) -> None:
        self.name = uuid.uuid4().hex[:12]
        self.host = host
        self.flag = f"/var/tmp/former-{self.name}"

    def start(self) -> None:
        self.host.check_output(f"touch {self.flag}")
        for first in range(1, PUBLISHERS + 1):
            run(self.host, PUBLISH, self.flag, LOGGER, self.name, str(first), str(PUBLISHERS))

    def stop(self) -> None:
        """Messages that are under way still leave."""
        self.host.check_output(f"rm -f {self.flag}")
        # Not the shell that runs this.
        pattern = f"{self.flag} {LOGGER}".replace("former", "[f]ormer", 1)
        programs = f"pgrep --full {shlex.quote(pattern)}"
        bus.wait_for(lambda: self.host.run(programs).rc != 0, "the publishers' end", 60)

    def sent(self) -> list[Sent]:
        lines = self.host.check_output(f"cat {self.flag}.*").splitlines()
        return sorted((Sent(*json.loads(line)) for line in lines), key=lambda sent: sent.number)

    def heard(self) -> Counter[int]:
        found = self.host.run(f"grep -oa '{self.name}-[0-9]*\\.' {HEARD}").stdout
        return Counter(int(number) for number in re.findall(r"-(\d+)\.", found))


def run(host: Host, program: str, *arguments: str) -> None:
    """Start a Python program that goes on."""
    words = " ".join(map(shlex.quote, ("python3", "-c", program, *arguments)))
    host.check_output(f"systemd-run --quiet --working-directory=/ -- {words}")


@contextlib.contextmanager
def flowing(host: Host) -> Iterator[Flow]:
    flow = Flow(host)
    flow.start()
    try:
        bus.wait_for(lambda: len(flow.heard()) >= PUBLISHERS, "the first messages", 60)
        yield flow
    finally:
        flow.stop()


@contextlib.contextmanager
def watching(host: Host, port: int, found: list[tuple[float, float]]) -> Iterator[None]:
    """Afterwards `found` has when the port was closed."""
    flag = f"/var/tmp/former-{uuid.uuid4().hex[:12]}"
    host.check_output(f"touch {flag}")
    run(host, WATCH, flag, str(port))
    try:
        yield
    finally:
        host.check_output(f"rm {flag}")
        for line in host.check_output(f"cat {flag}.closed").splitlines():
            began, ended = map(float, line.split())
            found.append((began, ended))


def start_listener(host: Host) -> None:
    host.check_output(
        f"systemctl stop {LISTENER} 2>/dev/null; systemctl reset-failed {LISTENER} 2>/dev/null;"
        f" rm -f {HEARD};"
        f" systemd-run --quiet --unit={LISTENER} --uid=operator --working-directory=/"
        f" --property=StandardOutput=append:{HEARD} --property=StandardError=append:{HEARD}"
        f" {TAIL} --topic org.fedoraproject"
    )

    def hears() -> bool:
        host.check_output(f"{LOGGER} --message listening")
        return "listening" in host.file(HEARD).content_string

    bus.wait_for(hears, "the listener's first message", 60)


def listener_pid(host: Host) -> str:
    """It ends with its process: the unit is not started again."""
    return host.check_output(f"systemctl show --property=MainPID --value {LISTENER}")


def settle(flow: Flow, seconds: float = 10) -> Counter[int]:
    """What is heard when all is, or nothing more came for some seconds."""
    heard, since = flow.heard(), time.monotonic()
    wanted = {sent.number for sent in flow.sent()}
    while wanted - heard.keys() and time.monotonic() - since < seconds:
        if (now := flow.heard()) != heard:
            heard, since = now, time.monotonic()
        time.sleep(0.3)
    return heard
