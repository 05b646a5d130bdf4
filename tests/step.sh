#!/bin/sh
# Runs a command as one step of something longer, and says how long it took.
#
#   tests/step.sh WHAT COMMAND...
set -eu

what=${1:?usage: tests/step.sh WHAT COMMAND...}
shift
began=$(date +%s)
echo "== $what"
status=0
"$@" || status=$?
took=$(($(date +%s) - began))
if [ "$status" -ne 0 ]; then
    echo "== $what: failed after $took s" >&2
    exit "$status"
fi
echo "== $what: $took s"
