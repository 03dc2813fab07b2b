#!/bin/sh
# ansible_python_interpreter with an argument works in ansible-core 2.16 and not from 2.17 on.
#
# Versions: ansible-core 2.16.14, 2.17.14; Python 3.11 for both.
# Expected: "/usr/bin/python3 -I" runs each module in Python's isolated mode, with both. Without it a module
# that comes by a pipe begins with the working directory, the login user's home, in its search path.
# Seen: 2.16 runs the module. 2.17 (and 2.18, 2.19) takes the whole text for the name of one file:
# "/usr/bin/python3 -I: not found". So no inventory with it serves both.
set -eu
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
export HOME="$made" ANSIBLE_NOCOLOR=1 ANSIBLE_LOCALHOST_WARNING=false ANSIBLE_PIPELINING=true
interpreter='{"ansible_python_interpreter": "/usr/bin/python3 -I"}'
for version in 2.16.14 2.17.14; do
  python3 -m venv "$made/$version"
  "$made/$version/bin/pip" --quiet install "ansible-core==$version"
  status=0
  "$made/$version/bin/ansible" --inventory one, --connection local --extra-vars "$interpreter" \
    --module-name ansible.builtin.ping one >"$made/said" 2>&1 || status=$?
  printf '%s: exit %s, ' "$version" "$status"
  case "$version" in
    2.16.*) grep --max-count 1 SUCCESS "$made/said" && test "$status" -eq 0 ;;
    *) grep --only-matching "/usr/bin/python3 -I: not found" "$made/said" && test "$status" -ne 0 ;;
  esac
done
