"""Put a file where it belongs, by renaming: whoever opens it gets the old one or the new one.

The roles put this text before those of switch.py and of install.py or release.py.
"""

import os
import site
from typing import Any, Optional

LOCAL_PACKAGES = next(
    (path for path in site.getsitepackages() if path.startswith("/usr/local/")), "/usr/local/lib"
)


def located(path: str) -> str:
    """The path on this host: `SITE/` stands for the local packages of the system's Python."""
    return path.replace("SITE", LOCAL_PACKAGES, 1) if path.startswith("SITE/") else path


def place(path: str, file: dict[str, Any]) -> None:
    """Make `path` that file: {content, mode} with, or without, its owner [uid, gid]; or {link}."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    beside = f"{path}.new"
    if os.path.lexists(beside):
        os.unlink(beside)
    if "link" in file:
        os.symlink(file["link"], beside)
    else:
        with open(beside, "wb") as stream:
            stream.write(file["content"].encode("utf-8", "surrogateescape"))
            if "owner" in file:
                os.fchown(stream.fileno(), *file["owner"])
            os.fchmod(stream.fileno(), file["mode"])
    os.rename(beside, path)


def put(path: str, file: Optional[dict[str, Any]]) -> None:
    """Make `path` that file, or make it go, and with it what was compiled of it."""
    if file is not None:
        place(path, file)
        return
    if os.path.lexists(path):
        os.unlink(path)
    name = os.path.basename(path)[: -len(".py")] + "."
    caches = os.path.join(os.path.dirname(path), "__pycache__")
    if path.endswith(".py") and os.path.isdir(caches):
        for cache in os.listdir(caches):
            if cache.startswith(name):
                os.unlink(os.path.join(caches, cache))
