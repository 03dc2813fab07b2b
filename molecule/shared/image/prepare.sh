#!/bin/sh
# Runs once inside a host image, Debian's or the Red Hat family's: everything that turns a plain
# system into a test host, apart from the packages. Part of the image's cache key.
set -eu

# The unprivileged operator that Ansible and testinfra log in as. Debian comes with a group of this
# name, the Red Hat family with a user who must not log in.
getent group operator >/dev/null || groupadd operator
getent passwd operator >/dev/null || useradd --gid operator operator
usermod --shell /bin/bash --home /home/operator operator
install --directory --owner=operator --group="$(id -gn operator)" --mode=0755 /home/operator
printf 'operator ALL=(ALL) NOPASSWD: ALL\n' >/etc/sudoers.d/operator
chmod 0440 /etc/sudoers.d/operator

# Keys come from the harness when a host is created: images hold none.
rm -f /etc/ssh/ssh_host_*
mkdir -p /etc/ssh/sshd_config.d /etc/ssh/authorized_keys.d
cat >/etc/ssh/sshd_config.d/00-test-host.conf <<'EOF'
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/authorized_keys.d/%u
PasswordAuthentication no
UseDNS no
# Tests open many sessions at once; the default of 10 drops some of them.
MaxStartups 100
MaxSessions 100
EOF

# The machine's kernel, devices and consoles are not this host's to set up.
for unit in \
  console-getty.service getty.target getty-static.service systemd-logind.service \
  systemd-binfmt.service systemd-modules-load.service systemd-sysctl.service \
  systemd-udevd.service systemd-udev-trigger.service proc-sys-fs-binfmt_misc.automount \
  dev-hugepages.mount sys-fs-fuse-connections.mount sys-kernel-config.mount \
  sys-kernel-debug.mount sys-kernel-tracing.mount \
  systemd-pcrlock-make-policy.service systemd-resolved.service; do
  ln -sf /dev/null "/etc/systemd/system/$unit"
done

# Background package jobs would hold the package manager's lock while a role needs it.
for unit in apt-daily.timer apt-daily-upgrade.timer dnf-makecache.timer; do
  ln -sf /dev/null "/etc/systemd/system/$unit"
done

# Debian's sshd complains of each login until somebody has chosen a locale.
[ ! -d /etc/default ] || : >>/etc/default/locale

systemctl enable ssh.service 2>/dev/null || systemctl enable sshd.service

# Each host gets a machine ID of its own at first boot.
: >/etc/machine-id
