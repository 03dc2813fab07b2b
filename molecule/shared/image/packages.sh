#!/bin/sh
# Installs into a published image what a test host needs, with the package manager the image has.
set -eu

here=$(dirname "$0")

if command -v dnf >/dev/null; then
  # --allowerasing: minimal images come with coreutils-single and the like, which give way.
  add() { dnf install -y --allowerasing --setopt=install_weak_deps=False "$@"; }
  add ca-certificates dbus-broker iproute openssh-server passwd procps-ng python3 shadow-utils \
    sudo systemd
  # Ansible's dnf module speaks through one of these, depending on dnf's version.
  add python3-libdnf5 || add python3-dnf
  dnf clean all
elif command -v apt-get >/dev/null; then
  packages=$(cat "$here/debian-packages")
  apt-get update
  # shellcheck disable=SC2086 # one package a word
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages
  rm -rf /var/lib/apt/lists/*
else
  echo "packages.sh: this image has neither dnf nor apt-get" >&2
  exit 1
fi
