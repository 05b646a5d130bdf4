#!/usr/bin/env bash
# Builds cosign, which signs the fixtures of signatures and releases, from its pinned Go module into DEST, once.
#   tests/cosign/build.sh DEST
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dest=${1:?usage: build.sh DEST}
mkdir -p "$dest"
pin=$(cat "$here/go.mod" "$here/go.sum" "$0" | sha256sum | cut -c1-16)
stamp="$dest/.cosign-$pin"
if [ -e "$stamp" ]; then exit 0; fi
started=$SECONDS
echo "building cosign (once; minutes on two cores) …"
(cd "$here" && GOBIN="$dest" GOFLAGS=-mod=readonly CGO_ENABLED=0 go install -trimpath -ldflags="-s -w" tool)
rm -f "$dest/.cosign-"*
touch "$stamp"
echo "built cosign in $((SECONDS - started)) s"
