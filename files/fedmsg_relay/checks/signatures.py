"""Signatures on messages: fedmsg's x509 scheme, with `cryptography` alone.

RSA PKCS#1 v1.5 with SHA-1 over the canonical JSON of the message without `signature` and
`certificate`, both of which are base64 in lines of 76 (fedmsg 1.1.7, fedmsg.crypto.x509_ng). SHA-1
is the wire format and not our choice; where the system's policy forbids it, signing says so.
"""

from __future__ import annotations

import base64
import datetime
import os
import socket
from typing import Any

from .. import message as messages
from ..config import Config
from ..errors import SigningError
from ..message import Message

DEFAULT_SSLDIR = "/etc/pki/fedmsg"


class Signer:
    """Signs with the key of this host that the config names. Raises SigningError."""

    def __init__(self, config: Config) -> None:
        if config.get("crypto_backend", "x509") != "x509":
            raise SigningError(
                f"crypto_backend {config['crypto_backend']!r} is not supported, only 'x509'"
            )
        serialization, x509 = _libraries()
        base = os.path.join(config.get("ssldir", DEFAULT_SSLDIR), certificate_name(config))
        self._key = serialization.load_pem_private_key(_read(base + ".key"), password=None)
        certificate = x509.load_pem_x509_certificate(_read(base + ".crt"))
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        self._certificate = base64.encodebytes(pem).decode()

    def sign(self, message: Message) -> Message:
        """`message` with `crypto`, `signature` and `certificate`; those it had are replaced."""
        from cryptography.exceptions import InternalError, UnsupportedAlgorithm
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        signed = {**strip(message), "crypto": "x509"}
        try:
            signature = self._key.sign(
                messages.dumps(signed).encode(), padding.PKCS1v15(), hashes.SHA1()
            )
        except (InternalError, UnsupportedAlgorithm) as error:
            raise SigningError(
                "this system forbids SHA-1 signatures, which fedmsg's are"
                " (Red Hat: update-crypto-policies --set DEFAULT:SHA1)"
            ) from error
        signed["signature"] = base64.encodebytes(signature).decode()
        signed["certificate"] = self._certificate
        return signed


def strip(message: Message) -> Message:
    """A copy of the message without `signature` and `certificate`."""
    return {k: v for k, v in message.items() if k not in ("signature", "certificate")}


def certificate_name(config: Config) -> str:
    """The file name, without suffix, that `certnames` has for this host. Raises SigningError.

    The key is `<cert_prefix>.<short host name>` or, for a script that sets no prefix, its publisher
    name, `shell.<short host name>` when that is the relay's.
    """
    hostname = socket.gethostname().split(".", 1)[0]
    if "cert_prefix" in config:
        index = f"{config['cert_prefix']}.{hostname}"
    else:
        index = config.get("name", "relay_inbound")
        if index == "relay_inbound":
            index = f"shell.{hostname}"
    try:
        return str(config.get("certnames", {})[index])
    except KeyError:
        raise SigningError(
            f"sign_messages is on, but certnames has no {index!r}: add it, with the name of a"
            f" .crt and .key file in {config.get('ssldir', DEFAULT_SSLDIR)}"
        ) from None


def why_invalid(message: Any, config: Config) -> str | None:
    """None if the signature is valid and its certificate may send on this topic; else the reason.

    Raises SigningError where nothing can be checked: no CA certificate, no library.
    """
    try:
        return _why_invalid(message, config)
    except SigningError:
        raise
    except Exception as error:
        # A sender chooses what is parsed here, and cryptography has many ways to refuse it:
        # versions, algorithms, kinds of keys that no fedmsg signature is made with.
        return f"its signature or certificate cannot be read: {error!r}"


def _why_invalid(message: Any, config: Config) -> str | None:
    _, x509 = _libraries()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    ca = x509.load_pem_x509_certificate(_read(_location(config, "ca_cert_location", "ca.crt")))
    if not isinstance(message, dict):
        return "it is not a JSON object"
    if message.get("crypto", "x509") != "x509" or "certificate" not in message:
        return "it has no x509 signature"
    signature = base64.b64decode(message["signature"])
    certificate = x509.load_pem_x509_certificate(base64.b64decode(message["certificate"]))
    reason = _why_untrusted(certificate, ca, config)
    if reason is not None:
        return reason
    try:
        certificate.public_key().verify(
            signature,
            messages.dumps(strip(message)).encode(),
            padding.PKCS1v15(),
            hashes.SHA1(),
        )
    except InvalidSignature:
        return "its signature does not match its text"
    return _why_not_allowed(message.get("topic"), certificate, config)


def _why_untrusted(certificate: Any, ca: Any, config: Config) -> str | None:
    """Whether the CA has issued it, it is of today, and it is not revoked."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import padding

    try:
        ca.public_key().verify(
            certificate.signature,
            certificate.tbs_certificate_bytes,
            padding.PKCS1v15(),
            certificate.signature_hash_algorithm,
        )
    except InvalidSignature:
        return "its certificate was not issued by our CA"
    if certificate.issuer != ca.subject:
        return "its certificate was not issued by our CA"
    for holder, whose in ((certificate, "its certificate"), (ca, "the CA's certificate")):
        if not _is_within(holder, "not_valid_before", "not_valid_after"):
            return f"{whose} is expired, or not valid yet"
    crl_location = config.get("crl_location")
    if not crl_location:
        return None
    _, x509 = _libraries()
    crl = x509.load_pem_x509_crl(_read(crl_location))
    if not crl.is_signature_valid(ca.public_key()):
        return "the list of revoked certificates was not issued by our CA"
    if not _is_within(crl, "last_update", "next_update"):
        return "the list of revoked certificates is expired, or not valid yet"
    if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
        return "its certificate is revoked"
    return None


def _is_within(signed: Any, first: str, last: str) -> bool:
    """Whether it is now between two dates of a certificate or a CRL; a date may be missing."""
    now = datetime.datetime.now(datetime.timezone.utc)
    # The names with `_utc` are there from cryptography 42 on, and are aware; Debian 12 has 38.
    if not hasattr(signed, f"{first}_utc"):
        now = now.replace(tzinfo=None)
    else:
        first, last = f"{first}_utc", f"{last}_utc"
    begin, end = getattr(signed, first), getattr(signed, last)
    return (begin is None or begin <= now) and (end is None or now <= end)


def _why_not_allowed(topic: Any, certificate: Any, config: Config) -> str | None:
    """What `routing_policy` says about the certificate's common name on this topic."""
    _, x509 = _libraries()
    names = certificate.subject.get_attributes_for_oid(x509.oid.NameOID.COMMON_NAME)
    signer = names[0].value if names else None
    policy = config.get("routing_policy", {})
    if topic in policy:
        if signer in policy[topic]:
            return None
        return f"{signer} may not send on this topic, by routing_policy"
    if config.get("routing_nitpicky", False):
        return "routing_policy does not name its topic, and routing_nitpicky is on"
    return None


def _location(config: Config, key: str, default: str) -> str:
    return str(config.get(key) or os.path.join(config.get("ssldir", DEFAULT_SSLDIR), default))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise SigningError(f"cannot read {path}: {error.strerror}") from error


def _libraries() -> tuple[Any, Any]:
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
    except ImportError:
        raise SigningError(
            "signatures need the Python library cryptography (package python3-cryptography)"
        ) from None
    return serialization, x509
