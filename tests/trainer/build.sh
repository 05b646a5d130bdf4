#!/bin/sh
# Makes the root file system that the small trainer of examples/trainer runs in: Python with jax. Prints its path.
#
#   tests/trainer/build.sh [CACHE]     # CACHE: ~/.cache/substratus
#
# Made once, as CACHE/trainer-<hash of this folder and of the packages>. Needs what rootfs.sh needs, and strip (binutils).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../rootfs.sh"
requirements=$here/../../examples/trainer/small/requirements.txt

rootfs_begin trainer "${1:-$HOME/.cache/substratus}" "$here/build.sh" "$requirements"
rootfs_python ./pydoc_data '*sqlite3*' 'readline*' '_curses*'
packages=/usr/lib/python3/dist-packages
# Only jax.scipy imports scipy, which is as large as the rest but for the compiler.
grep -v '^scipy==' "$requirements" >"$work/requirements.txt"
$python -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --only-binary :all: --no-compile \
    -r "$work/requirements.txt" --target "$new$packages" >&2
rm -rf "$new$packages/bin"
strip --strip-unneeded "$new$packages/jaxlib/libjax_common.so"
rootfs_end "$new$packages"
