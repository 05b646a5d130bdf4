#!/bin/sh
# Makes a component of the Python importer beside this script, without its manifest. Prints its path.
#
#   examples/importer-python/build.sh [CACHE]     # CACHE: ~/.cache/substratus
#
# Made once, as CACHE/importer-python-<hash of its inputs>. Needs python3 with venv.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
wit=$(cd "$here/../../wit" && pwd)
cache=${1:-$HOME/.cache/substratus}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
made=$cache/importer-python-$(cat "$here/build.sh" "$here/requirements.txt" "$here"/*.py "$wit"/*.wit | sha256sum | cut -c1-16)

# One at a time: the second finds what the first has made.
exec 9>"$cache/.importer-python.lock"
flock 9
if [ ! -f "$made/importer.wasm" ]; then
    echo "examples/importer-python: building $made" >&2
    work=$(mktemp -d "$cache/.importer-python.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    python3 -m venv "$work/venv"
    "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        -r "$here/requirements.txt" >&2
    mkdir "$work/app" "$work/made"
    cp "$here"/*.py "$work/app"
    # A guest has no WASI: what Python's library wants of it is a trap.
    (cd "$work/app" && "$work/venv/bin/componentize-py" --quiet --wit-path "$wit" --world dataset-importer \
        componentize --stub-wasi --output "$work/made/importer.wasm" alpaca) >&2
    rm -rf "$made"
    mv "$work/made" "$made"
fi
echo "$made/importer.wasm"
