"""Write files of a release that differ, all in one round trip.

The roles run it with `python3 -c`. Standard input is a JSON object: path to {content, mode}, or to
{link} for a symbolic link. Each file is replaced by renaming, so that a program that is being read
is never half of one release and half of another. `SITE/` stands for the directory of local packages
of the system's Python. Prints the paths, one a line.

Modules are compiled: those who run them cannot write beside them, and would compile all of them at
every start, which takes as long as everything else a relay does until it is there.
"""

import compileall
import json
import os
import site
import sys

LOCAL_PACKAGES = next(
    (path for path in site.getsitepackages() if path.startswith("/usr/local/")), "/usr/local/lib"
)


def main() -> None:
    os.umask(0o022)
    for path, file in json.load(sys.stdin).items():
        path = path.replace("SITE", LOCAL_PACKAGES, 1) if path.startswith("SITE/") else path
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
        if path.endswith(".py"):
            compileall.compile_file(path, quiet=2)
        print(path)


if __name__ == "__main__":
    main()
