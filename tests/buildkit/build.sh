#!/usr/bin/env bash
# Builds BuildKit, which builds images in the tests, and what lets it run without root, from pinned Go modules into DEST, once.
#   tests/buildkit/build.sh DEST
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dest=${1:?usage: build.sh DEST}
mkdir -p "$dest"
pin=$(cat "$here/go.mod" "$here/go.sum" "$0" | sha256sum | cut -c1-16)
stamp="$dest/.buildkit-$pin"
if [ -e "$stamp" ]; then exit 0; fi
started=$SECONDS
echo "building buildkit (once; minutes on two cores) …"
(cd "$here" && GOBIN="$dest" GOFLAGS=-mod=readonly CGO_ENABLED=0 go install -trimpath -ldflags="-s -w" tool)
rm -f "$dest/.buildkit-"*
touch "$stamp"
echo "built buildkit in $((SECONDS - started)) s"
