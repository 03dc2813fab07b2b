#!/bin/bash
# Tell the bus about a build: each line of its log, then its result.
#
#   make 2>&1 | announce-build.sh guake 3.10.1-1.fc41
#
# An example of an ephemeral script in bash. The log's lines become one message each on the topic
# buildsys.build.log; when the log ends, one more on buildsys.build.complete names the package.
# Ends with fedmsg-logger's exit code when something could not be published (75: no relay answers).
set -euo pipefail

usage() {
    echo "usage: COMMAND | announce-build.sh PACKAGE VERSION" >&2
    exit 2
}

[[ $# -eq 2 && ! -t 0 ]] || usage
package=$1
version=$2

# They are put into JSON as they are, so only what names and versions of packages consist of.
for word in "$package" "$version"; do
    [[ $word =~ ^[A-Za-z0-9._+~^:-]+$ ]] || usage
done

fedmsg-logger --modname buildsys --topic build.log

printf '{"package": "%s", "version": "%s", "host": "%s"}' "$package" "$version" "$HOSTNAME" |
    fedmsg-logger --modname buildsys --topic build.complete --json-input
