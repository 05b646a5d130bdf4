#!/bin/sh
# Makes the root file system of an image with a real inference engine: llama.cpp's server from a wheel. Prints its path.
#
#   tests/engine/build.sh [CACHE]      # CACHE: ~/.cache/substratus
#
# Made once, as CACHE/engine-<hash of this folder>. Needs what rootfs.sh needs, and strip (binutils).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../rootfs.sh"

rootfs_begin engine "${1:-$HOME/.cache/substratus}" "$here/build.sh" "$here/llama-server" "$here/requirements.txt"
rootfs_python ./pydoc_data ./unittest '*sqlite3*' 'readline*' '_curses*' '_ssl*' '_hashlib*'
$python -m pip download --quiet --no-deps --only-binary :all: --require-hashes -r "$here/requirements.txt" -d "$work" >&2
$python -m zipfile -e "$work"/xllamacpp-*.whl "$new/app/lib"
strip --strip-unneeded "$new"/app/lib/xllamacpp/*.so
cp "$here/llama-server" "$new/app/llama-server"
chmod 755 "$new/app/llama-server"
rootfs_end "$new/app/lib"
