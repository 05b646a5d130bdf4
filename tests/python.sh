#!/bin/sh
# Makes a Python environment with the pinned packages of requirements.txt. Prints its path.
#
#   tests/python.sh [CACHE [FILE]]     # CACHE: ~/.cache/substratus, FILE: requirements.txt
#
# Made once, as CACHE/python-<hash of FILE>. Needs python3 with venv.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${1:-$HOME/.cache/substratus}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
file=${2:-$here/requirements.txt}
venv=$cache/python-$(cat "$here/python.sh" "$file" | sha256sum | cut -c1-16)

# One at a time: the second finds what the first has made.
exec 9>"$cache/.python.lock"
flock 9
# The last step of an install leaves the mark; an environment cannot be made elsewhere and moved.
if [ ! -f "$venv/complete" ]; then
    echo "tests/python: installing into $venv" >&2
    python3 -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        -r "$file" >&2
    touch "$venv/complete"
fi
echo "$venv"
