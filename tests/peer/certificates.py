"""Throw-away certificates, in the files and under the names fedmsg looks for."""

from __future__ import annotations

import datetime
import socket
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

HOST = socket.gethostname().split(".", 1)[0]
NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)


@dataclass
class Authority:
    """A CA: `ca.crt` and `crl.pem`, and what it has issued, in one directory."""

    directory: Path
    key: rsa.RSAPrivateKey
    certificate: x509.Certificate

    @property
    def ca(self) -> str:
        return str(self.directory / "ca.crt")

    def issue(
        self, name: str, since: datetime.datetime = NOW - DAY, until: datetime.datetime = NOW + DAY
    ) -> x509.Certificate:
        """Write NAME.key and NAME.crt; NAME is the common name as well."""
        key = rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(until)
            .sign(self.key, hashes.SHA256())
        )
        _write_key(self.directory / f"{name}.key", key)
        _write_certificate(self.directory / f"{name}.crt", certificate)
        return certificate

    def revoke(
        self,
        *certificates: x509.Certificate,
        name: str = "crl.pem",
        until: datetime.datetime = NOW + DAY,
    ) -> str:
        """Write a list of revoked certificates; return its path."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(NOW - 2 * DAY)
            .next_update(until)
        )
        for certificate in certificates:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(certificate.serial_number)
                .revocation_date(NOW - DAY)
                .build()
            )
        path = self.directory / name
        crl = builder.sign(self.key, hashes.SHA256())
        path.write_bytes(crl.public_bytes(serialization.Encoding.PEM))
        return str(path)


def make_authority(directory: Path, name: str = "Fedora Project CA") -> Authority:
    directory.mkdir(parents=True)
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 10 * DAY)
        .not_valid_after(NOW + 10 * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    authority = Authority(directory, key, certificate)
    _write_certificate(directory / "ca.crt", certificate)
    authority.revoke()
    return authority


def _write_key(path: Path, key: rsa.RSAPrivateKey) -> None:
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )


def _write_certificate(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
