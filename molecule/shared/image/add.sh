#!/bin/sh
# Installs packages into an image of a test host, with the package manager the image has. Each word is a
# package, or DEBIAN-NAME=RED-HAT-NAME; one that this system does not have is left out: its role knows.
set -eu

names=
if command -v apt-get >/dev/null; then
  apt-get --quiet=2 update
  for word in "$@"; do
    name=${word%%=*}
    ! apt-cache show "$name" >/dev/null 2>&1 || names="$names $name"
  done
  # shellcheck disable=SC2086 # one package a word
  DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 install --yes --no-install-recommends $names
  apt-get clean
  # What the daily timer of a real host leaves behind: these lists are of today.
  mkdir -p /var/lib/apt/periodic
  touch /var/lib/apt/periodic/update-success-stamp
else
  for word in "$@"; do names="$names ${word##*=}"; done
  # shellcheck disable=SC2086
  dnf install -y --setopt=install_weak_deps=False --skip-unavailable $names
  dnf clean packages
fi
# Whoever starts from this image is a host of its own.
: >/etc/machine-id
rm -f /etc/ssh/ssh_host_* /var/lib/systemd/random-seed
