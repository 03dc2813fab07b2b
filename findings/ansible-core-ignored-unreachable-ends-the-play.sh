#!/bin/sh
# With any_errors_fatal a host whose unreachability is ignored still ends the play, for all hosts and without a word.
#
# Versions: ansible-core 2.16.14 and 2.19.4.
# Expected: ignore_unreachable takes the host's absence for no error, as ignore_errors does with a task that fails:
# with that one the play goes on under any_errors_fatal.
# Seen: the task says "...ignoring", no later task runs on any host, the recap counts the host as ignored=1,
# unreachable=0, failed=0, and the exit status is 2. Without any_errors_fatal the play goes on and exits 0. The
# keyword on the task itself, any_errors_fatal: false, mends it.
# What it means: a deploy that is to leave out a host that is down cannot have both keywords on one play.
set -eu
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
cd "$made"
cat >inventory.yml <<'YAML'
all:
  hosts:
    there:
      ansible_connection: local
    away:
      ansible_host: 127.0.0.1
      # Nobody answers at the port of "discard".
      ansible_port: 9
      ansible_ssh_common_args: -o ConnectTimeout=5
YAML
play() { # KEYWORDS OF THE PLAY; TASK KEYWORDS; COMMAND
  cat >play.yml <<YAML
- hosts: all
  gather_facts: false
  $1
  tasks:
    - name: first
      ansible.builtin.raw: "$3"
      $2
    - name: second
      ansible.builtin.raw: echo went on
      delegate_to: there
YAML
  status=0
  "$venv/bin/ansible-playbook" --inventory inventory.yml play.yml >output 2>&1 || status=$?
  grep --quiet '^TASK \[second\]' output && went_on=yes || went_on=no
  recap=$(grep '^away ' output | tr --squeeze-repeats ' ')
  printf '  second task: %-3s  exit status: %s  with %s %s\n' "$went_on" "$status" "$(echo "$1" | tr -s '\n ' ' ')" "$2"
}
for version in 2.16.14 2.19.4; do
  venv=$made/$version
  python3 -m venv "$venv"
  "$venv/bin/pip" --quiet install "ansible-core==$version"
  echo "ansible-core $version"
  # As a YAML mapping's keys, a line each.
  play "any_errors_fatal: true
  ignore_unreachable: true" "" "true"
  [ "$went_on $status" = "no 2" ]
  grep --quiet '^\.\.\.ignoring' output
  echo "    $recap"
  echo "$recap" | grep --quiet 'unreachable=0 failed=0 .*ignored=1'
  play "ignore_unreachable: true" "" "true"
  [ "$went_on $status" = "yes 0" ]
  play "any_errors_fatal: true
  ignore_unreachable: true" "any_errors_fatal: false" "true"
  [ "$went_on $status" = "yes 0" ]
  # The keyword's twin, where all hosts are there and one task fails.
  sed --in-place '/away:/,$d' inventory.yml
  play "any_errors_fatal: true
  ignore_errors: true" "" "false"
  [ "$went_on $status" = "yes 0" ]
  printf '    away:\n      ansible_host: 127.0.0.1\n      ansible_port: 9\n' >>inventory.yml
done
