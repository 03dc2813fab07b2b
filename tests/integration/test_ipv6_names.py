"""A relay by a name that has only IPv6 addresses: all that publishes, listens and looks reaches it.

In a network of its own, with an /etc/hosts of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import ROOT, environment

SCRIPT = r"""
set -eu
cd "$1"
say() { printf '%s\n' "$*"; }
ip link set lo up
ip -6 address add fd00:9::5/128 dev lo nodad
printf '127.0.0.1 localhost\nfd00:9::5 relay6\n' >hosts
mount --bind hosts /etc/hosts
"$PYTHON" "$ROOT/relay.py" --config-filename relay.py >relay.log 2>&1 &
relay=$!
trap 'kill $relay; wait $relay || :' EXIT
tool() { name=$1; shift; "$PYTHON" -m "fedmsg_relay.$name" --config-filename "$@"; }
# It asks until it gets an answer, which takes as long as the relay needs to start.
n=0
until tool probe relay.py >probed; do n=$((n + 1)); [ $n -lt 20 ] || break; done
cat probed
timeout 60 "$PYTHON" -c '
import subprocess, sys, time
def tool(name, config, *options):
    return [sys.executable, "-m", "fedmsg_relay." + name, "--config-filename", config, *options]
tail = subprocess.Popen(tool("tail", "relay.py"), stdout=subprocess.PIPE, text=True)
def publish(config, text):
    command = tool("logger", config, "--verbose", "--timeout", "20", "--message", text)
    return subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
print("submit", publish("relay.py", "submitted"))
print("inbound", publish("inbound.py", "published"))
# The tail may have come later than the first ones.
import threading
def again():
    while tail.poll() is None:
        publish("relay.py", "heard")
threading.Thread(target=again, daemon=True).start()
for line in tail.stdout:
    if "heard" in line:
        print("tail heard it")
        break
tail.terminate()
'
kill $relay; wait $relay || :
trap - EXIT
tool logger relay.py --timeout 0.5 --message x 2>&1 || :
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make networks")
def test_all_tools_reach_it(tmp_path: Path) -> None:
    config = {
        "topic_prefix": "a.b",
        "environment": "dev",
        "relay_inbound": ["tcp://relay6:2003"],
        "relay_submit": ["tcp://relay6:2004"],
        "relay_journal": f"{tmp_path}/journal.db",
        "relay_http": [],
        "endpoints": {"relay_outbound": ["tcp://relay6:4001"]},
        "moksha.monitoring.socket": f"ipc://{tmp_path}/monitoring",
    }
    (tmp_path / "relay.py").write_text(f"config = {config!r}\n")
    (tmp_path / "inbound.py").write_text(f"config = {config | {'relay_submit': []}!r}\n")
    run = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", SCRIPT, "sh", str(tmp_path)],
        env={**environment(), "PYTHON": sys.executable, "ROOT": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert "FEDMSG OK" in run.stdout, run.stdout
    assert "acked by tcp://relay6:2004" in run.stdout, run.stdout
    assert "handed to tcp://relay6:2003, which does not acknowledge" in run.stdout, run.stdout
    assert "tail heard it" in run.stdout, run.stdout
    # And without the relay: the right reason.
    assert "tcp://relay6:2004: connection refused" in run.stdout, run.stdout
