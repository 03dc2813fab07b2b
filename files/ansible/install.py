"""Write files of a release that differ, all in one round trip.

The roles run it with `python3 -c`. Standard input is a JSON object: path to {content, mode}, or to
{link} for a symbolic link. Each file is replaced by renaming, the Python package as a whole (see
switch.py, which comes before this). `SITE/` stands for the directory of local packages of the
system's Python. Prints the paths, one a line.
"""

import json
import os
import site
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ansible.switch import switch

LOCAL_PACKAGES = next(
    (path for path in site.getsitepackages() if path.startswith("/usr/local/")), "/usr/local/lib"
)
PACKAGE = "/usr/local/lib/fedmsg-relay/fedmsg_relay"


def main() -> None:
    os.umask(0o022)
    files = json.load(sys.stdin)
    package = {path: file for path, file in files.items() if path.startswith(f"{PACKAGE}/")}
    if package:
        switch(PACKAGE, package, write)
    for path, file in files.items():
        path = path.replace("SITE", LOCAL_PACKAGES, 1) if path.startswith("SITE/") else path
        if path not in package:
            write(path, file)
        print(path)


def write(path: str, file: dict[str, Any]) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    beside = f"{path}.new"
    if os.path.lexists(beside):
        os.unlink(beside)
    if "link" in file:
        os.symlink(file["link"], beside)
    else:
        with open(beside, "wb") as stream:
            stream.write(file["content"].encode())
            os.fchmod(stream.fileno(), int(file["mode"], 8))
    os.rename(beside, path)


if __name__ == "__main__":
    main()
