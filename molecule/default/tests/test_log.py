"""The log is where the SOP says, and rotating it loses neither a line nor a message."""

from __future__ import annotations

import re
import threading

import bus
from listener import listening
from testinfra.backend.base import CommandResult
from testinfra.host import Host

ROTATIONS = 5


def test_path_owner_and_mode(relay: Host) -> None:
    directory, file = relay.file("/var/log/fedmsg"), relay.file(bus.LOG)
    assert (directory.user, directory.group, directory.mode) == ("fedmsg", "fedmsg", 0o755)
    assert (file.user, file.group, file.mode) == ("fedmsg", "fedmsg", 0o640)


def test_other_users_can_neither_write_nor_list_what_is_not_theirs(relay: Host) -> None:
    operator = bus.host("busgateway01", root=False)
    assert operator.run("ls /var/log/fedmsg").rc == 0
    assert operator.run("touch /var/log/fedmsg/mine").rc != 0
    assert operator.run(f"echo x >> {bus.LOG}").rc != 0
    assert operator.run("ls /run/fedmsg").rc != 0


def test_logrotate_accepts_its_config(relay: Host) -> None:
    done = relay.run("logrotate --debug /etc/logrotate.d/fedmsg-relay 2>&1")
    assert done.rc == 0
    assert "error" not in done.stdout


# Until the file is gone: numbered messages, and listeners that come, hear one of them, and go a
# moment later, after the relay has seen who they are. Prints how many of both. It runs on the
# relay's host, which has many addresses of its own: of one alone not every listener gets a line.
LOAD = """
import collections, os, subprocess, sys, threading, time, zmq
flag, messages, listeners = sys.argv[1], 0, 0
logger = subprocess.Popen(
    ["fedmsg-logger", "--modname", "rotation", "--topic", "line"], stdin=subprocess.PIPE, text=True
)
def publish():
    global messages
    while os.path.exists(flag):
        messages += 1
        logger.stdin.write(f"{messages}\\n")
        logger.stdin.flush()
        time.sleep(0.002)
    logger.stdin.close()
publisher = threading.Thread(target=publish)
publisher.start()
context = zmq.Context()
connected = collections.deque()
while os.path.exists(flag):
    listener = context.socket(zmq.SUB)
    listener.setsockopt(zmq.SUBSCRIBE, b"org.fedoraproject.dev.rotation")
    source = f"127.0.0.{2 + listeners % 250}"
    listener.connect(f"tcp://{source}:0;{sys.argv[2]}:4001")
    while os.path.exists(flag) and not listener.poll(100):
        pass
    if not listener.poll(0):
        listener.close(linger=0)  # the end came first; the relay may know of it or not
        break
    listeners += 1
    time.sleep(0.02)
    connected.append((time.monotonic() + 0.5, listener))
    while connected and connected[0][0] < time.monotonic():
        connected.popleft()[1].close(linger=0)
publisher.join()
time.sleep(max(0, connected[-1][0] - time.monotonic()))
context.destroy(linger=0)
assert logger.wait() == 0
print(messages, listeners)
"""


def test_rotation_under_load_loses_no_line_and_no_message(relay: Host, app01: Host) -> None:
    """A listener that comes is one line, and when it goes another, so lines can be counted.

    What is too much for the log is counted in the metrics, so that none is lost unseen.
    """
    relay.check_output(f"rm -f {bus.LOG}.*")
    with listening(app01, topic="org.fedoraproject.dev.rotation") as listener:
        before = _said(relay), _unsaid(relay)
        address = relay.check_output("getent ahostsv4 busgateway01").split()[0]
        flag = relay.check_output("mktemp")
        done: list[CommandResult] = []
        load = threading.Thread(
            target=lambda: done.append(relay.run("python3 -c %s %s %s", LOAD, flag, address))
        )
        load.start()
        try:
            for number in range(1, ROTATIONS + 1):
                bus.wait_for(lambda: relay.file(bus.LOG).exists, f"a line after rotation {number}")
                relay.check_output("logrotate --force /etc/logrotate.d/fedmsg-relay")
        finally:
            relay.check_output(f"rm {flag}")
            load.join()
        assert done[0].rc == 0, done[0].stderr
        messages, listeners = map(int, done[0].stdout.split())
        assert messages > 100 and listeners > 10
        bus.wait_for(lambda: len(listener.messages()) >= messages, "all messages")
        assert _numbers(listener.messages()) == list(range(1, messages + 1))
    # The test's own listener may add two, and the last one of the load, too.
    bus.wait_for(
        lambda: sum(found(relay) for found in (_said, _unsaid)) - sum(before) >= 2 * listeners,
        f"a line for each of {listeners} listeners that came, and one when it went",
    )
    assert _said(relay) + _unsaid(relay) - sum(before) <= 2 * listeners + 4
    assert _said(relay) - before[0] > 10 * ROTATIONS
    files = relay.check_output(f"ls -l {bus.LOG}*").splitlines()
    assert len(files) > ROTATIONS
    assert all(line.split()[2:4] == ["fedmsg", "fedmsg"] for line in files), files


def _numbers(messages: list[dict]) -> list[int]:
    return [int(message["msg"]["log"]) for message in messages]


def _said(relay: Host) -> int:
    """Lines of the log and of all rotated ones that say of a listener that it came or went."""
    text = relay.check_output(f"zcat --force {bus.LOG}* 2>/dev/null || true")
    return len(re.findall(r"listener \S+ (?:dis)?connected,", text))


def _unsaid(relay: Host) -> int:
    """Those of whom the log says nothing, for there were too many."""
    text = relay.check_output("curl --silent --fail http://127.0.0.1:4002/metrics")
    [found] = re.findall(r"^fedmsg_relay_listener_changes_not_logged_total (\S+)$", text, re.M)
    return int(float(found))
