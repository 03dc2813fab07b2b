"""Write files of a release that differ, all in one round trip.

The roles run it with `python3 -I -c`, after place.py, switch.py. Standard input is a JSON object:
path to {content, mode}, or to {link} for a symbolic link, or to null for one that is to go; a mode
is in octal. Each file is replaced by renaming, the Python package as a whole. Prints the paths, one
a line.
"""

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from ansible.place import located, put
    from ansible.switch import put_all

PACKAGE = "/usr/local/lib/fedmsg-relay/fedmsg_relay"


def main() -> None:
    os.umask(0o022)
    wanted: dict[str, Optional[dict[str, Any]]] = json.load(sys.stdin)
    files = {located(path): file and with_number(file) for path, file in wanted.items()}
    put_all(files, PACKAGE, put)
    print(*files, sep="\n")


def with_number(file: dict[str, Any]) -> dict[str, Any]:
    return {**file, "mode": int(file["mode"], 8)} if "mode" in file else file


if __name__ == "__main__":
    main()
