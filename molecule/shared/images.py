"""Images of test hosts: built once from packages, then kept in podman's store by content.

An image's tag is the hash of everything that went into it, so a changed recipe builds a new image
and an unchanged one costs nothing. With FEDMSG_TEST_IMAGE=registry/image:tag the hosts are a thin
layer on that published image instead.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine import EngineError, limit_options, podman

# Prints where locks are kept.
CACHE = Path(__file__).resolve().parents[2] / "tools" / "setup" / "cache"
RECIPE = Path(__file__).resolve().parent / "image"
ROLE_VARIABLES = Path(__file__).resolve().parents[2] / "roles" / "fedmsg_base" / "vars"
ROLES = "roles"
REPOSITORY = "localhost/fedmsg-relay-test-host"
BOOTSTRAP_OPTIONS = [
    "--variant=minbase",
    "--format=tar",
    # Translations, man pages and the like: a third of the image, and no test reads them.
    '--aptopt=Acquire::Languages "none"',
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
]


def ensure_image(suite: str, packages: tuple[str, ...] = ()) -> str:
    """Return the name of the image for `suite`, after building it if it is not there yet.

    `suite` is a Debian release ("trixie"); it is only a label where FEDMSG_TEST_IMAGE is set.
    `packages` are installed in it, ROLES first, for others share the image that has no more.
    """
    name = _ensure_bare(suite)
    if ROLES in packages:
        name = _ensure_packages(name, suite, _packages_of_roles())
    if more := sorted(set(packages) - {ROLES}):
        name = _ensure_packages(name, suite, more)
    return name


def _ensure_bare(suite: str) -> str:
    base = os.environ.get("FEDMSG_TEST_IMAGE")
    name = _published_name(base) if base else _suite_name(suite)
    if _exists(name):
        return name
    # Two runs that need the same image: the second waits, then finds it built.
    with _lock(name):
        if not _exists(name):
            print(f"hosts: building the image for {base or suite} (once)", flush=True)
            if base:
                _build_on_published(base, name)
            else:
                _build_from_packages(suite, name)
    return name


def _ensure_packages(base: str, suite: str, packages: list[str]) -> str:
    name = f"{REPOSITORY}:{suite}-with-{_hash(base, _content('add.sh'), *packages)}"
    if _exists(name):
        return name
    with _lock(name):
        if not _exists(name):
            print(f"hosts: {suite}: adding {' '.join(packages)} (once)", flush=True)
            _build_with_packages(base, name, packages)
    return name


def _build_with_packages(base: str, name: str, packages: list[str]) -> None:
    # Not `podman build`: what runs hosts runs this, with the same options.
    container = f"fedmsg-image-{name.rsplit('-', 1)[1]}"
    podman("rm", "--force", "--ignore", container)
    script = _content("add.sh").encode()
    try:
        command = ["run", "--interactive", f"--name={container}", *limit_options(), base]
        podman(*command, "sh", "-s", "--", *packages, stdin=script)
        podman("commit", "--change", "STOPSIGNAL SIGRTMIN+3", "--quiet", container, name)
    finally:
        podman("rm", "--force", "--ignore", container)


def _packages_of_roles() -> list[str]:
    """Those of a relay host, in the words of add.sh: by Debian's name and Red Hat's."""
    import yaml  # which nothing else here needs: `make clean` works without the tests' tools

    debian, red_hat = (
        yaml.safe_load((ROLE_VARIABLES / f"{family}.yml").read_text())
        for family in ("Debian", "RedHat")
    )
    found = []
    for variable, names in debian.items():
        # Signing is what one scenario asks for: there the role installs it.
        if isinstance(names, list) and "signing" not in variable:
            found += [f"{name}={other}" for name, other in zip(names, red_hat[variable])]
    return sorted(found)


def _suite_name(suite: str) -> str:
    recipe = _content("debian-packages", "prepare.sh")
    return f"{REPOSITORY}:{suite}-{_hash(recipe, *BOOTSTRAP_OPTIONS)}"


def _build_from_packages(suite: str, name: str) -> None:
    packages = (RECIPE / "debian-packages").read_text().split()
    with tempfile.TemporaryDirectory(prefix="fedmsg-relay-image-") as scratch:
        tar = Path(scratch) / f"{suite}.tar"
        bootstrap = [
            "mmdebstrap",
            *BOOTSTRAP_OPTIONS,
            f"--include={','.join(packages)}",
            f'--customize-hook=chroot "$1" sh -s < "{RECIPE}/prepare.sh"',
            suite,
            str(tar),
        ]
        try:
            run = subprocess.run(
                bootstrap,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except FileNotFoundError:
            raise EngineError(
                "mmdebstrap is not installed; FEDMSG_TEST_IMAGE=registry/image:tag uses a "
                "published image instead"
            ) from None
        if run.returncode != 0:
            words = run.stdout.decode(errors="replace")
            raise EngineError(f"mmdebstrap {suite} failed:\n{words}")
        podman("import", "--change", "STOPSIGNAL SIGRTMIN+3", str(tar), name)


def _published_name(base: str) -> str:
    # By the image's ID too, so that a newer pull of the same tag gets a newer layer.
    inspect = ["image", "inspect", "--format", "{{.Id}}", base]
    known = podman(*inspect, check=False)
    if not known:
        print(f"hosts: pulling {base}", flush=True)
        podman("pull", base)
        known = podman(*inspect)
    recipe = _content("Containerfile", "debian-packages", "packages.sh", "prepare.sh")
    return f"{REPOSITORY}:published-{_hash(recipe, base, known)}"


def _build_on_published(base: str, name: str) -> None:
    podman("build", *limit_options(), "--build-arg", f"BASE={base}", "--tag", name, str(RECIPE))


def _content(*parts: str) -> str:
    return "\0".join((RECIPE / part).read_text() for part in parts)


def _hash(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def _exists(name: str) -> bool:
    return bool(podman("images", "--quiet", "--filter", f"reference={name}"))


@contextmanager
def _lock(name: str) -> Iterator[None]:
    cache = subprocess.run([CACHE], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    directory = Path(cache) / "locks"
    directory.mkdir(parents=True, exist_ok=True)
    tag = name.rsplit(":", 1)[1]
    with (directory / f"image-{tag}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
