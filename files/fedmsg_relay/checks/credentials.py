"""Whether the signature on a message can be read at all; not whether it is valid.

Upstream's validation raises, and with it dies `fedmsg-tail --validate` and every loop over
`fedmsg.tail_messages()`, where an x509 signature is not base64 or its certificate is not one
(fedmsg 1.1.7, fedmsg.crypto.x509_ng.validate). What is merely invalid it rejects.
"""

from __future__ import annotations

import base64
import ssl
from functools import lru_cache
from typing import Any

# Characters. A certificate of fedmsg's has some 3,000; what is kept in memory must have a bound.
LARGEST_CERTIFICATE = 1 << 16


def are_readable(message: dict[str, Any]) -> bool:
    """False for a message that would make an x509 validation raise. Unsigned ones are fine."""
    if not isinstance(message.get("crypto", ""), str):
        return False
    if message.get("crypto", "x509") != "x509":
        return True  # rejected, or checked by GnuPG
    if "signature" not in message or "certificate" not in message:
        return True  # rejected
    signature, certificate = message["signature"], message["certificate"]
    if not isinstance(signature, str) or not isinstance(certificate, str):
        return False
    if len(certificate) > LARGEST_CERTIFICATE:
        return False
    try:
        base64.b64decode(signature)
    except ValueError:
        return False
    return _is_certificate(certificate)


@lru_cache(maxsize=256)
def _is_certificate(text: str) -> bool:
    """Whether OpenSSL can read it: base64 of a certificate in PEM. A bus has few senders."""
    try:
        pem = base64.b64decode(text).decode("ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ValueError, ssl.SSLError):
        return False
    return True
