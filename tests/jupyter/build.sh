#!/bin/sh
# Makes the root file system of an image with a real JupyterLab, as notebook images have it: `jupyter` is on the path.
# Prints its path.
#
#   tests/jupyter/build.sh [CACHE]     # CACHE: ~/.cache/substratus
#
# Made once, as CACHE/jupyter-<hash of this folder>. Needs what rootfs.sh needs.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../rootfs.sh"

rootfs_begin jupyter "${1:-$HOME/.cache/substratus}" "$here/build.sh" "$here/requirements.txt"
rootfs_python
packages=/usr/lib/python3/dist-packages
$python -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --only-binary :all: --no-compile \
    --require-hashes -r "$here/requirements.txt" --target "$new$packages" >&2
# What `pip install --target` makes runs where it was made; these run where they will be.
rm -rf "$new$packages/bin"
for program in jupyter jupyter-lab jupyter-server; do
    module=$(echo "$program" | sed 's/^jupyter$/jupyter_core.command/; s/^jupyter-lab$/jupyterlab.labapp/; s/^jupyter-server$/jupyter_server.serverapp/')
    printf '#!/usr/bin/python3\nimport sys\nfrom %s import main\nsys.exit(main())\n' "$module" >"$new/usr/bin/$program"
    chmod 755 "$new/usr/bin/$program"
done
# The page's parts, kernels and settings, where Jupyter looks for those of the system.
mkdir -p "$new/usr/share" "$new/usr/etc"
cp -a "$new$packages/share/jupyter" "$new/usr/share/"
[ ! -d "$new$packages/etc" ] || cp -a "$new$packages/etc/." "$new/usr/etc/"
rm -rf "$new$packages/share" "$new$packages/etc"
rootfs_end "$new$packages"
