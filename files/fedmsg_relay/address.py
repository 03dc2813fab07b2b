"""What an address of the config is: `tcp://HOST:PORT`.

HOST is a name, an IPv4 address, an IPv6 address in brackets, or `*`. A name is in ASCII: it is
looked up as it stands, and an internationalised one has a form in ASCII for that (RFC 5890).
"""

from __future__ import annotations

import re

HOST = r"\*|[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?\]"
_ADDRESS = re.compile(rf"tcp://({HOST}):([0-9]{{1,5}})", re.ASCII)


def parts(text: str) -> tuple[str, int] | None:
    """Host, without brackets, and port; None if it is no such address."""
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found[2]) < 65536:
        return None
    return found[1].strip("[]"), int(found[2])
