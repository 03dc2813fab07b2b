"""TLS with client certificates, as Fedora's broker has it: no password, and trouble is told."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.broker import Node
from tests.support.ports import free_port

from .conftest import Amqp, Bridge, numbers

MakeBridge = Callable[..., Bridge]
DAY = datetime.timedelta(days=1)

TLS = """\
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.cacertfile = {directory}/ca.pem
ssl_options.certfile = {directory}/server.pem
ssl_options.keyfile = {directory}/server.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
auth_mechanisms.1 = EXTERNAL
auth_mechanisms.2 = PLAIN
ssl_cert_login_from = common_name
"""


class Authority:
    """Certificates in a directory: `NAME.pem` and `NAME.key`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
        self._make("ca", self._name, self._key, DAY, is_authority=True)

    def issue(self, name: str, lasts: datetime.timedelta = DAY) -> dict[str, Any]:
        """Keys of the config for a certificate of `name`; it has expired if `lasts` is negative."""
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._make(name, subject, ec.generate_private_key(ec.SECP256R1()), lasts)
        paths = {"amqp_certificate": f"{name}.pem", "amqp_key": f"{name}.key"}
        paths["amqp_ca_certificate"] = "ca.pem"
        return {key: str(self.directory / path) for key, path in paths.items()}

    def _make(
        self, name: str, subject: x509.Name, key: Any, lasts: datetime.timedelta,
        is_authority: bool = False,
    ) -> None:  # fmt: skip
        now = datetime.datetime.now(datetime.timezone.utc)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 3 * DAY)
            .not_valid_after(now + lasts)
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pem = made.public_bytes(serialization.Encoding.PEM)
        (self.directory / f"{name}.pem").write_bytes(pem)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (self.directory / f"{name}.key").write_bytes(private)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "certificates")


@pytest.fixture
def secured(tmp_path: Path, authority: Authority) -> Iterator[tuple[Node, int]]:
    """A node with TLS, and the port for it."""
    authority.issue("server")
    port = free_port()
    more = TLS.format(port=port, directory=authority.directory)
    node = Node(tmp_path / "secured", more, plugins="rabbitmq_auth_mechanism_ssl")
    try:
        node.start()
        yield node, port
    finally:
        node.close()


def test_certificate_instead_of_a_password(
    secured: tuple[Node, int],
    authority: Authority,
    amqp_venv: Path,
    make_bridge: MakeBridge,
) -> None:
    """One that has expired is told as such; with one that is good it goes on from the cursor."""
    node, port = secured
    node.control("add_user", "bridge", "nobody knows")
    node.control("set_permissions", "bridge", ".*", ".*", ".*")
    amqp = Amqp(node, amqp_venv)
    amqp.bind()
    url = f"amqps://127.0.0.1:{port}"
    bridge = make_bridge(amqp_url=url, **authority.issue("bridge", -DAY))
    bridge.write(0, 10)
    program = bridge.start()
    assert "expired" in bridge.wait_for_trouble("certificate")
    program.terminate()
    bridge.configure(amqp_url=url, **authority.issue("bridge"))
    bridge.start()
    bridge.wait_for_seq(10)
    assert numbers(amqp.drain()) == list(range(10))


def test_broker_s_certificate_is_checked(
    secured: tuple[Node, int], authority: Authority, tmp_path: Path, make_bridge: MakeBridge
) -> None:
    other = Authority(tmp_path / "other")
    keys = {**authority.issue("bridge"), "amqp_ca_certificate": f"{other.directory}/ca.pem"}
    bridge = make_bridge(amqp_url=f"amqps://127.0.0.1:{secured[1]}", **keys)
    bridge.write(0, 1)
    bridge.start()
    assert "TLS" in bridge.wait_for_trouble("certificate")
