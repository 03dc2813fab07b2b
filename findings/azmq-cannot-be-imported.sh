#!/bin/sh
# azmq, a ZMTP peer in Python alone, can be installed on every Python and imported on none of today's.
#
# Versions: azmq 1.0.6, its newest, Python 3.7 or later.
# Expected: pip installs what runs: its metadata names Python 3 and no upper bound.
# Seen: it installs, and importing it is a SyntaxError in its own socket.py: a generator expression without
# parentheses as one of two arguments, which Python took until 3.6.
# What it means: for a listener without libzmq there is no such way on a host of today.
set -eu
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
python3 -m venv "$made/venv"
"$made/venv/bin/pip" --quiet install azmq==1.0.6
status=0
"$made/venv/bin/python" -c 'import azmq' 2>"$made/said" || status=$?
tail -n 1 "$made/said"
test "$status" -eq 1
grep --quiet '^SyntaxError: Generator expression must be parenthesized' "$made/said"
