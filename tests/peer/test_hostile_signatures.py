"""Signatures and certificates that are none, at listeners that validate: they reject and go on."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from fedmsg_relay.checks import signatures

from .bus import Bus
from .certificates import DAY, NOW, Authority, make_authority
from .corpus import REAL, TOPIC
from .fedmsg_crypto import sign, trust, upstream_verdicts

PEM = b"-----BEGIN CERTIFICATE-----\n%s-----END CERTIFICATE-----\n"


def _base64(text: bytes) -> str:
    return base64.encodebytes(text).decode()


def _by_foreign_key(key: Any, algorithm: Any, authority: Authority) -> str:
    """A certificate under the CA's name that the CA has not issued."""
    name = authority.certificate.subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
    )
    certificate = builder.sign(key, algorithm)
    return _base64(certificate.public_bytes(serialization.Encoding.PEM))


def _hostile(authority: Authority) -> dict[str, dict[str, Any]]:
    """Values of the three keys that a message is signed with."""
    valid = authority.certificate.public_bytes(serialization.Encoding.DER)
    version = valid.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x09", 1)
    # sha256WithRSAEncryption, and what is nothing.
    rsa = bytes.fromhex("2a864886f70d01010b")
    algorithm = valid.replace(rsa, rsa[:-1] + b"\x7f")
    assert version != valid
    assert algorithm != valid

    def certificate(der: bytes) -> str:
        return _base64(PEM % base64.encodebytes(der))

    signature = _base64(b"x" * 256)
    values: dict[str, dict[str, Any]] = {
        "crypto a list": {"crypto": []},
        "crypto an object": {"crypto": {"x": 1}},
        "crypto unknown": {"crypto": "rot13"},
        "certificate a number": {"certificate": 5},
        "certificate null": {"certificate": None},
        "certificate a list": {"certificate": []},
        "certificate empty": {"certificate": ""},
        "certificate not base64": {"certificate": "a"},
        "certificate not ASCII": {"certificate": "Größe"},
        "certificate not PEM": {"certificate": _base64(b"Hello, world.")},
        "certificate cut off": {"certificate": certificate(valid[:-20])},
        "certificate of nothing": {"certificate": certificate(b"")},
        "certificate of an unknown version": {"certificate": certificate(version)},
        "certificate with an unknown algorithm": {"certificate": certificate(algorithm)},
        "certificate by Ed25519": {
            "certificate": _by_foreign_key(ed25519.Ed25519PrivateKey.generate(), None, authority)
        },
        "certificate by an elliptic curve": {
            "certificate": _by_foreign_key(
                ec.generate_private_key(ec.SECP256R1()), hashes.SHA256(), authority
            )
        },
        "signature a number": {"signature": 5},
        "signature not base64": {"signature": "a"},
        "signature not ASCII": {"signature": "Größe"},
        "signature a list": {"signature": []},
    }
    complete = {"crypto": "x509", "certificate": certificate(valid), "signature": signature}
    return {name: {**complete, **keys} for name, keys in values.items()}


NAMES = (
    "crypto a list",
    "crypto an object",
    "crypto unknown",
    "certificate a number",
    "certificate null",
    "certificate a list",
    "certificate empty",
    "certificate not base64",
    "certificate not ASCII",
    "certificate not PEM",
    "certificate cut off",
    "certificate of nothing",
    "certificate of an unknown version",
    "certificate with an unknown algorithm",
    "certificate by Ed25519",
    "certificate by an elliptic curve",
    "signature a number",
    "signature not base64",
    "signature not ASCII",
    "signature a list",
)


class Passed(NamedTuple):
    """What left the relay for each case, and how listeners that validate took it."""

    messages: dict[str, dict[str, Any]]
    verdicts: dict[str, str]
    trust: dict[str, Any]
    printed: list[str]
    tail_survived: bool
    consumed: list[dict[str, Any]]
    log: str


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory, peer_venv: Path) -> Iterator[Passed]:
    authority = make_authority(tmp_path_factory.mktemp("pki") / "fedmsg")
    authority.issue("shell")
    keys = trust(authority, crl_location=None)
    directory = tmp_path_factory.mktemp("hostile")
    with Bus(directory, peer_venv, **keys, validate_signatures=True) as bus:
        relay = bus.relay()
        tail, hub = bus.tail("--validate"), bus.hub()
        hostile = _hostile(authority)
        assert tuple(hostile) == NAMES
        [end] = sign(bus, authority, [{**REAL, "msg_id": "end"}], "shell")
        with bus.listener() as listener, bus.publisher() as publisher:
            bus.wait_for_listeners(relay, 3)
            for name in NAMES:
                body = json.dumps({**REAL, "msg_id": name, **hostile[name]}).encode()
                publisher.send(TOPIC, body)
            publisher.send(TOPIC, end)
            messages = {name: json.loads(listener.receive()[1]) for name in NAMES}
            assert listener.receive() == [TOPIC, end]
        hub.wait_for_line('"msg_id": "end"')
        try:
            tail.wait_for_line("'msg_id': 'end'")
        except AssertionError as error:
            print(error)
        relay.stop()
        verdicts = upstream_verdicts(bus, [(message, keys) for message in messages.values()])
        yield Passed(
            messages,
            dict(zip(NAMES, verdicts)),
            keys,
            tail.records(),
            tail.exit_status is None,
            hub.messages(),
            relay.errors,
        )


@pytest.mark.parametrize("name", NAMES)
def test_upstreams_validation_rejects_it_and_does_not_fail(passed: Passed, name: str) -> None:
    """An exception here ends upstream's fedmsg-tail --validate, and every loop like it."""
    assert passed.verdicts[name] == "false"


@pytest.mark.parametrize("name", NAMES)
def test_our_validation_rejects_it_and_does_not_fail(passed: Passed, name: str) -> None:
    assert signatures.why_invalid(passed.messages[name], passed.trust)


def test_our_tail_shows_only_the_signed_message(passed: Passed) -> None:
    assert passed.tail_survived
    assert len(passed.printed) == 1


def test_upstreams_hub_consumes_only_the_signed_message(passed: Passed) -> None:
    assert [message["msg_id"] for message in passed.consumed] == ["end"]


def test_what_is_wrapped_is_counted_and_still_there(passed: Passed) -> None:
    wrapped = {
        name: message for name, message in passed.messages.items() if "certificate" not in message
    }
    assert f"wrapped for an unreadable signature {len(wrapped)})" in passed.log
    for name, message in wrapped.items():
        assert message["msg"]["msg_id"] == name
        assert {"crypto", "signature", "certificate"} <= set(message["msg"])
