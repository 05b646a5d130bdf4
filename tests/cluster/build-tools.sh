#!/usr/bin/env bash
# Builds the programs of the test cluster, and an object store, from pinned Go modules into DEST, once; a family whose pins did not change is not built again.
#   tests/cluster/build-tools.sh DEST
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dest=${1:?usage: build-tools.sh DEST}
mkdir -p "$dest"

# Kubernetes' programs read their version from these variables; without them they call themselves v0.0.0 and clients misread it.
kubernetes=v1.34.4
base=k8s.io/component-base/version
version="-X $base.gitVersion=$kubernetes -X $base.gitMajor=1 -X $base.gitMinor=34"

for family in etcd coredns kubernetes versitygw; do
  pin=$(cat "$here/$family/go.mod" "$here/$family/go.sum" "$0" | sha256sum | cut -c1-16)
  stamp="$dest/.$family-$pin"
  [ -e "$stamp" ] && continue
  started=$SECONDS
  echo "building $family (once; minutes on two cores) …"
  (cd "$here/$family" && GOBIN="$dest" GOFLAGS=-mod=readonly CGO_ENABLED=0 go install -trimpath -ldflags="-s -w $version" tool)
  # etcd's module calls its program `server`.
  if [ "$family" = etcd ]; then mv "$dest/server" "$dest/etcd"; fi
  rm -f "$dest/.$family-"*
  touch "$stamp"
  echo "built $family in $((SECONDS - started)) s"
done
