"""How tests reach the hosts of one state directory: keys, ssh's own files, Ansible's inventory.

Every key is made here, before its host exists, so that ssh knows each host from the first
connection on and never has to trust what it is shown.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

OPERATOR = "operator"
# Podman leaves /etc/hosts alone (--no-hosts): names, a host's own too, come from the network's DNS,
# and nothing leaks in from the machine's own /etc/hosts.
LOCALHOST = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"


@dataclass(frozen=True)
class Host:
    """A host that runs: its name, its container's, and the port on 127.0.0.1 of each published."""

    name: str
    container: str
    suite: str
    published: dict[int, int]

    @property
    def ssh_port(self) -> int:
        return self.published[22]


class Access:
    """The files below a state directory that let its owner, and nobody else, into the hosts."""

    def __init__(self, state: Path) -> None:
        self.operator_key = state / "operator_ed25519"
        self.host_keys = state / "host_keys"
        self.known_hosts = state / "known_hosts"
        self.ssh_config = state / "ssh_config"
        self.inventory = state / "inventory.json"
        self.host_keys.mkdir(parents=True, exist_ok=True)
        state.chmod(0o700)
        _ensure_key(self.operator_key)

    def remove(self) -> None:
        """Delete every file that this class made."""
        for file in [
            *self.host_keys.iterdir(),
            self.operator_key,
            self.operator_key.with_suffix(".pub"),
            self.known_hosts,
            self.ssh_config,
            self.inventory,
        ]:
            file.unlink(missing_ok=True)
        self.host_keys.rmdir()

    def public_keys(self, host: str) -> str:
        """The operator's and the host's public key: what a running host has to have been given."""
        _ensure_key(self.host_keys / host)
        return self._public(self.operator_key) + self._public(self.host_keys / host)

    def host_files(self, host: str) -> bytes:
        """A tar archive, to be unpacked at /, with what makes an image `host`: keys, /etc/hosts."""
        key = self.host_keys / host
        files = {
            "etc/hosts": (LOCALHOST.encode(), 0o644),
            "etc/ssh/ssh_host_ed25519_key": (key.read_bytes(), 0o600),
            "etc/ssh/ssh_host_ed25519_key.pub": (self._public(key).encode(), 0o644),
            f"etc/ssh/authorized_keys.d/{OPERATOR}": (
                self._public(self.operator_key).encode(),
                0o644,
            ),
        }
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, (content, mode) in files.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), mode
                tar.addfile(entry, io.BytesIO(content))
        return archive.getvalue()

    def write(self, hosts: list[Host]) -> None:
        """Write known_hosts, ssh_config and inventory.json for `hosts`."""
        self.known_hosts.write_text("".join(map(self._known_host, hosts)))
        self.ssh_config.write_text("".join(map(self._ssh_block, hosts)))
        variables = {host.name: self._variables(host) for host in hosts}
        self.inventory.write_text(json.dumps({"all": {"hosts": variables}}, indent=2) + "\n")

    def ssh(self, host: str, command: str, timeout: float) -> subprocess.CompletedProcess[str]:
        """Run `command` on `host` as the operator.

        Raises subprocess.TimeoutExpired after `timeout` seconds.
        """
        return subprocess.run(
            ["ssh", "-F", str(self.ssh_config), host, command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )

    def _known_host(self, host: Host) -> str:
        return f"[127.0.0.1]:{host.ssh_port} {self._public(self.host_keys / host.name)}"

    def _ssh_block(self, host: Host) -> str:
        return f"""\
Host {host.name}
  HostName 127.0.0.1
  Port {host.ssh_port}
  User {OPERATOR}
  IdentityFile "{self.operator_key}"
  IdentitiesOnly yes
  UserKnownHostsFile "{self.known_hosts}"
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout 5
  LogLevel ERROR

"""

    def _variables(self, host: Host) -> dict[str, object]:
        return {
            "ansible_host": "127.0.0.1",
            "ansible_port": host.ssh_port,
            "ansible_user": OPERATOR,
            "ansible_ssh_private_key_file": str(self.operator_key),
            "ansible_ssh_common_args": (
                f"-o UserKnownHostsFile='{self.known_hosts}' -o StrictHostKeyChecking=yes "
                "-o IdentitiesOnly=yes"
            ),
            "test_host_suite": host.suite,
            # For faults that are the whole machine's: podman stop and the like.
            "test_host_container": host.container,
            # The ports that `up` published besides ssh's: on the host -> on 127.0.0.1.
            "test_host_published": {
                str(port): at for port, at in host.published.items() if port != 22
            },
        }

    @staticmethod
    def _public(key: Path) -> str:
        kind, public, *_ = key.with_suffix(".pub").read_text().split()
        return f"{kind} {public}\n"


def _ensure_key(key: Path) -> None:
    if key.exists() and key.with_suffix(".pub").exists():
        return
    key.unlink(missing_ok=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key.name, "-f", str(key)],
        stdin=subprocess.DEVNULL,
        check=True,
    )
