#!/bin/sh
# Lists what the program and every plugin are made of, as CycloneDX: one file for each in DEST. The same lock files give the same bytes.
# What only tests need may be in it, too.
#
#   tests/sbom.sh CARGO-CYCLONEDX DEST
set -eu

cyclonedx=${1:?usage: tests/sbom.sh CARGO-CYCLONEDX DEST}
dest=${2:?usage: tests/sbom.sh CARGO-CYCLONEDX DEST}
mkdir -p "$dest"
# Without it each list would carry the time and a number of its own.
export SOURCE_DATE_EPOCH=0

list() { # MANIFEST TARGET: the lists of a workspace's crates, beside their manifests
    "$cyclonedx" cyclonedx --quiet --format json --override-filename sbom.cdx --target "$2" --manifest-path "$1"
}

list Cargo.toml x86_64-unknown-linux-musl
list plugins/Cargo.toml wasm32-unknown-unknown
take() { # LIST NAME: where the sources lie on this machine is nobody's business
    sed "s|file://$PWD/|file:///src/|g" "$1" > "$dest/$2.cdx.json"
    rm "$1"
}

take host/sbom.cdx.json substratus
for manifest in plugins/*/plugin.yaml; do
    folder=$(dirname "$manifest")
    take "$folder/sbom.cdx.json" "$(basename "$folder")"
done
# Libraries and tests are shipped inside of the others, or not at all.
rm -f crds/sbom.cdx.json tests/sbom.cdx.json plugins/*/sbom.cdx.json
ls "$dest"
