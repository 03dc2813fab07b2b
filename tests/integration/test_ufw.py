"""The relay's ports behind a real ufw, in namespaces of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT
from tests.support.programs import Child

FIREWALL = ROOT / "files/ansible/firewall.py"
PORT = 2003
# A network that is allowed, and one that is not.
FRIEND, STRANGER = ("10.5.0.1/16", "10.5.0.2/16"), ("192.0.2.1/24", "192.0.2.2/24")

# The host: a copy of ufw's files, and a wire to the namespace that its peers are in.
SETUP = f"""
set -e
mount -t tmpfs none /mnt
cp -a /etc/ufw /mnt/ufw
mount --bind /mnt/ufw /etc/ufw
ip link set lo up
unshare --net sleep infinity >&2 &
until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
ip link add wire type veth peer name peer netns $!
for address in {FRIEND[0]} {STRANGER[0]}; do ip address add $address dev wire; done
for address in {FRIEND[1]} {STRANGER[1]}; do
  nsenter --net --target $! ip address add $address dev peer
done
ip link set wire up
nsenter --net --target $! ip link set peer up
ufw --force enable >&2
ufw allow 22/tcp comment of-the-admin >&2
echo $!
exec sleep infinity
"""
LISTEN = f"""
import socket
server = socket.create_server(("", {PORT}))
print("ready", flush=True)
while True:
    server.accept()
"""
CONNECT = f"""
import socket, sys
here, there = sys.argv[1:]
try:
    socket.create_connection((there, {PORT}), timeout=1, source_address=(here, 0))
    print("open")
except TimeoutError:
    print("filtered")
"""


class Host:
    """A host with ufw, and who connects to it."""

    def __init__(self, host: int, peers: int) -> None:
        self._here = ["nsenter", "--net", "--mount", "--target", str(host)]
        self._there = ["nsenter", "--net", "--target", str(peers)]

    def run(self, *command: str, text: str = "") -> str:
        done = subprocess.run(
            [*self._here, *command], input=text, capture_output=True, text=True, timeout=60,
            env={**os.environ, "PATH": f"/usr/sbin:/sbin:{os.environ['PATH']}"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def apply(self, *networks: str, check: bool = False) -> list[str]:
        asked = {"networks": networks, "ports": [PORT, 2004], "label": "", "check": check}
        said = json.loads(self.run("/usr/bin/python3", "-I", str(FIREWALL), text=json.dumps(asked)))
        assert said["firewall"] == "ufw"
        assert not any("every host can connect" in line for line in said["said"])
        return list(said["changes"])

    def listen(self) -> Child:
        return Child([*self._here, sys.executable, "-c", LISTEN], stdout=subprocess.PIPE, text=True)

    def met(self, there: str, here: str) -> str:
        words = (sys.executable, "-c", CONNECT, here.partition("/")[0], there.partition("/")[0])
        done = subprocess.run([*self._there, *words], capture_output=True, text=True, timeout=60)
        return done.stdout.strip() or done.stderr


@pytest.fixture
def host() -> Iterator[Host]:
    if os.geteuid() != 0:
        pytest.skip("namespaces with a firewall are root's")
    assert shutil.which("ufw", path="/usr/sbin"), "run tools/setup/packages"
    with Child(
        ["unshare", "--net", "--mount", "sh", "-c", SETUP],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as outer:  # fmt: skip
        try:
            assert outer.stdout is not None
            yield Host(outer.pid, int(outer.stdout.readline()))
        finally:
            os.killpg(outer.pid, signal.SIGKILL)


def test_the_networks_get_in_and_nobody_else(host: Host) -> None:
    with host.listen() as server:
        try:
            assert server.stdout is not None and server.stdout.readline() == "ready\n"
            assert host.met(*FRIEND) == "filtered"  # ufw lets nothing in that nobody has named
            predicted = host.apply("10.5.0.0/16", check=True)
            assert host.met(*FRIEND) == "filtered"
            assert host.apply("10.5.0.0/16") == predicted != []
            assert (host.met(*FRIEND), host.met(*STRANGER)) == ("open", "filtered")
            assert host.apply("10.5.0.0/16") == []
            # One more, though what denies was there before; then that one alone.
            host.apply("10.5.0.0/16", "192.0.2.2/32", "2001:db8::7/128", "2001:db8:1::/48")
            assert (host.met(*FRIEND), host.met(*STRANGER)) == ("open", "open")
            assert (
                host.apply("10.5.0.0/16", "192.0.2.2/32", "2001:db8::7/128", "2001:db8:1::/48")
                == []
            )
            host.apply("192.0.2.2/32")
            assert (host.met(*FRIEND), host.met(*STRANGER)) == ("filtered", "open")
            assert "fedmsg-relay" in host.run("ufw", "app", "list")
            host.apply()
            assert host.met(*STRANGER) == "filtered"
        finally:
            server.kill()
    added = host.run("ufw", "show", "added").splitlines()[1:]
    assert [line for line in added if line != "(None)"] == [
        "ufw allow 22/tcp comment 'of-the-admin'"
    ]
    assert host.apply() == []
    assert not host.run("ls", "/etc/ufw/applications.d").count("fedmsg")
