"""Upstream's fedmsg.crypto, asked from here: it runs in the peer's virtual environment."""

from __future__ import annotations

import json
from typing import Any

from .bus import UPSTREAM_SCRIPTS, Bus
from .certificates import Authority

Message = dict[str, Any]


def trust(authority: Authority, **keys: Any) -> Message:
    """Config keys by which fedmsg, and we, believe an authority."""
    return {
        "ssldir": str(authority.directory),
        "ca_cert_location": authority.ca,
        "crl_location": str(authority.directory / "crl.pem"),
        "crypto_backend": "x509",
        "crypto_validate_backends": ["x509"],
        **keys,
    }


def sign(bus: Bus, authority: Authority, messages: list[Message], name: str) -> list[bytes]:
    """Signed with the certificate `name`, and encoded."""
    lines = "".join(json.dumps(message) + "\n" for message in messages)
    script = UPSTREAM_SCRIPTS / "sign.py"
    done = bus.upstream_script(script, str(authority.directory), name, stdin=lines)
    assert done.returncode == 0, done.stderr
    return [line.encode() for line in done.stdout.splitlines()]


def upstream_verdicts(bus: Bus, questions: list[tuple[Any, Message]]) -> list[str]:
    """The verdict on each message by a config: "true", "false" or an exception's name."""
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    done = bus.upstream_script(UPSTREAM_SCRIPTS / "validate.py", stdin=lines)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
