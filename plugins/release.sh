#!/bin/sh
# Builds first-party plugins, pushes them, and signs what was pushed with cosign; says the reference of each by digest.
#
#   COSIGN_KEY=cosign.key COSIGN_PASSWORD=... plugins/release.sh REGISTRY/PREFIX SUBSTRATUS COSIGN [PLUGIN...]
#
# COSIGN_KEY is a file, or what cosign takes in its place (env://NAME, a key management service). SBOM=DIR attests DIR/PLUGIN.cdx.json too.
# Nothing is told to a public log: whoever verifies has the public key.
set -eu

prefix=${1:?usage: plugins/release.sh REGISTRY/PREFIX SUBSTRATUS COSIGN [PLUGIN...]}
substratus=${2:?the substratus program}
cosign=${3:?the cosign program}
shift 3
: "${COSIGN_KEY:?set COSIGN_KEY to the private key, and COSIGN_PASSWORD to its password}"
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -eq 0 ]; then
    for manifest in "$here"/*/plugin.yaml; do
        set -- "$@" "$(basename "$(dirname "$manifest")")"
    done
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$cosign" signing-config create --out "$work/signing.json"
"$cosign" trusted-root create --out "$work/root.json"

for plugin in "$@"; do
    file=$work/$plugin.wasm
    "$substratus" plugin build "$here/$plugin" --output "$file" >&2
    version=$(sed -n 's/^version: *//p' "$here/$plugin/plugin.yaml")
    reference=$("$substratus" plugin push "$file" "$prefix/$plugin:$version")
    "$cosign" sign --yes --key "$COSIGN_KEY" --signing-config "$work/signing.json" --trusted-root "$work/root.json" "$reference" >&2
    if [ -n "${SBOM:-}" ]; then
        "$cosign" attest --yes --key "$COSIGN_KEY" --signing-config "$work/signing.json" --trusted-root "$work/root.json" \
            --type cyclonedx --predicate "$SBOM/$plugin.cdx.json" "$reference" >&2
    fi
    echo "$reference"
done
